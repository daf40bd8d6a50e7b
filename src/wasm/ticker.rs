//! The thread that ticks the epochs of engines, which interrupts policies so that their CPU time is checked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use wasmtime::{Engine, EngineWeak};

use crate::util::scheduling;

/// The resolution of CPU limits, and of how long a policy keeps a thread, after a call was slow: the next one may be.
const SHORT_INTERVAL: Duration = Duration::from_micros(250);
/// The same at other times. A tick costs more than a short call: a thread is woken, and a call that it interrupts reads the clock.
const LONG_INTERVAL: Duration = Duration::from_millis(5);
/// Short ticks after a slow call, a second.
const SHORT_TICKS: u32 = 4_000;

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

/// The thread, which ends after its engines are dropped. Not a task of a runtime, because tasks are late exactly when guests spin on the
/// runtime's threads.
pub(super) struct Ticker(Arc<Mutex<Engines>>);

#[derive(Default)]
struct Engines {
    engines: Vec<EngineWeak>,
    /// The ticker is gone, so no engine is added any more.
    is_final: bool,
}

impl Ticker {
    pub fn start() -> anyhow::Result<Self> {
        let ticker = Self(Arc::default());
        let engines = Arc::clone(&ticker.0);
        let tick = move || {
            scheduling::end_sleeps_in_time();
            let (mut last_slow, mut short_ticks) = (0, 0);
            while tick_all(&mut engines.lock()) {
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
        Ok(ticker)
    }

    /// Ticks for this engine from now on.
    pub fn add(&self, engine: &Engine) {
        self.0.lock().engines.push(engine.weak());
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.lock().is_final = true;
    }
}

/// Returns false once no engine is left and none will be added. A policy keeps its engine, so it may outlive the ticker.
fn tick_all(Engines { engines, is_final }: &mut Engines) -> bool {
    engines.retain(|engine| engine.upgrade().inspect(Engine::increment_epoch).is_some());
    !(*is_final && engines.is_empty())
}
