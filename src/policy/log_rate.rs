//! How many lines a policy may write to the log, all decisions together: a bucket of lines that fills at a steady rate.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// A bucket holds the lines of so many seconds.
const BURST: f64 = 5.0;

/// The bucket.
pub struct LogRate {
    rate: f64,
    state: Mutex<Bucket>,
}

struct Bucket {
    lines: f64,
    filled: Instant,
    dropped: u64,
}

impl LogRate {
    /// So many lines a second.
    #[must_use]
    pub fn new(rate: u32) -> Self {
        Self::starting(rate, Instant::now())
    }

    fn starting(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        Self { rate, state: Mutex::new(Bucket { lines: rate * BURST, filled: now, dropped: 0 }) }
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
        if let Some(dropped) = self.dropped(Instant::now()) {
            say(dropped);
        }
    }

    /// Takes the place of a line, if there is one; says how many went without since the last that had one.
    fn take(&self, now: Instant) -> Option<u64> {
        self.spend(now, |bucket| {
            if bucket.lines < 1.0 {
                bucket.dropped += 1;
                return None;
            }
            bucket.lines -= 1.0;
            Some(std::mem::take(&mut bucket.dropped))
        })
    }

    /// How many went without, where there is a place again to say so.
    fn dropped(&self, now: Instant) -> Option<u64> {
        self.spend(now, |bucket| {
            (bucket.dropped > 0 && bucket.lines >= 1.0).then(|| {
                bucket.lines -= 1.0;
                std::mem::take(&mut bucket.dropped)
            })
        })
    }

    fn spend<T>(&self, now: Instant, spend: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut bucket = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = now.saturating_duration_since(bucket.filled).as_secs_f64() * self.rate;
        bucket.lines = (bucket.lines + filled).min(self.rate * BURST);
        bucket.filled = bucket.filled.max(now);
        spend(&mut bucket)
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
        assert_eq!(log.dropped(at(50)), None, "no place to say it yet");
        assert_eq!(log.take(at(100)), Some(150));
        assert_eq!(log.take(at(150)), None);
        assert_eq!(log.dropped(at(250)), Some(1));
        assert_eq!(log.dropped(at(350)), None);
        assert_eq!(log.take(at(350)), Some(0));
        let written = (0..200).filter(|_| log.take(at(3_600_000)).is_some()).count();
        assert_eq!(written, 50, "an hour of silence is no reason for a flood");
    }
}
