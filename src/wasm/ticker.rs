//! The thread that ticks the epochs of an engine, which interrupts policies so that their CPU time is checked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use wasmtime::Engine;

/// The resolution of CPU limits, and of how long a policy keeps a thread.
const BUSY_INTERVAL: Duration = Duration::from_millis(1);
/// The same while no policy has run for a while: an idle gateway should wake its machine rarely.
const IDLE_INTERVAL: Duration = Duration::from_millis(5);
/// Ticks without a call until the engine counts as idle.
const IDLE_TICKS: u32 = 200;

/// Calls that have been started and that have ended, of all engines of the process.
static STARTED: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// A call in progress, until it is dropped.
pub(super) struct RunningCall(());

impl RunningCall {
    pub fn start() -> Self {
        STARTED.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts the thread, which ends after the engine is dropped. Not a task of a runtime, because tasks are late exactly when guests spin on the
/// runtime's threads.
pub(super) fn start(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        let (mut last_started, mut idle_ticks) = (0, IDLE_TICKS);
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            let (ended, started) = (ENDED.load(Ordering::Relaxed), STARTED.load(Ordering::Relaxed));
            let is_active = started != ended || started != last_started;
            idle_ticks = if is_active { 0 } else { idle_ticks.saturating_add(1) };
            last_started = started;
            std::thread::sleep(if idle_ticks < IDLE_TICKS { BUSY_INTERVAL } else { IDLE_INTERVAL });
        }
    };
    std::thread::Builder::new()
        .name("policy-ticker".into())
        .spawn(tick)
        .context("cannot start the thread that ticks for policies")?;
    Ok(())
}
