//! What a policy may import: the interfaces of `wit/policy.wit`, and WASI with nothing behind it. A file an interface.

mod answer;
mod context;
mod http;
mod lookup;
mod settings;
mod tokens;
mod wasi;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};

use super::Settings;
use super::limits::MemoryLimiter;
use crate::store::Store;

wasmtime::component::bindgen!({
    path: "wit",
    world: "policy",
    imports: {
        "tidegate:policy/lookup.get": async,
        "tidegate:policy/lookup.hash-get": async,
        "tidegate:policy/lookup.set-contains": async,
    },
    exports: { default: async },
});

pub use self::tidegate::policy::types as wit;

/// The policy's clock: ms since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What belongs to a policy and is the same for all its decisions.
pub struct Surroundings {
    /// Where look-ups go.
    pub store: Arc<dyn Store>,
    /// Keys that may be looked up begin with one of these.
    pub prefixes: Vec<String>,
    /// The operator's settings.
    pub settings: Settings,
    /// One look-up.
    pub lookup_timeout: Duration,
    /// What the policy takes for the time.
    pub clock: Clock,
}

/// The state of one instance, and so of one decision.
pub struct State {
    pub surroundings: Arc<Surroundings>,
    pub limiter: MemoryLimiter,
    pub ticks_left: u32,
    /// Set when the policy has run for a whole tick.
    pub is_slow: Arc<AtomicBool>,
    /// Empty while the instance only prepares.
    pub request_id: String,
    pub digest: Arc<str>,
    pub said: answer::Said,
    log: context::Log,
    wasi: Option<Box<wasi::Wasi>>,
}

impl State {
    /// The state of an instance that has not been asked yet, with this much memory and CPU time for its start.
    pub fn new(
        surroundings: Arc<Surroundings>,
        memory: usize,
        ticks: u32,
        is_slow: Arc<AtomicBool>,
        digest: Arc<str>,
    ) -> Self {
        Self {
            surroundings,
            limiter: MemoryLimiter::new(memory, Arc::clone(&is_slow)),
            ticks_left: ticks,
            is_slow,
            request_id: String::new(),
            digest,
            said: answer::Said::default(),
            log: context::Log::default(),
            wasi: None,
        }
    }

    /// Begins a decision, which has so much CPU time of its own.
    pub fn begin(&mut self, request_id: String, ticks: u32) {
        self.request_id = request_id;
        self.ticks_left = ticks;
        self.limiter.begin();
        self.said = answer::Said::default();
        self.log = context::Log::default();
    }

    /// Whether there is a request by now; an instance that only prepares reaches nothing outside.
    fn has_request(&self) -> bool {
        !self.request_id.is_empty()
    }
}

impl wit::Host for State {}

/// Links everything that a policy may import.
pub fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    settings::add_to_linker(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    Policy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}
