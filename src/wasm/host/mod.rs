//! The host functions that a policy may import: the interfaces of `wit/policy.wit`, and of WASI.

pub(crate) mod answer;
pub(crate) mod body_drain;
pub(crate) mod context;
pub(crate) mod http;
pub(crate) mod lookup;
pub(crate) mod objects;
pub(crate) mod tokens;
pub(crate) mod wasi;

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{HeaderName, HeaderValue};
use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker};
use wasmtime_wasi_config::WasiConfig;

use crate::egress::{Egress, EgressLimits};
use crate::policy::settings::Settings;
use crate::policy::{Limits, Request};
use crate::store::KeyLookup;
use crate::tokens::Tokens;
use crate::util::clock::{Clock, system_clock};
use crate::wasm::abi::Abi;
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
    // The request is not copied for the call.
    ownership: Borrowing { duplicate_if_necessary: true },
});

pub use crate::wasm::host::tidegate::policy::types as wit;

/// The error for host calls of `prepare`, which runs before the request: an instance that prepares reaches nothing outside.
const NO_REQUEST: &str = "there is no request yet";

/// The policy environment: what the host functions give access to, the same for all decisions of a policy.
#[derive(Clone)]
pub struct PolicyEnv {
    pub store: Arc<dyn KeyLookup>,
    /// The policy may look up keys with one of these prefixes.
    pub lookup_prefixes: Vec<String>,
    pub settings: Settings,
    pub tokens: Tokens,
    pub egress: Arc<Egress>,
    /// Per decision.
    pub max_lookups: u32,
    /// Outbound requests per decision.
    pub max_requests: u32,
    pub log_rate: Arc<LogRate>,
    /// Of one look-up.
    pub lookup_timeout: Duration,
    pub clock: Clock,
    /// In a replay, the recording that answers host calls instead of the store, the token keys and the network.
    pub recorded_calls: Option<Arc<RecordedCalls>>,
}

impl PolicyEnv {
    /// Allows nothing: no look-ups, no settings, no tokens and no requests. The time is the system's.
    pub fn new(store: Arc<dyn KeyLookup>, limits: &Limits) -> Self {
        let egress_limits = EgressLimits { timeout: limits.timeout, max_response_size: 0, concurrency: 1 };
        Self {
            store,
            lookup_prefixes: Vec::new(),
            settings: Settings::default(),
            tokens: Tokens::default(),
            egress: Arc::new(Egress::new(Vec::new(), egress_limits)),
            max_lookups: limits.max_lookups,
            max_requests: limits.max_requests,
            log_rate: Arc::new(LogRate::new(limits.log_rate)),
            lookup_timeout: limits.lookup_timeout,
            clock: system_clock(),
            recorded_calls: None,
        }
    }

    /// An environment that replays a recording: its time and its answers are the recorded ones, and requests are blocked. `log_rate` is
    /// separate from that of the active policy.
    pub fn replaying(&self, recorded: &Arc<RecordedCalls>, log_rate: &Arc<LogRate>) -> Self {
        let now = recorded.now;
        let (clock, log_rate): (Clock, _) = (Arc::new(move || now), Arc::clone(log_rate));
        Self { clock, log_rate, recorded_calls: Some(Arc::clone(recorded)), ..self.clone() }
    }
}

/// What a decision depends on in addition to the component and the request.
pub struct PolicyContext {
    pub env: Arc<PolicyEnv>,
    /// The limits of one decision. Those of all decisions together (`concurrency`, `queue_timeout`) belong to the authorizer and do not
    /// change with the policy.
    pub limits: Limits,
}

/// The parameters of one evaluation on an instance.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationParams {
    pub deadline: Instant,
    /// The decision may wait for missing keys until then, which leaves some of its time to evaluate.
    pub keys_until: Instant,
    /// Whether the instance may be stopped while keys are missing, and the decision start again on a new one.
    pub may_restart: bool,
    /// Look-ups that the decision made on an earlier instance.
    pub lookups: u32,
    /// Whether to record the host calls.
    pub traced: bool,
}

