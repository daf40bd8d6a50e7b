//! The rate of log lines of a policy, over all its decisions: a token bucket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

/// The bucket holds the lines of this many seconds.
const BURST_SECONDS: f64 = 5.0;

pub struct LogRate {
    lines_per_second: f64,
    bucket: Mutex<Bucket>,
    /// Lines that were dropped and not reported yet. Read at the end of every decision, so without the lock.
    dropped: AtomicU64,
}

struct Bucket {
    lines: f64,
    filled_at: Instant,
}

impl LogRate {
    pub fn new(lines_per_second: u32) -> Self {
        let lines_per_second = f64::from(lines_per_second);
        let bucket = Bucket { lines: lines_per_second * BURST_SECONDS, filled_at: Instant::now() };
        Self { lines_per_second, bucket: Mutex::new(bucket), dropped: AtomicU64::new(0) }
    }

    /// Whether a line may be written now. Reports the lines that were dropped before it.
    pub fn allows(&self) -> bool {
        let Some(dropped) = self.acquire(Instant::now()) else { return false };
        if dropped > 0 {
            report(dropped);
        }
        true
    }

    /// Reports dropped lines as soon as a line may be written again.
    pub fn report_dropped(&self) {
        if self.dropped.load(Ordering::Relaxed) > 0 && self.take_token(Instant::now()) {
            report(self.dropped.swap(0, Ordering::Relaxed));
        }
    }

    /// Takes the token of a line, if there is one; returns how many lines were dropped since the last report.
    fn acquire(&self, now: Instant) -> Option<u64> {
        if self.take_token(now) {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn take_token(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock();
        let refill = now.saturating_duration_since(bucket.filled_at).as_secs_f64() * self.lines_per_second;
        bucket.lines = (bucket.lines + refill).min(self.lines_per_second * BURST_SECONDS);
        bucket.filled_at = bucket.filled_at.max(now);
        let has_token = bucket.lines >= 1.0;
        if has_token {
            bucket.lines -= 1.0;
        }
        has_token
    }
}

fn report(dropped: u64) {
    tracing::warn!(target: "tidegate::policy", dropped, "dropped log lines of the policy beyond policy.log-rate");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_beyond_burst_and_rate_are_dropped_and_counted() {
        let log = LogRate::new(10);
        let start = log.bucket.lock().filled_at;
        let at = |ms| start + Duration::from_millis(ms);
        let written = (0..200).filter(|_| log.acquire(at(0)).is_some()).count();
        assert_eq!(written, 50);
        assert!(!log.take_token(at(50)), "no token for the report yet");
        assert_eq!(log.acquire(at(100)), Some(150));
        assert_eq!(log.acquire(at(150)), None);
        assert_eq!(log.acquire(at(250)), Some(1));
        assert_eq!(log.acquire(at(350)), Some(0));
        let written = (0..200).filter(|_| log.acquire(at(3_600_000)).is_some()).count();
        assert_eq!(written, 50, "an idle hour does not enlarge the burst");
    }
}
