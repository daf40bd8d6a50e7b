//! Evaluates policies: permits limit the instances that exist at once, and each decision gets an instance of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::authz::generation::PolicyGeneration;
use crate::authz::validate::validate_answer;
use crate::policy::{Failure, Limits, Outcome, Request};
use crate::util::client_key::ClientKey;
use crate::util::fair_queue::{FairPermit, FairSemaphore};
use crate::wasm::host::{DecisionState, EvaluationParams};
use crate::wasm::host_trace::HostTrace;
use crate::wasm::instance::{InstanceResult, SpentInstance};
use crate::wasm::low_priority_pool::{self, Teardown};

/// An evaluation that needs keys stops, and starts again after they were fetched. The last attempt waits with its permit.
const MAX_ATTEMPTS: u32 = 4;
/// The part of a decision's time that it may spend waiting for keys. The rest is for evaluating, even if the keys did not arrive.
const KEY_WAIT_FRACTION: f64 = 0.75;
/// Heavy instances that are torn down concurrently, off the request's path, and as many huge ones. Further decisions wait for a permit
/// before they answer: without that, a busy node answers faster than it frees memory, until spent instances use up the evaluation permits.
const MAX_CONCURRENT_TEARDOWNS: usize = 4;

pub struct Evaluator {
    /// One permit per instance; clients are served in turns.
    permits: FairSemaphore,
    heavy_teardowns: Arc<Semaphore>,
    /// Apart from the heavy ones, which do not wait for them.
    huge_teardowns: Arc<Semaphore>,
    concurrency: usize,
    queue_timeout: Duration,
    /// Decisions that wait for keys, without a permit.
    waiting_for_keys: AtomicUsize,
}

pub struct EvaluationOutput {
    pub outcome: Outcome,
    /// The policy's own reason.
    pub reason: Option<String>,
    /// The host calls of the policy, if they were traced and an instance ran to its end.
    pub trace: Option<HostTrace>,
}

impl From<Outcome> for EvaluationOutput {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, reason: None, trace: None }
    }
}

impl Evaluator {
    pub fn new(limits: &Limits) -> Self {
        let Limits { concurrency, queue_timeout, .. } = *limits;
        Self {
            permits: FairSemaphore::new(concurrency),
            heavy_teardowns: Arc::new(Semaphore::new(MAX_CONCURRENT_TEARDOWNS)),
            huge_teardowns: Arc::new(Semaphore::new(MAX_CONCURRENT_TEARDOWNS)),
            concurrency,
            queue_timeout,
            waiting_for_keys: AtomicUsize::new(0),
        }
    }

    pub fn permits_in_use(&self) -> usize {
        self.concurrency.saturating_sub(self.permits.available_permits())
    }

    pub fn waiting_for_keys(&self) -> usize {
        self.waiting_for_keys.load(Ordering::Relaxed)
    }

    /// Evaluates a request on an instance of its own, as soon as a permit is available for this client. `traced` records the host calls.
    pub async fn evaluate(
        &self,
        generation: &Arc<PolicyGeneration>,
        request: &Arc<Request>,
        channels: &[String],
        client: &Arc<ClientKey>,
        traced: bool,
    ) -> Result<EvaluationOutput, Failure> {
        let shared_channels = Arc::from(channels);
        let mut permit = self.permit(client).await?;
        let start = tokio::time::Instant::now();
        let limits = &generation.context.limits;
        let (deadline, epoch) = (start + limits.timeout, generation.cache.epoch());
        let keys_until = start + limits.timeout.mul_f64(KEY_WAIT_FRACTION);
        let mut params = EvaluationParams { deadline, keys_until, may_restart: true, lookups: 0, traced };
        let mut attempts = 0;
        loop {
            attempts += 1;
            params.may_restart = attempts < MAX_ATTEMPTS;
            let (result, returned) = evaluate_once(generation, request, &shared_channels, params, permit).await?;
            // Also before waiting for keys: other decisions can use the permit meanwhile.
            self.tear_down(result.spent, returned).await;
            let Some(keys) = result.pending_keys else {
                let (limit, now) = (limits.max_response_size, generation.clock());
                let DecisionState { options, trace, .. } = result.decision;
                let (outcome, directive) = validate_answer(result.answer, &options, channels, limit, now);
                let reason = options.reason;
                if let Some(directive) = directive {
                    let reason = reason.as_deref();
                    generation.cache.insert(&directive, request, channels, &outcome, reason, start, epoch);
                }
                return Ok(EvaluationOutput { outcome, reason, trace });
            };
            params.lookups = result.decision.lookups;
            let _waiting = CountGuard::new(&self.waiting_for_keys);
            keys.until(keys_until).await;
            permit = self.permit(client).await?;
        }
    }

    async fn permit(&self, client: &Arc<ClientKey>) -> Result<FairPermit, Failure> {
        if let Some(permit) = self.permits.try_acquire(client) {
            return Ok(permit);
        }
        tokio::time::timeout(self.queue_timeout, self.permits.acquire(client)).await.map_err(|_| Failure::Busy)
    }

    /// Drops an instance, then its permit. A heavy instance is dropped on a thread of its own kind, off the request's path; not in the
    /// low-priority pool, because other decisions wait for the permit.
    async fn tear_down(&self, spent: SpentInstance, permit: FairPermit) {
        let Some(teardown) = spent.teardown() else {
            drop((spent, permit));
            return;
        };
        let permits = match teardown {
            Teardown::Heavy => &self.heavy_teardowns,
            Teardown::Huge => &self.huge_teardowns,
        };
        let teardown_permit = Arc::clone(permits).acquire_owned().await;
        low_priority_pool::tear_down((spent, permit, teardown_permit), teardown);
    }
}

/// Adds one to a count until it is dropped.
pub struct CountGuard<'a>(&'a AtomicUsize);

impl<'a> CountGuard<'a> {
    pub fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for CountGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs one instance. The permit is returned only after the instance is gone, even if the caller was dropped and the low-priority pool
/// drops the instance: there are never more instances than permits.
async fn evaluate_once(
    generation: &Arc<PolicyGeneration>,
    request: &Arc<Request>,
    channels: &Arc<[String]>,
    params: EvaluationParams,
    permit: FairPermit,
) -> Result<(InstanceResult, FairPermit), Failure> {
    let prewarmed = generation.take_prewarmed();
    let budget = prewarmed.as_ref().map_or_else(Arc::default, |instance| Arc::clone(instance.reset_cpu_budget()));
    let call = {
        let (generation, budget) = (Arc::clone(generation), Arc::clone(&budget));
        let (request, channels) = (Arc::clone(request), Arc::clone(channels));
        // Boxed here, so that it is not moved again.
        Box::pin(async move {
            // Declared before the instance, so that it is dropped after it.
            let permit = permit;
            let instance = match prewarmed {
                Some(instance) => instance,
                None => generation.new_instance(budget, params.deadline).await?,
            };
            let result = instance.evaluate(&request, &channels, params).await;
            Ok((result, permit))
        })
    };
    low_priority_pool::run(call, budget).await?
}
