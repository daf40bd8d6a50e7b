//! An instance of a policy: created for one decision, called once, then dropped.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use wasmtime::component;
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::policy::{Failure, Limits, Request};
use crate::tokens::jwks::KeyFetch;
use crate::wasm::component::Policy;
use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::host::objects::{MAX_COMPONENT_HANDLES, MAX_TASK_ENTRIES, check_transition};
use crate::wasm::host::tidegate::policy::context::Level;
use crate::wasm::host::tokens::KeysPending;
use crate::wasm::host::{self, DecisionState, EvaluationParams, PolicyEnv, RequestParts, State, wit};
use crate::wasm::low_priority_pool::Teardown;

/// An instance that has not been called yet.
pub struct Instance {
    store: Store<State>,
    instance: component::Instance,
    bindings: host::Policy,
}

pub struct InstanceResult {
    /// The answer, not validated yet, or why there is none.
    pub answer: Result<Result<wit::Grant, wit::Rejection>, Failure>,
    pub decision: DecisionState,
    /// The call was stopped because it needs keys that are being fetched.
    pub pending_keys: Option<KeyFetch>,
    pub spent: SpentInstance,
}

/// An instance that was called. Dropping it frees its memory.
pub struct SpentInstance(Store<State>);

/// The state of a prepared instance, which new instances get. Only the policy knows its form. It has what the policy made of its settings, and
/// so it is never written or shown.
pub struct Checkpoint(Vec<u64>);

/// Bytes of a checkpoint, as the interface says.
const MAX_CHECKPOINT_BYTES: usize = 1 << 20;

/// Unmapping 4 MB of touched pages took 0.1 ms. The bound is above what linkers allocate by default, a stack of 1 MiB and some more. An instance whose
/// memory stays resident for the next one is not heavy either: its pages are copied back.
const HEAVY_INSTANCE_BYTES: usize = 2 << 20;
/// Tables of an instance, which are not in the resident memory.
const TABLE_BYTES: usize = 128 << 10;
/// Unmapping 60 MB of touched pages took 10 ms. The bound is above what most policies use.
const HUGE_INSTANCE_BYTES: usize = 8 << 20;

impl SpentInstance {
    /// Where to drop it; `None` is the current thread. The memory that it touched is unmapped page by page, which may take longer than a
    /// small decision.
    pub fn teardown(&self) -> Option<Teardown> {
        let limiter = &self.0.data().limiter;
        let bytes = limiter.in_use();
        if bytes <= HEAVY_INSTANCE_BYTES.max(limiter.resident().saturating_add(TABLE_BYTES)) {
            None
        } else if bytes <= HUGE_INSTANCE_BYTES {
            Some(Teardown::Heavy)
        } else {
            Some(Teardown::Huge)
        }
    }
}

impl Instance {
    /// Creates an instance by `deadline`; `cpu_budget` counts its CPU time if the caller polls through it.
    pub async fn new(
        policy: &Policy,
        env: Arc<PolicyEnv>,
        limits: &Limits,
        cpu_budget: Arc<CpuBudget>,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        // Headers take more memory than their text.
        let max_answer = limits.max_response_size.saturating_mul(2).max(64 << 10);
        Self::create(policy, env, limits, cpu_budget, deadline, max_answer).await
    }

