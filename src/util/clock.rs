//! The clocks: of this machine, and of another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The system time in milliseconds since the Unix epoch; 0 if the system clock is before it.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since the Unix epoch. A parameter where tests and recordings set the time.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub fn system_clock() -> Clock {
    Arc::new(now_ms)
}

/// The clock of another machine, whose time was read some time ago. Between two reads it advances by this machine's monotonic clock, so
/// that changes of this machine's wall clock do not move it.
#[derive(Debug)]
pub struct RemoteClock {
    origin: Instant,
    /// The other machine's time at `origin`, ms since the Unix epoch.
    at_origin: AtomicI64,
}

impl Default for RemoteClock {
    /// A clock that has the time of this machine until the other one's is read.
    fn default() -> Self {
        Self { origin: Instant::now(), at_origin: AtomicI64::new(to_signed(now_ms())) }
    }
}

impl RemoteClock {
    /// The present time, ms since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        let now = self.at_origin.load(Ordering::Relaxed).saturating_add(self.elapsed());
        u64::try_from(now).unwrap_or(0)
    }

    /// Sets the clock to a time that was just read. Returns how far that moves it, in ms.
    pub fn set(&self, now: u64) -> u64 {
        let at_origin = to_signed(now).saturating_sub(self.elapsed());
        self.at_origin.swap(at_origin, Ordering::Relaxed).abs_diff(at_origin)
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.origin.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

fn to_signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_clock_advances_from_the_time_that_was_read() {
        const DAY: u64 = 86_400_000;
        let clock = RemoteClock::default();
        for other in [now_ms() - DAY, now_ms() + DAY, 5] {
            clock.set(other);
            let first = clock.now_ms();
            assert!((other..other + DAY / 2).contains(&first), "{first} after {other}");
            while clock.now_ms() <= first {
                std::thread::yield_now();
            }
            let moved = clock.set(other + DAY);
            assert!((DAY / 2..=DAY).contains(&moved), "{moved}");
        }
        clock.set(u64::MAX);
        assert!(clock.now_ms() > now_ms());
    }
}
