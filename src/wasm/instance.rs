//! One instance of a policy: made afresh, asked once, thrown away.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use wasmtime::component::{self, ComponentExportIndex};
use wasmtime::{Engine, Store, Trap, UpdateDeadline};

use crate::policy::{Failure, Limits};
use crate::tokens::jwks::KeyFetch;
use crate::wasm::component::Policy;
use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::host;
use crate::wasm::host::answer::AnswerOptions;
use crate::wasm::host::tokens::AwaitKeys;
use crate::wasm::host::{EvaluationTerms, PolicyEnv, State, wit};
use crate::wasm::host_trace::HostTrace;

/// An instance that has not been asked yet.
pub struct Instance {
    store: Store<State>,
    instance: component::Instance,
    bindings: host::Policy,
}

/// What came of asking an instance: the answer or the cause that there is none, and what it said beside.
pub struct InstanceResult {
    /// The answer, not checked.
    pub answer: Result<Result<wit::Grant, wit::Rejection>, Failure>,
    /// What it said beside.
    pub said: AnswerOptions,
    /// Look-ups of the decision so far.
    pub lookups: u32,
    /// What the host answered, where that was written down.
    pub trace: Option<HostTrace>,
    /// It was stopped, for its decision needs keys that are being fetched.
    pub awaits: Option<KeyFetch>,
    /// What is left of the instance.
    pub used: SpentInstance,
}

/// An instance that was asked. Dropping it gives its memory back.
pub struct SpentInstance(Store<State>);

impl SpentInstance {
    /// Whether dropping it takes longer than a small decision does: what an instance has touched is taken away page by page.
    pub fn is_heavy(&self) -> bool {
        self.0.data().limiter.taken_in_all() > HEAVY
    }
}

/// Memory of an instance that is given back somewhere else. 4 MB of touched pages were seen to take 0.1 ms; what linkers give by
/// default, a stack of 1 MiB and some more, is below.
const HEAVY: usize = 2 << 20;

impl Instance {
    /// Makes one, by `deadline`, at a pace that whoever polls this sees.
    pub async fn make(
        policy: &Policy,
        env: Arc<PolicyEnv>,
        limits: &Limits,
        pace: Arc<CpuBudget>,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let state = State::new(env, limits.memory, pace, Arc::clone(policy.digest()));
        let mut store = store(policy.engine(), state, limits);
        match timeout_at(deadline, policy.instantiate(&mut store)).await {
            Ok(Ok((instance, bindings))) => Ok(Self { store, instance, bindings }),
            Ok(Err(error)) => Err(failure(&error, true, store.data().limiter.denied)),
            Err(_) => Err(Failure::Timeout),
        }
    }

    /// Lets it do what needs no request, by `deadline` and with the CPU time of a decision.
    pub async fn prepare(&mut self, preparation: &ComponentExportIndex, deadline: Instant) -> Result<(), Failure> {
        self.store.data().pace.begin();
        let call = async {
            let prepare = self.instance.get_typed_func::<(), ()>(&mut self.store, preparation)?;
            prepare.call_async(&mut self.store, ()).await
        };
        let prepared = timeout_at(deadline, call).await;
        let state = self.store.data_mut();
        state.flush();
        prepared.map_err(|_| Failure::Timeout)?.map_err(|error| failure(&error, false, state.limiter.denied))
    }

    /// Its pace, at the beginning of its life on the request's path.
    pub fn pace(&self) -> &Arc<CpuBudget> {
        let State { pace, limiter, .. } = self.store.data();
        pace.begin();
        if limiter.is_large() {
            pace.slow_down();
        }
        pace
    }

    /// Asks it.
    pub async fn ask(
        mut self,
        request_id: String,
        request: &wit::Request,
        channels: &[String],
        terms: EvaluationTerms,
    ) -> InstanceResult {
        self.store.data_mut().begin(request_id, &terms);
        self.store.set_epoch_deadline(1);
        let authorizer = self.bindings.tidegate_policy_authorizer();
        let answer = timeout_at(terms.deadline, authorizer.call_authorize(&mut self.store, request, channels)).await;
        let state = self.store.data_mut();
        state.flush();
        let mut awaits = None;
        let answer = match answer {
            _ if state.exceeded().is_some() => Err(Failure::Limit(state.exceeded().unwrap_or_default())),
            Ok(answer) => answer.map_err(|error| {
                awaits = error.downcast_ref::<AwaitKeys>().map(|AwaitKeys(wait)| wait.clone());
                failure(&error, false, state.limiter.denied)
            }),
            Err(_) => Err(Failure::Timeout),
        };
        let mut trace = state.trace.take();
        if let Some(trace) = &mut trace {
            trace.network = state.has_sent();
        }
        let (said, lookups) = (std::mem::take(&mut state.said), state.lookups);
        InstanceResult { answer, said, lookups, trace, awaits, used: SpentInstance(self.store) }
    }
}

fn store(engine: &Engine, state: State, limits: &Limits) -> Store<State> {
    let mut store = Store::new(engine, state);
    store.limiter_async(|state| &mut state.limiter);
    // What one call may bring over from the guest: an answer, and the arguments of a host call.
    store.set_hostcall_fuel(limits.answer.saturating_mul(2).max(64 << 10));
    store.set_epoch_deadline(1);
    let most: Duration = limits.cpu;
    store.epoch_deadline_callback(move |context| {
        let spent = context.data().pace.tick();
        if spent <= most { Ok(UpdateDeadline::Yield(1)) } else { Err(Trap::Interrupt.into()) }
    });
    store
}

/// The cause of an error, by its type and never by its words.
pub(crate) fn failure(error: &wasmtime::Error, instantiating: bool, memory_denied: bool) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Cpu,
        _ if memory_denied => Failure::Memory,
        Some(trap) => Failure::Trap(trap.to_string()),
        None if instantiating => Failure::Host(format!("{error:#}")),
        // A host function's own error, or a value that does not fit the interface.
        None => Failure::Trap(error.root_cause().to_string()),
    }
}