    /// Creates an instance of which no function returns more than `max_answer` bytes.
    async fn create(
        policy: &Policy,
        env: Arc<PolicyEnv>,
        limits: &Limits,
        cpu_budget: Arc<CpuBudget>,
        deadline: Instant,
        max_answer: usize,
    ) -> Result<Self, Failure> {
        let mut state = State::new(env, limits, cpu_budget, Arc::clone(policy.digest()));
        state.max_answer = max_answer;
        let mut store = policy.new_store(state);
        // These functions capture nothing, so that each instance does without an allocation for them.
        store.limiter_async(|state| &mut state.limiter);
        store.call_hook(check_transition);
        store.set_max_component_handles(MAX_COMPONENT_HANDLES);
        if let Some(tasks) = store.concurrent_resource_table() {
            tasks.set_max_capacity(MAX_TASK_ENTRIES);
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            let State { cpu_budget: budget, max_cpu_time, .. } = context.data();
            match budget.tick() {
                spent if spent > *max_cpu_time => Err(Trap::Interrupt.into()),
                _ if budget.is_slow() => Ok(UpdateDeadline::Yield(1)),
                _ => Ok(UpdateDeadline::Continue(1)),
            }
        });
        let created = timeout_at(deadline, store.instantiate()).await.map_err(|_| Failure::Timeout)?;
        match created {
            Ok((instance, bindings)) => Ok(Self { store: store.into_inner(), instance, bindings }),
            Err(error) => {
                let state = store.data_mut();
                state.flush_output(Level::Error);
                Err(failure(&error, true, state.limiter.limit_exceeded))
            }
        }
    }

    /// Creates an instance and prepares it, if the policy has a `prepare`. Each of the two may take as long as a decision.
    pub async fn prepared(
        policy: &Policy,
        env: Arc<PolicyEnv>,
        limits: &Limits,
        cpu_budget: Arc<CpuBudget>,
    ) -> Result<Self, Failure> {
        let mut instance = Self::new(policy, env, limits, cpu_budget, Instant::now() + limits.timeout).await?;
        if let Some(preparation) = policy.preparation() {
            let Self { store, instance: exports, .. } = &mut instance;
            store.data().cpu_budget.start_call();
            let call = async {
                let prepare = exports.get_typed_func::<(), ()>(&mut *store, preparation)?;
                prepare.call_async(&mut *store, ()).await
            };
            let prepared = timeout_at(Instant::now() + limits.timeout, call).await;
            instance.ended(prepared)?;
        }
        Ok(instance)
    }

    /// Creates an instance, prepares it and returns its state. `None` if the policy has no checkpoints, or other instances must not have this state.
    /// The limits are those of [`Self::prepared`].
    pub async fn checkpoint(
        policy: &Policy,
        env: Arc<PolicyEnv>,
        limits: &Limits,
        cpu_budget: Arc<CpuBudget>,
    ) -> Result<Option<Checkpoint>, Failure> {
        let Some(functions) = policy.checkpoint() else { return Ok(None) };
        let deadline = Instant::now() + limits.timeout;
        let mut instance = Self::create(policy, env, limits, cpu_budget, deadline, MAX_CHECKPOINT_BYTES).await?;
        instance.store.data().cpu_budget.start_call();
        let call = functions.save(&mut instance.store, &instance.instance);
        let saved = timeout_at(Instant::now() + limits.timeout, call).await;
        Ok(instance.ended(saved)?.map(Checkpoint))
    }

    /// Brings this instance, which is new, into a saved state.
    pub async fn restore(
        &mut self,
        policy: &Policy,
        Checkpoint(state): &Checkpoint,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let Some(functions) = policy.checkpoint() else { return Ok(()) };
        let restored = timeout_at(deadline, functions.restore(&mut self.store, &self.instance, state)).await;
        self.ended(restored)
    }

    /// The result of a call that needs no request.
    fn ended<T>(&mut self, result: Result<wasmtime::Result<T>, Elapsed>) -> Result<T, Failure> {
        let state = self.store.data_mut();
        let result = result
            .map_err(|_| Failure::Timeout)
            .and_then(|result| result.map_err(|error| failure(&error, false, state.limiter.limit_exceeded)));
        state.flush_output(output_level(result.is_ok()));
        result
    }

    /// The CPU budget, reset for the decision.
    pub fn reset_cpu_budget(&self) -> &Arc<CpuBudget> {
        let State { cpu_budget, limiter, .. } = self.store.data();
        cpu_budget.start_call();
        if limiter.is_large() {
            cpu_budget.mark_slow();
        }
        cpu_budget
    }

    /// Calls the policy's `authorize`.
    pub async fn evaluate(
        mut self,
        request: &Request,
        channels: &[String],
        params: EvaluationParams,
    ) -> InstanceResult {
        self.store.data_mut().start_decision(request.id.clone(), params);
        self.store.set_epoch_deadline(1);
        let authorizer = self.bindings.tidegate_policy_authorizer();
        // What a component does with its tasks must not end the connection, should the engine not expect it.
        let parts = RequestParts::new(request);
        let (request, channels) = (parts.to_wit(), channels.iter().map(|channel| &**channel).collect::<Vec<_>>());
        let call = AssertUnwindSafe(authorizer.call_authorize(&mut self.store, request, &channels)).catch_unwind();
        let answer = timeout_at(params.deadline, call).await;
        let state = self.store.data_mut();
        let mut pending_keys = None;
        let answer = match (state.exceeded_limit(), answer) {
            (Some(limit), _) => Err(Failure::Limit(limit)),
            (None, Ok(Err(_))) => Err(Failure::Host("the engine panicked".into())),
            (None, Ok(Ok(answer))) => answer.map_err(|error| {
                pending_keys = error.downcast_ref::<KeysPending>().map(|KeysPending(fetch)| fetch.clone());
                failure(&error, false, state.limiter.limit_exceeded)
            }),
            (None, Err(_)) => Err(Failure::Timeout),
        };
        state.flush_output(output_level(answer.is_ok() || pending_keys.is_some()));
        let sent_requests = state.sent_requests() > 0;
        let mut decision = std::mem::take(&mut state.decision);
        if let Some(trace) = &mut decision.trace {
            trace.sent_requests = sent_requests;
        }
        InstanceResult { answer, decision, pending_keys, spent: SpentInstance(self.store) }
    }
}

/// The level of what a policy printed. Runtimes print why they end a policy, so the output of a failed call is an error.
fn output_level(has_ended_well: bool) -> Level {
    if has_ended_well { Level::Info } else { Level::Error }
}

/// Classifies an error by its type, never by its text.
pub(crate) fn failure(error: &wasmtime::Error, instantiating: bool, memory_limit_exceeded: bool) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Cpu,
        _ if memory_limit_exceeded => Failure::Memory,
        Some(trap) => Failure::Trap(trap.to_string()),
        None if error.is::<I32Exit>() => Failure::Trap("it exited; its output in the log may say why".into()),
        None if instantiating => Failure::Host(format!("{error:#}")),
        // An error of a host function, or a value that does not fit the interface.
        None => Failure::Trap(error.root_cause().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_is_a_trap_that_refers_to_the_log() {
        for status in [0, 1] {
            let failure = failure(&I32Exit(status).into(), false, false);
            assert_eq!(failure.to_string(), "the policy trapped: it exited; its output in the log may say why");
        }
    }
}
