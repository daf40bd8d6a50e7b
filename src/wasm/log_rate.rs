//! How many lines a policy may write to the log, all decisions together: a bucket of lines that fills at a steady rate.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// A bucket holds the lines of so many seconds.
const BURST: f64 = 5.0;

/// The bucket.
pub struct LogRate {
    rate: f64,
    bucket: Mutex<Bucket>,
    /// Lines that went without a place and that nobody was told of yet. Read at the end of every decision, so without a lock.
    dropped: AtomicU64,
}

struct Bucket {
    lines: f64,
    filled: Instant,
}

impl LogRate {
    /// So many lines a second.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self::starting(rate, Instant::now())
    }

    fn starting(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        Self { rate, bucket: Mutex::new(Bucket { lines: rate * BURST, filled: now }), dropped: AtomicU64::new(0) }
    }

    /// Whether a line has a place now. What went without before is said in passing.
    pub fn admits(&self) -> bool {
        let Some(dropped) = self.take(Instant::now()) else { return false };
        if dropped > 0 {
            say(dropped);
        }
        true
    }

    /// Says what went without, where there is a place again to do so.
    pub fn settle(&self) {
        if self.dropped.load(Ordering::Relaxed) > 0 && self.has_place(Instant::now()) {
            say(self.dropped.swap(0, Ordering::Relaxed));
        }
    }

    /// Takes the place of a line, if there is one; says how many went without since the last that had one.
    fn take(&self, now: Instant) -> Option<u64> {
        if self.has_place(now) {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn has_place(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock();
        let filled = now.saturating_duration_since(bucket.filled).as_secs_f64() * self.rate;
        bucket.lines = (bucket.lines + filled).min(self.rate * BURST);
        bucket.filled = bucket.filled.max(now);
        let has_place = bucket.lines >= 1.0;
        if has_place {
            bucket.lines -= 1.0;
        }
        has_place
    }
}

fn say(dropped: u64) {
    tracing::warn!(target: "tidegate::policy", dropped, "the policy wrote more lines than policy.log-rate allows; these are lost");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_then_a_rate_and_what_was_dropped() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let log = LogRate::starting(10, start);
        let written = (0..200).filter(|_| log.take(at(0)).is_some()).count();
        assert_eq!(written, 50);
        assert!(!log.has_place(at(50)), "no place to say it yet");
        assert_eq!(log.take(at(100)), Some(150));
        assert_eq!(log.take(at(150)), None);
        assert_eq!(log.take(at(250)), Some(1));
        assert_eq!(log.take(at(350)), Some(0));
        let written = (0..200).filter(|_| log.take(at(3_600_000)).is_some()).count();
        assert_eq!(written, 50, "an hour of silence is no reason for a flood");
    }
}
