//! Permits for decisions: an instance holds its permit until it is finished, cancelled or replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tidegate::authz::authorizer::Authorizer;
use tidegate::policy::{Limits, Outcome, Request};
use tidegate::wasm::component::Policy;
use tidegate::wasm::engine::Engines;
use tidegate::wasm::host::PolicyEnv;

use crate::faulty_store::FaultyStore;
use crate::guests::authorizer;
use crate::sandbox_limits::REALLOC;

/// A policy with this many pages of memory that allows all requests.
fn with_pages(pages: u32) -> Vec<u8> {
    authorizer(&format!(
        r#"(module (memory (export "memory") {pages})
          {REALLOC}
          (func (export "tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            ;; 56 zero bytes: ok, and a grant with none and nothing in every field
            (i32.const 64)))"#
    ))
}

/// Longer than a slow decision on a busy machine.
const DECISION_TIMEOUT: Duration = Duration::from_secs(20);

pub fn generous_limits() -> Limits {
    Limits { timeout: DECISION_TIMEOUT, queue_timeout: DECISION_TIMEOUT, ..Limits::default() }
}

/// An authorizer with its own engines, and so its own pools.
pub fn new_authorizer(policy: &[u8], limits: Limits) -> Authorizer {
    let engines = Engines::new(&limits).expect("engines");
    let authorizer = Authorizer::new(
        engines.clone(),
        PolicyEnv::new(FaultyStore::new(Default::default()), &limits),
        limits,
        Arc::default(),
    );
    authorizer.activate(Policy::new(&engines.into(), policy).expect("the policy loads"));
    authorizer
}

pub fn request() -> Request {
    Request {
        method: "GET".into(),
        scheme: "http".into(),
        authority: "localhost".into(),
        path_with_query: "/api/realtime?channel=c".into(),
        headers: http::HeaderMap::new(),
        client_address: Some(std::net::IpAddr::from([127, 0, 0, 1])),
        id: "1".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_instances_do_not_accumulate() {
    const CLIENTS: usize = 4;
    // Large enough that instances are torn down outside of the decision, and small enough that the decision itself is fast.
    let authorizer = Arc::new(new_authorizer(&with_pages(48), generous_limits()));
    let peak = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (authorizer, peak) = (Arc::clone(&authorizer), Arc::clone(&peak));
            tokio::spawn(async move {
                for _ in 0..2000 {
                    let decision = authorizer.evaluate(&request(), &["c".to_owned()]).await;
                    assert!(matches!(decision.outcome, Outcome::Allowed(_)), "{:?}", decision.outcome);
                    peak.fetch_max(authorizer.evaluating(), Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("a client");
    }
    let peak = peak.load(Ordering::Relaxed);
    // One instance for each client, and a few in teardown.
    assert!((1..=CLIENTS + 4).contains(&peak), "{peak} instances for {CLIENTS} clients");
}

#[tokio::test]
async fn cancelled_decision_releases_its_permit() {
    // 16 MiB at once move each decision to the low-priority pool at its first step, and only that pool drops cancelled decisions.
    let limits = Limits { concurrency: 8, prewarmed_instances: 0, shadow_concurrency: 0, ..generous_limits() };
    let authorizer = new_authorizer(&with_pages(256), limits);
    let mut cancelled = 0;
    for _ in 0..500 {
        let channels = ["c".to_owned()];
        let request = request();
        let mut deciding: Vec<_> = (0..8).map(|_| Box::pin(authorizer.evaluate(&request, &channels))).collect();
        for decision in &mut deciding {
            match decision.now_or_never() {
                Some(decision) => assert!(matches!(decision.outcome, Outcome::Allowed(_)), "{:?}", decision.outcome),
                None => cancelled += 1,
            }
        }
    }
    assert!(cancelled > 500, "only {cancelled} decisions were cancelled");
    let decision = authorizer.evaluate(&request(), &["c".to_owned()]).await;
    assert!(matches!(decision.outcome, Outcome::Allowed(_)), "a permit is available again: {:?}", decision.outcome);
}
