//! Log lines that clients or the store can cause in any number.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Writes at most one log line in an interval.
pub struct RareLog {
    interval: Duration,
    /// When a line was written last, and how many were skipped since then.
    state: Mutex<(Option<Instant>, u64)>,
}

impl RareLog {
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// `line` gets the number of lines that were skipped before it.
    pub fn write(&self, line: impl FnOnce(u64)) {
        let mut state = self.state.lock();
        let (last, skipped) = &mut *state;
        if last.is_some_and(|last| last.elapsed() < self.interval) {
            *skipped += 1;
            return;
        }
        let skipped = std::mem::take(skipped);
        *last = Some(Instant::now());
        drop(state);
        line(skipped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_within_the_interval_are_skipped_and_counted() {
        let log = RareLog::new(Duration::from_secs(10));
        let mut written = Vec::new();
        for seconds in [0, 1, 8, 1, 9, 1] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            log.write(|skipped| written.push(skipped));
        }
        assert_eq!(written, [0, 2, 1]);
    }
}
