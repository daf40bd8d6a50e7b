//! CPU time of a call into a policy, and whether the call has to leave the thread that serves connections.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::wasm::engine::EPOCH_INTERVAL;

/// Shared by an instance and the task that polls it.
#[derive(Debug, Default)]
pub struct CpuBudget {
    is_slow: AtomicBool,
    /// CPU time of the call so far.
    spent_ns: AtomicU64,
    /// The thread's CPU clock when `spent_ns` was updated last; 0 outside of [`CpuBudget::measure`].
    counted_at_ns: AtomicU64,
}

impl CpuBudget {
    pub fn start_call(&self) {
        self.is_slow.store(false, Ordering::Relaxed);
        self.spent_ns.store(0, Ordering::Relaxed);
    }

    /// Whether the call ran during an epoch tick, or allocated much memory.
    pub fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// Marks the call as slow; returns whether it was marked before.
    pub fn mark_slow(&self) -> bool {
        self.is_slow.swap(true, Ordering::Relaxed)
    }

    /// Notes that an epoch tick interrupted the call; returns the CPU time of the call. Outside of [`Self::measure`] the tick counts as a
    /// whole interval: on a busy machine the call had less, but it continues in the low-priority pool, which measures.
    pub fn tick(&self) -> Duration {
        self.mark_slow();
        match self.counted_at_ns.load(Ordering::Relaxed) {
            0 => {
                let interval = u64::try_from(EPOCH_INTERVAL.as_nanos()).unwrap_or(u64::MAX);
                self.spent_ns.fetch_add(interval, Ordering::Relaxed);
            }
            since => self.count_since(since),
        }
        Duration::from_nanos(self.spent_ns.load(Ordering::Relaxed))
    }

    /// Runs a call and counts the CPU time that the polling threads spend on it.
    pub async fn measure<F: Future>(&self, call: F) -> F::Output {
        let mut call = pin!(call);
        let measured = poll_fn(|context| {
            self.counted_at_ns.store(thread_cpu_ns(), Ordering::Relaxed);
            let polled = call.as_mut().poll(context);
            self.count_since(self.counted_at_ns.load(Ordering::Relaxed));
            self.counted_at_ns.store(0, Ordering::Relaxed);
            polled
        });
        measured.await
    }

    fn count_since(&self, since_ns: u64) {
        let now = thread_cpu_ns();
        self.spent_ns.fetch_add(now.saturating_sub(since_ns), Ordering::Relaxed);
        self.counted_at_ns.store(now, Ordering::Relaxed);
    }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or_default()
}
