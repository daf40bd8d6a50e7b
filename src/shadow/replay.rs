//! Evaluates a policy on a recorded request, with the recorded host answers and time, and without network access.

use std::sync::Arc;

use tokio::time::Instant;

use crate::authz::validate::validate_answer;
use crate::policy::{Decision, Limits, Outcome, Request};
use crate::wasm::component::Policy;
use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::host::{EvaluationParams, PolicyEnv};
use crate::wasm::host_trace::RecordedCalls;
use crate::wasm::instance::{Instance, InstanceResult};
use crate::wasm::log_rate::LogRate;

/// Evaluates one policy without effect.
pub struct ReplayEvaluator {
    pub policy: Policy,
    /// Separate from the rate of the active policy, so that the log lines of the two do not count together.
    log_rate: Arc<LogRate>,
}

impl ReplayEvaluator {
    /// `log_rate` is the maximum of log lines per second.
    pub fn new(policy: Policy, log_rate: u32) -> Self {
        Self { policy, log_rate: Arc::new(LogRate::new(log_rate)) }
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
        let env = Arc::new(env.replaying(recorded, &self.log_rate));
        let budget = Arc::<CpuBudget>::default();
        let call = async {
            // Prepared, as most instances of the active policy are.
            let instance = Instance::prepared(&self.policy, env, limits, Arc::clone(&budget)).await?;
            instance.reset_cpu_budget();
            let deadline = Instant::now() + limits.timeout;
            let params =
                EvaluationParams { deadline, keys_until: deadline, may_restart: false, lookups: 0, traced: false };
            Ok(instance.evaluate(request, channels, params).await)
        };
        let (outcome, reason) = match budget.measure(call).await {
            Ok(InstanceResult { answer, decision, .. }) => {
                let limit = limits.max_response_size;
                let (outcome, _) = validate_answer(answer, &decision.options, channels, limit, recorded.now);
                (outcome, decision.options.reason)
            }
            Err(failure) => (Outcome::Failed(failure), None),
        };
        Decision { outcome, reason, cached: false, revoked: false, duration: start.elapsed(), policy: None }
    }
}
