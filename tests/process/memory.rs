//! Measures the memory of a gateway by its allocator's own figure, and holds it against the terms of docs/configuration.md#memory.

use std::time::Duration;

use crate::control_port::metric;
use crate::processes::Gateway;

/// What a gateway allocates and frees apart from the measured workload: the request of the measurement, timers, caches. The terms that a
/// test measures are large against it.
pub const NOISE_BYTES: usize = 512 << 10;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// Memory is measured for some time after a workload was added: the gateway may still work on it.
pub const SETTLE_TIME: Duration = Duration::from_millis(300);

/// Bytes that the allocator has given out. The linear memories of policies are not among them.
pub async fn allocated(gateway: &Gateway) -> usize {
    metric(gateway.control, "tidegate_memory_allocated_bytes").await as usize
}

/// The result of a future, and the most memory that was allocated until it completed.
pub async fn peak_during<T>(gateway: &Gateway, future: impl Future<Output = T>) -> (T, usize) {
    let mut peak = 0;
    let sample = async {
        loop {
            peak = peak.max(allocated(gateway).await);
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
    };
    let result = tokio::select! {
        biased;
        result = future => result,
        never = sample => never,
    };
    (result, peak.max(allocated(gateway).await))
}

/// Adds a workload of `count` items twice, and fails if the second half takes more than `term` bytes an item, at its peak. The first half
/// has paid for everything that is needed once. Returns what `add` returned, so that the items are held as long as the caller wants.
pub async fn assert_term<T>(
    gateway: &Gateway,
    what: &str,
    count: usize,
    term: usize,
    mut add: impl AsyncFnMut(usize) -> T,
) -> [T; 2] {
    let mut add_and_settle = async |count| {
        let added = add(count).await;
        tokio::time::sleep(SETTLE_TIME).await;
        added
    };
    let idle = allocated(gateway).await;
    let first = add_and_settle(count).await;
    let before = allocated(gateway).await;
    let (second, peak) = peak_during(gateway, add_and_settle(count)).await;
    let (grown, bound) = (peak.saturating_sub(before), count * term);
    println!(
        "memory: {what}: {idle} bytes idle, {before} with {count}, {peak} at most with twice as many: {grown} more, bound {bound}"
    );
    assert!(
        grown <= bound + NOISE_BYTES,
        "{what}: {count} more take {grown} bytes, {} each; the term is {term} each",
        grown / count
    );
    [first, second]
}
