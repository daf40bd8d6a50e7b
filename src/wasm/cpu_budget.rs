//! How fast a call goes: what CPU time it has had, and whether it is one that had better leave the thread that serves.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::wasm::engine::TICK;

/// Shared by an instance and whoever polls it.
#[derive(Debug, Default)]
pub struct CpuBudget {
    is_slow: AtomicBool,
    /// CPU time of the call so far, in ns.
    spent: AtomicU64,
    /// What the thread's clock said when it was last counted, in ns; 0 where nobody counts.
    since: AtomicU64,
}

impl CpuBudget {
    /// Begins a call.
    pub fn begin(&self) {
        self.is_slow.store(false, Ordering::Relaxed);
        self.spent.store(0, Ordering::Relaxed);
    }

    /// Whether the call ran for a whole tick, or took much memory.
    pub fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Says that the call is slow; whether it was before.
    pub fn slow_down(&self) -> bool {
        self.is_slow.swap(true, Ordering::Relaxed)
    }

    /// A tick came while the call ran; the CPU time that it has had by now. Where nobody counts that is a tick: on a busy machine
    /// it was less, but the call goes on where it is counted.
    pub fn tick(&self) -> Duration {
        self.slow_down();
        match self.since.load(Ordering::Relaxed) {
            0 => {
                self.spent.fetch_add(u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            }
            since => self.count(since),
        }
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }

    /// Polls a call and counts what that takes of this thread.
    pub fn poll<F: Future>(&self, call: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.since.store(thread_time(), Ordering::Relaxed);
        let polled = call.poll(context);
        self.count(self.since.load(Ordering::Relaxed));
        self.since.store(0, Ordering::Relaxed);
        polled
    }

    fn count(&self, since: u64) {
        let now = thread_time();
        self.spent.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }
}

/// CPU time of this thread, in ns.
fn thread_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or_default()
}
