//! Asks a policy what another one was asked, in the world as that one met it: with the answers that the host gave then, at the time
//! of then, and with no way out.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;

use crate::authz::validate::judge;
use crate::policy::{Decision, Failure, Limits, Outcome, Request};
use crate::wasm::component::Policy;
use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::host::tokens::KeyWait;
use crate::wasm::host::{EvaluationParams, PolicyEnv, to_wit};
use crate::wasm::host_trace::RecordedCalls;
use crate::wasm::instance::{Instance, InstanceResult};
use crate::wasm::log_rate::LogRate;

/// A policy that is asked without effect.
pub struct ReplayEvaluator {
    policy: Policy,
    /// What it writes to the log has a bound of its own, so that it takes no place from the policy in force.
    log: Arc<LogRate>,
}

impl ReplayEvaluator {
    /// Of this policy, which may write so many lines to the log in a second.
    #[must_use]
    pub fn new(policy: Policy, log_rate: u32) -> Self {
        Self { policy, log: Arc::new(LogRate::new(log_rate)) }
    }

    /// What is asked.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Asks it, on a fresh instance and within the bounds of any decision. What was missing is told by `recorded`. It runs on the
    /// thread of whoever polls.
    pub async fn ask(
        &self,
        env: &PolicyEnv,
        limits: &Limits,
        recorded: &Arc<RecordedCalls>,
        request: &Request,
        channels: &[String],
    ) -> Decision {
        let start = std::time::Instant::now();
        let env = Arc::new(env.replaying(recorded, &self.log));
        let cpu_budget = Arc::<CpuBudget>::default();
        let asked = {
            let mut call = pin!(self.call(env, limits, Arc::clone(&cpu_budget), request, channels));
            poll_fn(|cx| cpu_budget.poll(call.as_mut(), cx)).await
        };
        let mut reason = None;
        let outcome = asked.and_then(|mut asked| {
            reason = asked.options.reason.take();
            let judged = judge(asked.answer, &asked.options, channels, limits.max_response_size, recorded.now());
            judged.map(|(outcome, _)| outcome)
        });
        let outcome = outcome.unwrap_or_else(Outcome::Failed);
        Decision { outcome, reason, cached: false, revoked: false, duration: start.elapsed(), policy: None }
    }

    async fn call(
        &self,
        env: Arc<PolicyEnv>,
        limits: &Limits,
        cpu_budget: Arc<CpuBudget>,
        request: &Request,
        channels: &[String],
    ) -> Result<InstanceResult, Failure> {
        let deadline = || Instant::now() + limits.timeout;
        let mut instance = Instance::new(&self.policy, env, limits, cpu_budget, deadline()).await?;
        // In the gateway most instances are prepared.
        if let Some(preparation) = self.policy.preparation() {
            instance.prepare(preparation, deadline()).await?;
        }
        instance.reset_cpu_budget();
        let deadline = deadline();
        let key_wait = KeyWait { until: deadline, may_restart: false };
        let params = EvaluationParams { deadline, key_wait, lookups: 0, traced: false };
        Ok(instance.evaluate(request.id.clone(), &to_wit(request), channels, params).await)
    }
}
