//! The time of one decision: the gateway's authorizer compared with a bare `InstancePre` and a pool with wasmtime's own settings. One run
//! measures both, in alternating rounds.
//!
//! `cargo bench --bench door` prints microseconds. Both sides decide the same request with the same component on a fresh instance:
//! eight headers, one session look-up in an embedded store, its JSON.

#![allow(clippy::expect_used, reason = "a benchmark that cannot run ends with the reason")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http::{HeaderMap, HeaderValue};
use tidegate::authz::authorizer::Authorizer;
use tidegate::policy::{Limits, Outcome, Request};
use tidegate::store::EventStore;
use tidegate::store::memory::{MemoryStore, Seed};
use tidegate::util::clock::system_clock;
use tidegate::wasm::component::Policy;
use tidegate::wasm::engine::Engines;
use tidegate::wasm::host::PolicyEnv;

#[path = "door/bare.rs"]
mod bare;
#[path = "../tests/common/guests.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod guests;

/// The allocator of the program, for both sides.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const COMPONENT: &[u8] = include_bytes!("../guest-examples/rust-role-based/policy.wasm");
/// A section that makes a component asynchronous: the canonical function `task.cancel`, which the component does not call.
const TASK_CANCEL: [u8; 4] = [8, 2, 1, 0x05];
const DECISIONS_PER_ROUND: u32 = 500;
/// Measured rounds of each side. One more round before them is not measured: it warms up.
const ROUNDS: u32 = 40;

fn main() {
    // `-- authorizer` measures that side alone, for a profiler; so do `-- bare`, `-- async` and `-- cached`.
    let only = std::env::args().nth(1).filter(|arg| arg != "--bench");
    let measures = |side: &str| only.as_deref().is_none_or(|only| only == side);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = store();
    let bare = bare::Bare::new(COMPONENT, Arc::clone(&store));
    let authorizer = authorizer(Arc::clone(&store), COMPONENT);
    // The same component in the engine with support for the asynchronous ABI.
    let in_async_engine = self::authorizer(Arc::clone(&store), &[COMPONENT, &TASK_CANCEL].concat());
    // Its policy allows the decision to be cached.
    let caching = self::authorizer(store, &guests::component("kept"));
    let (mut bare_times, mut authorizer_times, mut cached_times) = (histogram(), histogram(), histogram());
    let mut async_times = histogram();
    runtime.block_on(async {
        for round in 0..=ROUNDS {
            for _ in 0..DECISIONS_PER_ROUND * u32::from(measures("bare")) {
                let start = Instant::now();
                bare.decide(&headers()).await;
                if round > 0 {
                    record(&mut bare_times, start.elapsed());
                }
            }
            for (side, authorizer, times) in
                [("authorizer", &authorizer, &mut authorizer_times), ("async", &in_async_engine, &mut async_times)]
            {
                for _ in 0..DECISIONS_PER_ROUND * u32::from(measures(side)) {
                    let start = Instant::now();
                    let decision = authorizer.evaluate(&request(), &["default".to_owned()]).await;
                    if round > 0 {
                        record(times, start.elapsed());
                    }
                    assert!(matches!(decision.outcome, Outcome::Allowed(_)), "{:?}", decision.outcome);
                }
            }
            for _ in 0..DECISIONS_PER_ROUND * u32::from(measures("cached")) {
                let start = Instant::now();
                let decision = caching.evaluate(&request(), &["given".to_owned()]).await;
                if round > 0 {
                    record(&mut cached_times, start.elapsed());
                    assert!(
                        decision.cached && matches!(decision.outcome, Outcome::Allowed(_)),
                        "{:?}",
                        decision.outcome
                    );
                }
            }
        }
    });
    println!("one decision on a fresh instance, µs ({} of each)", DECISIONS_PER_ROUND * ROUNDS);
    println!("| side | p50 | p99 |\n| --- | --- | --- |");
    let row = |name, times: &Histogram<u64>| {
        println!("| {name} | {:.1} | {:.1} |", us(times, 0.5), us(times, 0.99));
    };
    row("bare InstancePre, default pool", &bare_times);
    row("authorizer", &authorizer_times);
    row("authorizer, engine for the asynchronous ABI", &async_times);
    row("authorizer, cached decision", &cached_times);
    println!(
        "\nratio {:.2} (p50), {:.2} (p99)",
        us(&authorizer_times, 0.5) / us(&bare_times, 0.5),
        us(&authorizer_times, 0.99) / us(&bare_times, 0.99)
    );
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds and three digits are valid")
}

fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

#[expect(clippy::cast_precision_loss, reason = "a time of some µs")]
fn us(times: &Histogram<u64>, quantile: f64) -> f64 {
    times.value_at_quantile(quantile) as f64 / 1000.0
}

fn store() -> Arc<dyn EventStore> {
    let session = Seed::Text(r#"{"id":"alice","role":"member"}"#.into());
    Arc::new(MemoryStore::new(1 << 20, [("session:alice".to_owned(), session)].into(), system_clock()))
}

fn authorizer(store: Arc<dyn EventStore>, component: &[u8]) -> Authorizer {
    let limits = Limits::default();
    let env = PolicyEnv { lookup_prefixes: vec!["session:".into(), "team:".into()], ..PolicyEnv::new(store, &limits) };
    let engines = Engines::new(&limits).expect("engines").into();
    let policy = Policy::new(&engines, component).expect("the example loads");
    let authorizer = Authorizer::new(engines, env, limits, Arc::default());
    authorizer.activate(policy);
    authorizer
}

fn headers() -> HeaderMap {
    let fields = [
        ("host", "gate.example"),
        (
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
        ),
        ("accept", "text/event-stream"),
        ("accept-language", "en-GB,en;q=0.9"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("cache-control", "no-cache"),
        ("origin", "https://app.example"),
        ("cookie", "theme=dark; session=alice; lang=en"),
    ];
    fields
        .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
        .into_iter()
        .collect()
}

fn request() -> Request {
    Request {
        method: "GET".into(),
        scheme: "https".into(),
        authority: "gate.example".into(),
        path_with_query: "/api/realtime?channel=default".into(),
        headers: headers(),
        client_address: Some(std::net::IpAddr::from([192, 0, 2, 7])),
        id: "0123456789abcdef".into(),
    }
}