/// The host's state of one instance.
pub struct State {
    pub env: Arc<PolicyEnv>,
    pub limiter: MemoryLimiter,
    pub cpu_budget: Arc<CpuBudget>,
    pub max_cpu_time: Duration,
    /// Bytes that a function of the instance may return.
    pub max_answer: usize,
    /// The policy's, for log lines.
    pub digest: Arc<str>,
    pub decision: DecisionState,
    wasi: Option<Box<wasi::Wasi>>,
}

/// The host's state of one decision. Before the decision starts, `prepare` of the policy may log and nothing else.
#[derive(Default)]
pub struct DecisionState {
    /// Empty before the decision starts.
    request_id: String,
    /// `None` before the decision starts.
    params: Option<EvaluationParams>,
    pub options: answer::AnswerOptions,
    pub lookups: u32,
    /// `None` if the host calls are not recorded.
    pub trace: Option<HostTrace>,
    /// Bytes that were written to the log, dropped lines included.
    logged_bytes: usize,
}

impl State {
    /// The state before a decision. It allows no answer yet.
    pub fn new(env: Arc<PolicyEnv>, limits: &Limits, cpu_budget: Arc<CpuBudget>, digest: Arc<str>) -> Self {
        Self {
            env,
            limiter: MemoryLimiter::new(limits.max_memory, limits.pool_resident, Arc::clone(&cpu_budget)),
            cpu_budget,
            max_cpu_time: limits.cpu_time,
            max_answer: 0,
            digest,
            decision: DecisionState::default(),
            wasi: None,
        }
    }

    pub fn start_decision(&mut self, request_id: String, params: EvaluationParams) {
        if let Some(wasi) = &mut self.wasi {
            wasi.requests.request_id.clone_from(&request_id);
            wasi.requests.sent = 0;
        }
        self.limiter.start_call();
        self.decision = DecisionState {
            request_id,
            params: Some(params),
            lookups: params.lookups,
            trace: params.traced.then(|| HostTrace::new((self.env.clock)())),
            ..DecisionState::default()
        };
    }

    /// The limit that the decision exceeded, if any. Its answer is then discarded.
    pub fn exceeded_limit(&self) -> Option<&'static str> {
        if self.decision.lookups > self.env.max_lookups {
            return Some("policy.lookup.max-lookups");
        }
        (self.has_request() && self.sent_requests() > self.env.max_requests).then_some("policy.egress.max-requests")
    }

    /// Requests that the policy tried to send in this decision.
    pub fn sent_requests(&self) -> u32 {
        self.wasi.as_ref().map_or(0, |wasi| wasi.requests.sent)
    }

    /// Whether the decision has started.
    fn has_request(&self) -> bool {
        self.decision.params.is_some()
    }
}

impl wit::Host for State {}

/// What the interface's representation of a request borrows.
pub(crate) struct RequestParts<'a> {
    request: &'a Request,
    headers: Vec<wit::HeaderParam<'a>>,
    client_address: String,
}

impl<'a> RequestParts<'a> {
    pub fn new(request: &'a Request) -> Self {
        let header = |(name, value): (&'a HeaderName, &'a HeaderValue)| wit::HeaderParam {
            name: name.as_str(),
            value: value.as_bytes(),
        };
        let headers = request.headers.iter().map(header).collect();
        Self { request, headers, client_address: request.client_address_text() }
    }

    /// The request as the interface represents it.
    pub fn to_wit(&self) -> wit::Request<'_> {
        wit::Request {
            headers: &self.headers,
            method: &self.request.method,
            scheme: &self.request.scheme,
            authority: &self.request.authority,
            path_with_query: &self.request.path_with_query,
            client_address: &self.client_address,
        }
    }
}

/// A linker with everything that a policy of this ABI may import.
pub fn linker(engine: &wasmtime::Engine, abi: Abi) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut State| {
        WasiConfig::from(state.env.settings.variables())
    })?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if abi == Abi::Async {
        // The functions of WASI 0.3 may wait, which needs tasks.
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Policy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    Ok(linker)
}
