//! CPU time of a call into a policy, and whether the call has to leave the thread that serves connections.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::wasm::ticker::{count_slow_call, had_slow_call};

/// What a call may use of a thread that serves connections. Most calls take less than a tenth of it.
const MAX_FAST_TIME: Duration = Duration::from_millis(1);
/// The same after a call was slow: the first tick moves a call that has used this much, so clients that repeat a slow request delay others
/// by less. A call of a compiled policy still fits.
const MAX_FAST_TIME_AFTER_SLOW_CALL: Duration = Duration::from_micros(250);
/// At most this counts for the time on such a thread, where the call may have waited for the CPU. The rest of `policy.cpu-time` is for the
/// low-priority pool, which measures CPU time.
const MAX_COUNTED_FAST_TIME: Duration = Duration::from_millis(5);

/// Shared by an instance and the task that polls it.
#[derive(Debug, Default)]
pub struct CpuBudget {
    is_slow: AtomicBool,
    /// Time of the call so far, without the poll in progress.
    spent_ns: AtomicU64,
    /// When `spent_ns` was updated last; 0 while the call is not polled.
    counted_at_ns: AtomicU64,
    /// Whether this is by the thread's CPU clock, else by the monotonic clock.
    is_measured: AtomicBool,
}

impl CpuBudget {
    pub fn start_call(&self) {
        self.is_slow.store(false, Ordering::Relaxed);
        self.spent_ns.store(0, Ordering::Relaxed);
    }

    /// Whether the call has used its time on a thread that serves connections, or allocated much memory.
    pub fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Marks the call as slow; returns whether it was marked before.
    pub fn mark_slow(&self) -> bool {
        self.is_slow.swap(true, Ordering::Relaxed)
    }

    /// Notes that an epoch tick interrupted the call; returns the time of the call. A tick alone does not make it slow: most of its time may have
    /// been a wait for a look-up.
    pub fn tick(&self) -> Duration {
        let before = self.spent_ns.load(Ordering::Relaxed);
        if self.counted_at_ns.load(Ordering::Relaxed) == 0 {
            // Nothing polls through the budget. So that the call ends nevertheless, the tick counts.
            self.spent_ns.fetch_add(nanos(MAX_COUNTED_FAST_TIME), Ordering::Relaxed);
        }
        self.count();
        let spent = Duration::from_nanos(self.spent_ns.load(Ordering::Relaxed));
        if spent >= MAX_FAST_TIME && before < nanos(MAX_FAST_TIME) {
            count_slow_call();
        }
        if spent >= if had_slow_call() { MAX_FAST_TIME_AFTER_SLOW_CALL } else { MAX_FAST_TIME } {
            self.mark_slow();
        }
        spent
    }

    /// Polls a call on a thread that serves connections, and counts the time. Reading the CPU clock is a system call, so the time that the thread
    /// waits counts, too.
    pub fn poll_fast<T>(&self, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        self.poll_counted(false, poll)
    }

    /// Runs a call and counts the CPU time that the polling threads spend on it. After each tick others may have the CPU: low priority alone lets
    /// a thread that wakes up wait until the time slice of this one is over.
    pub async fn measure<F: Future>(&self, call: F) -> F::Output {
        let mut call = pin!(call);
        let measured = poll_fn(|context| {
            let polled = self.poll_counted(true, || call.as_mut().poll(context));
            if polled.is_pending() {
                std::thread::yield_now();
            }
            polled
        });
        measured.await
    }

    fn poll_counted<T>(&self, is_measured: bool, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        self.is_measured.store(is_measured, Ordering::Relaxed);
        self.counted_at_ns.store(self.now_ns(), Ordering::Relaxed);
        let polled = poll();
        self.count();
        self.counted_at_ns.store(0, Ordering::Relaxed);
        polled
    }

    fn count(&self) {
        let since = self.counted_at_ns.load(Ordering::Relaxed);
        if since == 0 {
            return;
        }
        let now = self.now_ns();
        let mut spent = self.spent_ns.load(Ordering::Relaxed).saturating_add(now.saturating_sub(since));
        if !self.is_measured.load(Ordering::Relaxed) {
            spent = spent.min(nanos(MAX_COUNTED_FAST_TIME));
        }
        self.spent_ns.store(spent, Ordering::Relaxed);
        self.counted_at_ns.store(now, Ordering::Relaxed);
    }

    fn now_ns(&self) -> u64 {
        let is_measured = self.is_measured.load(Ordering::Relaxed);
        let time = clock_gettime(if is_measured { ClockId::ThreadCPUTime } else { ClockId::Monotonic });
        u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or_default()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_is_slow_after_its_time_and_not_by_a_tick_alone() {
        let budget = CpuBudget::default();
        let poll = |time: Duration| {
            budget.poll_fast(|| {
                let start = std::time::Instant::now();
                while start.elapsed() < time {}
                Poll::Ready(budget.tick())
            })
        };
        let _ = poll(Duration::ZERO);
        std::thread::sleep(2 * MAX_FAST_TIME);
        let _ = poll(Duration::ZERO);
        assert!(Duration::from_nanos(budget.spent_ns.load(Ordering::Relaxed)) < MAX_FAST_TIME, "it was not polled");
        assert!(poll(2 * MAX_FAST_TIME).is_ready() && budget.is_slow());
        budget.start_call();
        assert!(!budget.is_slow());
        // Parts of it in several polls.
        while !budget.is_slow() {
            let _ = poll(MAX_FAST_TIME / 8);
        }
        assert_eq!(poll(2 * MAX_COUNTED_FAST_TIME), Poll::Ready(MAX_COUNTED_FAST_TIME));
    }
}
