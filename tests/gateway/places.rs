//! Decisions have places, and an instance keeps its own until it is gone: done, given up or overtaken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tidegate::authz::authorizer::Authorizer;
use tidegate::policy::{Limits, Outcome, Request};
use tidegate::wasm::component::Policy;
use tidegate::wasm::engine;
use tidegate::wasm::host::PolicyEnv;

use crate::guests::authorizer;
use crate::linked::LinkedStore;

/// A policy that brings so many pages of memory along and lets everybody in.
fn with_pages(pages: u32) -> Vec<u8> {
    authorizer(&format!(
        r#"(module (memory (export "memory") {pages})
          (global $heap (mut i32) (i32.const 0x10000))
          (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
            (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
            (global.get $heap)
            (global.set $heap (i32.add (global.get $heap) (local.get $size))))
          (func (export "tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            ;; 56 zero bytes: ok, and a grant with none and nothing in every field
            (i32.const 64)))"#
    ))
}

/// A busy machine gives slow decisions little time.
const PATIENCE: Duration = Duration::from_secs(20);

fn patient() -> Limits {
    Limits { timeout: PATIENCE, queue_timeout: PATIENCE, ..Limits::default() }
}

/// A gate with an engine, and so a pool, of its own.
fn new_authorizer(policy: &[u8], limits: Limits) -> Authorizer {
    let engine = engine::engine(&limits).expect("an engine");
    let env = PolicyEnv::new(LinkedStore::new(Default::default()), &limits);
    let authorizer = Authorizer::new(engine.clone(), env, limits, Arc::default());
    authorizer.activate(Policy::new(&engine.into(), policy).expect("the policy loads"));
    authorizer
}

fn request() -> Request {
    Request {
        method: "GET".into(),
        scheme: "http".into(),
        authority: "localhost".into(),
        path_with_query: "/api/realtime?channel=c".into(),
        headers: http::HeaderMap::new(),
        client_address: "127.0.0.1".into(),
        id: "1".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_are_done_do_not_pile_up() {
    const CLIENTS: usize = 4;
    // Enough to be taken down beside the decisions, and not so much that the decision itself is a slow one.
    let authorizer = Arc::new(new_authorizer(&with_pages(48), patient()));
    let most = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (authorizer, most) = (Arc::clone(&authorizer), Arc::clone(&most));
            tokio::spawn(async move {
                for _ in 0..2000 {
                    let decision = authorizer.evaluate(&request(), &["c".to_owned()]).await;
                    assert!(matches!(decision.outcome, Outcome::Allowed(_)), "{:?}", decision.outcome);
                    most.fetch_max(authorizer.evaluating(), Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client");
    }
    let most = most.load(Ordering::Relaxed);
    // Each client's own, and a few that are on their way out.
    assert!((1..=CLIENTS + 4).contains(&most), "{most} instances for {CLIENTS} clients");
}

#[tokio::test]
async fn who_gives_up_leaves_no_instance_beside_the_places() {
    // 16 MiB at once: each decision goes to the threads for slow ones at the first step, and only these let go of what was given up.
    let limits = Limits { concurrency: 8, prepared: 0, shadow: 0, ..patient() };
    let authorizer = new_authorizer(&with_pages(256), limits);
    let mut begun = 0;
    for _ in 0..500 {
        let channels = ["c".to_owned()];
        let request = request();
        let mut deciding: Vec<_> = (0..8).map(|_| Box::pin(authorizer.evaluate(&request, &channels))).collect();
        for decision in &mut deciding {
            match decision.now_or_never() {
                Some(decision) => assert!(matches!(decision.outcome, Outcome::Allowed(_)), "{:?}", decision.outcome),
                None => begun += 1,
            }
        }
    }
    assert!(begun > 500, "{begun} were given up");
    let decision = authorizer.evaluate(&request(), &["c".to_owned()]).await;
    assert!(matches!(decision.outcome, Outcome::Allowed(_)), "the places are free again: {:?}", decision.outcome);
}
