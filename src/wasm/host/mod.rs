//! What a policy may import: the interfaces of `wit/policy.wit`, and WASI with nothing behind it. A file an interface.

pub(crate) mod answer;
pub(crate) mod body_drain;
pub(crate) mod context;
pub(crate) mod http;
pub(crate) mod lookup;
pub(crate) mod settings;
pub(crate) mod tokens;
pub(crate) mod wasi;

use crate::wasm::host::tokens::KeyWait;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker};

use crate::egress;
use crate::egress::Egress;
use crate::policy::settings::Settings;
use crate::policy::{Limits, Request};
use crate::store::KeyLookup;
use crate::tokens::Tokens;
use crate::util::clock::now_ms;
use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::host_trace::{HostTrace, RecordedCalls};
use crate::wasm::log_rate::LogRate;
use crate::wasm::memory_limiter::MemoryLimiter;

wasmtime::component::bindgen!({
    path: "wit",
    world: "policy",
    imports: {
        "tidegate:policy/lookup.get": async,
        "tidegate:policy/lookup.hash-get": async,
        "tidegate:policy/lookup.set-contains": async,
        "tidegate:policy/tokens.verify": async | trappable,
        "tidegate:policy/tokens.verify-with": async | trappable,
    },
    exports: { default: async },
});

pub use crate::wasm::host::tidegate::policy::types as wit;

/// The policy's clock: ms since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What belongs to a policy and is the same for all its decisions.
#[derive(Clone)]
pub struct PolicyEnv {
    /// Where look-ups go.
    pub store: Arc<dyn KeyLookup>,
    /// Keys that may be looked up begin with one of these.
    pub prefixes: Vec<String>,
    /// The operator's settings.
    pub settings: Settings,
    /// Whose tokens it may have checked.
    pub tokens: Tokens,
    /// Where it may send requests.
    pub egress: Arc<Egress>,
    /// Look-ups of one decision.
    pub max_lookups: u32,
    /// Requests of one decision.
    pub max_requests: u32,
    /// What it may write to the log.
    pub log: Arc<LogRate>,
    /// One look-up.
    pub lookup_timeout: Duration,
    /// What the policy takes for the time.
    pub clock: Clock,
    /// What the host answered before, in place of the store, of keys and of the network.
    pub recorded: Option<Arc<RecordedCalls>>,
}

impl PolicyEnv {
    /// A store and nothing else: no look-ups, no settings, no tokens, no requests, and the system's time.
    #[must_use]
    pub fn new(store: Arc<dyn KeyLookup>, limits: &Limits) -> Self {
        let bounds = egress::EgressLimits { timeout: limits.timeout, response: 0, concurrency: 1 };
        Self {
            store,
            prefixes: Vec::new(),
            settings: Settings::default(),
            tokens: Tokens::default(),
            egress: Arc::new(Egress::new(Vec::new(), bounds)),
            max_lookups: limits.lookups,
            max_requests: limits.requests,
            log: Arc::new(LogRate::new(limits.log_rate)),
            lookup_timeout: limits.lookup_timeout,
            clock: Arc::new(now_ms),
            recorded: None,
        }
    }

    /// The same where nothing is asked of the world again: its answers and its time are those of before, and nothing goes out.
    /// What is written to the log has a bound of its own.
    #[must_use]
    pub fn replaying(&self, recorded: &Arc<RecordedCalls>, log: &Arc<LogRate>) -> Self {
        let now = recorded.now();
        let (clock, log): (Clock, _) = (Arc::new(move || now), Arc::clone(log));
        Self { clock, log, recorded: Some(Arc::clone(recorded)), ..self.clone() }
    }
}

/// All that a decision depends on beside the component.
pub struct PolicyContext {
    /// What a policy may see, ask and reach.
    pub env: Arc<PolicyEnv>,
    /// The bounds of one decision. Those of all together (`concurrency`, `queue_timeout`) are the gate's, from its beginning.
    pub limits: Limits,
}

/// On what terms an instance is asked.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationTerms {
    /// It has to answer by then.
    pub deadline: Instant,
    /// What it may do when keys are missing.
    pub patience: KeyWait,
    /// Look-ups that the decision has had before it was stopped.
    pub lookups: u32,
    /// Whether what the host answers is written down.
    pub traced: bool,
}

/// The state of one instance, and so of one decision.
pub struct State {
    pub env: Arc<PolicyEnv>,
    pub limiter: MemoryLimiter,
    /// What CPU time the call of now has had.
    pub pace: Arc<CpuBudget>,
    /// Empty while the instance only prepares.
    pub request_id: String,
    pub digest: Arc<str>,
    pub said: answer::AnswerOptions,
    /// What it may do when keys are missing; none while it only prepares.
    patience: Option<KeyWait>,
    /// Look-ups of this decision.
    pub lookups: u32,
    /// What the host answers, where that is written down.
    pub trace: Option<HostTrace>,
    log: context::Log,
    wasi: Option<Box<wasi::Wasi>>,
}

impl State {
    /// The state of an instance that has not been asked yet, with this much memory.
    pub fn new(env: Arc<PolicyEnv>, memory: usize, pace: Arc<CpuBudget>, digest: Arc<str>) -> Self {
        Self {
            env,
            limiter: MemoryLimiter::new(memory, Arc::clone(&pace)),
            pace,
            request_id: String::new(),
            digest,
            said: answer::AnswerOptions::default(),
            patience: None,
            lookups: 0,
            trace: None,
            log: context::Log::default(),
            wasi: None,
        }
    }

    /// Begins a decision.
    pub fn begin(&mut self, request_id: String, terms: &EvaluationTerms) {
        if let Some(wasi) = &mut self.wasi {
            wasi.http.begin(&request_id);
        }
        self.patience = Some(terms.patience);
        self.lookups = terms.lookups;
        self.trace = terms.traced.then(|| HostTrace::new((self.env.clock)()));
        self.request_id = request_id;
        self.limiter.begin();
        self.said = answer::AnswerOptions::default();
        self.log = context::Log::default();
    }

    /// The limit that the decision went beyond, if it did. Whatever it answers then is no answer.
    pub fn exceeded(&self) -> Option<&'static str> {
        if self.lookups > self.env.max_lookups {
            return Some("policy.lookup.max-lookups");
        }
        let sent = self.wasi.as_ref().map_or(0, |wasi| wasi.http.sent());
        (self.has_request() && sent > self.env.max_requests).then_some("policy.egress.max-requests")
    }

    /// Whether a request went out.
    pub fn has_sent(&self) -> bool {
        self.wasi.as_ref().is_some_and(|wasi| wasi.http.sent() > 0)
    }

    /// Whether there is a request by now; an instance that only prepares reaches nothing outside.
    fn has_request(&self) -> bool {
        !self.request_id.is_empty()
    }
}

impl wit::Host for State {}

/// A request as a policy is told of it.
pub(crate) fn to_wit(request: &Request) -> wit::Request {
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| wit::Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() });
    wit::Request {
        headers: headers.collect(),
        method: request.method.clone(),
        scheme: request.scheme.clone(),
        authority: request.authority.clone(),
        path_with_query: request.path_with_query.clone(),
        client_address: request.client_address.clone(),
    }
}

/// Links everything that a policy may import.
pub fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    settings::add_to_linker(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    Policy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}
