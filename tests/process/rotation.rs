//! Rotation after an activation: all streams reconnect evenly within the window, and lose no event.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::emitter::{self, EmitterReport};
use crate::event_source::{Source, assert_complete, stored_entries, wait_for_all};
use crate::guests;
use crate::processes::{Gateway, is_full_soak, path};
use crate::redis_server::Redis;

const CHANNELS: [&str; 1] = ["rotation"];
/// Streams are not rotated before this age.
const MIN_STREAM_AGE: Duration = Duration::from_secs(10);

/// The policy that allows all requests, with a custom section that changes only the digest.
fn allow(number: u8) -> Vec<u8> {
    let mut component = guests::component("allow");
    component.extend([0, 3, 1, b'e', number]);
    component
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_rotated_evenly_within_the_window() {
    let (streams, window) = if is_full_soak() { (2000, 30) } else { (400, 10) };
    let window = Duration::from_secs(window);
    let redis = Redis::start(&[]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let policy = path(dir.path(), "policy.wasm");
    std::fs::write(&policy, allow(1)).expect("the policy is written");
    let toml = format!(
        "store = \"{}\"\nlog.filter = \"warn,tidegate::server=info\"\npolicy = {{ file = \"{policy}\", rotation-window = \"{}s\" }}",
        redis.url(),
        window.as_secs()
    );
    let gateway = Gateway::start(&toml).await;

    let sources: Vec<_> = (0..streams).map(|number| Source::new(number, &CHANNELS, None)).collect();
    for source in &sources {
        tokio::spawn(Arc::clone(source).follow(gateway.data));
    }
    assert_eq!(
        wait_for_all(&sources, Duration::from_secs(30), |received| received.is_open()).await,
        0,
        "all streams are open"
    );
    let emitter = emitter::start(redis.port, &CHANNELS, 3, 8, MIN_STREAM_AGE + window + Duration::from_secs(4));
    tokio::time::sleep(MIN_STREAM_AGE).await;

    let next = path(dir.path(), "next.wasm");
    std::fs::write(&next, allow(2)).expect("the policy is written");
    std::fs::rename(&next, &policy).expect("it replaces the previous file");
    gateway.process.stderr.wait_for_text("rotating").await;
    let begin = Instant::now();
    let not_rotated =
        wait_for_all(&sources, window + Duration::from_secs(20), |received| !received.reconnects.is_empty()).await;
    assert_eq!(not_rotated, 0, "some streams were not rotated");
    let report = EmitterReport::of(emitter).await;
    let all = vec![stored_entries(&redis, CHANNELS[0]).await];
    let late = wait_for_all(&sources, Duration::from_secs(20), |received| received.has_all(&all)).await;
    let deliveries = assert_complete(&sources, &all);
    assert_eq!(late, 0);

    let mut tenths = [0; 10];
    let mut last = Duration::ZERO;
    for source in &sources {
        let received = source.lock();
        assert_eq!(received.reconnects.len(), 1, "stream {} was rotated once", source.number);
        let at = received.reconnects[0].saturating_duration_since(begin);
        last = last.max(at);
        tenths[(at.as_millis() * 10 / window.as_millis()).min(9) as usize] += 1;
    }
    println!(
        "rotation: {streams} streams, {} entries, {deliveries} deliveries, the last after {last:?} of {window:?}, by tenths {tenths:?}",
        report.added
    );
    assert!(last <= window + Duration::from_secs(1), "the last stream is rotated within the window: {last:?}");
    let even = streams / 20..=streams * 3 / 20;
    assert!(tenths.iter().all(|count| even.contains(count)), "the streams are rotated evenly: {tenths:?}");
}
