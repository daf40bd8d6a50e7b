//! Evaluates a policy on a recorded request, with the recorded host answers and time, and without network access.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;

use crate::authz::validate::validate_answer;
use crate::policy::{Decision, Failure, Limits, Outcome, Request};
use crate::wasm::component::Policy;
use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::host::tokens::KeyWait;
use crate::wasm::host::{EvaluationTerms, PolicyEnv, to_wit};
use crate::wasm::host_trace::RecordedCalls;
use crate::wasm::instance::{Instance, InstanceResult};
use crate::wasm::log_rate::LogRate;

/// Evaluates one policy without effect.
pub struct ReplayEvaluator {
    policy: Policy,
    /// Its log lines have a limit of their own, so that they do not count against the active policy's.
    log: Arc<LogRate>,
}

impl ReplayEvaluator {
    /// `log_rate` is the maximum of log lines per second.
    #[must_use]
    pub fn new(policy: Policy, log_rate: u32) -> Self {
        Self { policy, log: Arc::new(LogRate::new(log_rate)) }
    }

    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Evaluates a request on a new instance, within the limits of a decision, on the polling thread. `recorded` notes the host calls for
    /// which it has no answer.
    pub async fn evaluate(
        &self,
        env: &PolicyEnv,
        limits: &Limits,
        recorded: &Arc<RecordedCalls>,
        request: &Request,
        channels: &[String],
    ) -> Decision {
        let start = std::time::Instant::now();
        let env = Arc::new(env.replaying(recorded, &self.log));
        let budget = Arc::<CpuBudget>::default();
        let result = {
            let mut call = pin!(self.run(env, limits, Arc::clone(&budget), request, channels));
            poll_fn(|cx| budget.poll(call.as_mut(), cx)).await
        };
        let mut reason = None;
        let outcome = result.and_then(|mut result| {
            reason = result.said.reason.take();
            let validated = validate_answer(result.answer, &result.said, channels, limits.answer, recorded.now());
            validated.map(|(outcome, _)| outcome)
        });
        let outcome = outcome.unwrap_or_else(Outcome::Failed);
        Decision { outcome, reason, cached: false, revoked: false, took: start.elapsed(), by: None }
    }

    async fn run(
        &self,
        env: Arc<PolicyEnv>,
        limits: &Limits,
        budget: Arc<CpuBudget>,
        request: &Request,
        channels: &[String],
    ) -> Result<InstanceResult, Failure> {
        let deadline = || Instant::now() + limits.timeout;
        let mut instance = Instance::make(&self.policy, env, limits, budget, deadline()).await?;
        // As for most decisions of the active policy, whose instances are prewarmed.
        if let Some(preparation) = self.policy.preparation() {
            instance.prepare(preparation, deadline()).await?;
        }
        instance.pace();
        let deadline = deadline();
        let patience = KeyWait { until: deadline, restart: false };
        let terms = EvaluationTerms { deadline, patience, lookups: 0, traced: false };
        Ok(instance.ask(request.id.clone(), &to_wit(request), channels, terms).await)
    }
}
