//! The thread that ticks the epochs of an engine, which interrupts policies so that their CPU time is checked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use wasmtime::Engine;

/// The resolution of CPU limits, and of how long a policy keeps a thread, after a call was slow: the next one may be.
const SHORT_INTERVAL: Duration = Duration::from_millis(1);
/// The same at other times. A tick costs more than a short call: a thread is woken, and a call that it interrupts reads the clock.
const LONG_INTERVAL: Duration = Duration::from_millis(5);
/// Short ticks after a slow call, a second.
const SHORT_TICKS: u32 = 1_000;

/// Calls that were slow, of all engines of the process.
static SLOW_CALLS: AtomicU64 = AtomicU64::new(0);
/// Whether the ticks are short, in any engine.
static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// Counts a call that has used its time on a thread that serves connections.
pub(super) fn count_slow_call() {
    SLOW_CALLS.fetch_add(1, Ordering::Relaxed);
}

/// Whether a call of the last second was slow.
pub(super) fn had_slow_call() -> bool {
    IS_SHORT.load(Ordering::Relaxed)
}

/// Starts the thread, which ends after the engine is dropped. Not a task of a runtime, because tasks are late exactly when guests spin on the
/// runtime's threads.
pub(super) fn start(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        let (mut last_slow, mut short_ticks) = (0, 0);
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            let slow = SLOW_CALLS.load(Ordering::Relaxed);
            short_ticks = if slow == last_slow { u32::saturating_sub(short_ticks, 1) } else { SHORT_TICKS };
            last_slow = slow;
            IS_SHORT.store(short_ticks > 0, Ordering::Relaxed);
            std::thread::sleep(if short_ticks > 0 { SHORT_INTERVAL } else { LONG_INTERVAL });
        }
    };
    std::thread::Builder::new()
        .name("policy-ticker".into())
        .spawn(tick)
        .context("cannot start the thread that ticks for policies")?;
    Ok(())
}
