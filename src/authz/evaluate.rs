//! The places in which decisions are made, so many at once: who waits for one, asks an instance, and gives it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::authz::generation::PolicyGeneration;
use crate::authz::validate::judge;
use crate::policy::{Failure, Limits, Outcome, Request};
use crate::wasm::host;
use crate::wasm::host::tokens::KeyWait;
use crate::wasm::host::{EvaluationParams, wit};
use crate::wasm::host_trace::HostTrace;
use crate::wasm::instance::{InstanceResult, SpentInstance};
use crate::wasm::low_priority_pool;

/// A decision is begun so often at most, when keys are missing; the last time it waits where it is.
const ATTEMPTS: u32 = 4;
/// The part of its time that a decision may wait for keys; the rest is for deciding, be it that there are none.
const FOR_KEYS: f64 = 0.75;
/// Heavy instances that are taken down beside the decisions, so many at once: what comes to more waits for its turn, and whoever asked
/// it waits too. Else a busy machine would answer faster than it gives memory back, until every place has an instance that is done.
const LEAVING: usize = 4;

/// The places of one gate.
pub struct Evaluator {
    slots: Arc<Semaphore>,
    leaving: Arc<Semaphore>,
    concurrency: usize,
    queue_timeout: Duration,
    /// Decisions that wait for keys, without a place.
    awaiting: AtomicUsize,
}

/// What an instance says and asks while it decides.
pub struct EvaluationOutput {
    /// Whether what the host answers is wanted.
    pub traced: bool,
    /// The policy's own reason.
    pub reason: Option<String>,
    /// What the host answered.
    pub trace: Option<HostTrace>,
}

impl Evaluator {
    /// As many as the limits say.
    pub fn new(limits: &Limits) -> Self {
        let Limits { concurrency, queue_timeout, .. } = *limits;
        let (slots, leaving) = (Arc::new(Semaphore::new(concurrency)), Arc::new(Semaphore::new(LEAVING)));
        Self { slots, leaving, concurrency, queue_timeout, awaiting: AtomicUsize::new(0) }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.concurrency.saturating_sub(self.slots.available_permits())
    }

    /// How many decisions gave theirs up, for they wait for keys.
    pub fn awaiting(&self) -> usize {
        self.awaiting.load(Ordering::Relaxed)
    }

    /// Asks an instance of this version of its own, as soon as there is a place.
    pub async fn ask(
        &self,
        version: &Arc<PolicyGeneration>,
        request: &Request,
        channels: &[String],
        heard: &mut EvaluationOutput,
    ) -> Result<Outcome, Failure> {
        let (asking, wanted) = (Arc::new(host::to_wit(request)), Arc::from(channels));
        let mut slot = self.slot().await?;
        let start = tokio::time::Instant::now();
        let limits = &version.context.limits;
        let (deadline, seen) = (start + limits.timeout, version.cache.seen());
        let key_wait = KeyWait { until: start + limits.timeout.mul_f64(FOR_KEYS), may_restart: true };
        let mut params = EvaluationParams { deadline, key_wait, lookups: 0, traced: heard.traced };
        for attempt in 1.. {
            params.key_wait.may_restart = attempt < ATTEMPTS;
            let (asked, place) = attempt_with(version, &request.id, &asking, &wanted, params, slot).await?;
            let Some(wait) = asked.pending_keys else {
                let mut options = asked.options;
                self.retire(asked.spent, place).await;
                heard.reason = options.reason.take();
                heard.trace = asked.trace;
                let (outcome, keep) =
                    judge(asked.answer, &options, channels, limits.max_response_size, version.clock())?;
                if let Some(keep) = keep {
                    let reason = heard.reason.as_deref();
                    version.cache.keep(&keep, request, channels, &outcome, reason, start, seen);
                }
                return Ok(outcome);
            };
            params.lookups = asked.lookups;
            // The place is for those who can go on meanwhile.
            self.retire(asked.spent, place).await;
            let _awaiting = CountGuard::new(&self.awaiting);
            wait.until(params.key_wait.until).await;
            slot = self.slot().await?;
        }
        Err(Failure::Timeout)
    }

    /// A place among the decisions that are made at once.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, Failure> {
        // Closed never; so an error is the time that ran out.
        let slot = tokio::time::timeout(self.queue_timeout, Arc::clone(&self.slots).acquire_owned()).await;
        slot.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)
    }

    /// Lets an instance go, and its place behind it; one that takes long to go does so off the request's path, but not behind
    /// all others: its place is wanted.
    async fn retire(&self, used: SpentInstance, slot: OwnedSemaphorePermit) {
        if !used.is_heavy() {
            drop(used);
            drop(slot);
            return;
        }
        let leaving = Arc::clone(&self.leaving).acquire_owned().await;
        tokio::task::spawn_blocking(move || drop((used, slot, leaving)));
    }
}

/// One more, as long as it lives.
pub struct CountGuard<'a>(&'a AtomicUsize);

impl<'a> CountGuard<'a> {
    /// Counts one more there.
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

/// Asks one instance, in this place. That is free only when the instance is gone, also where nobody waits for it any more and it is
/// the slow lane that lets it go: there are never more instances than places.
async fn attempt_with(
    version: &Arc<PolicyGeneration>,
    id: &str,
    request: &Arc<wit::Request>,
    channels: &Arc<[String]>,
    params: EvaluationParams,
    slot: OwnedSemaphorePermit,
) -> Result<(InstanceResult, OwnedSemaphorePermit), Failure> {
    let ready = version.take();
    let cpu_budget = ready.as_ref().map_or_else(Arc::default, |instance| Arc::clone(instance.reset_cpu_budget()));
    let call = {
        let (version, cpu_budget) = (Arc::clone(version), Arc::clone(&cpu_budget));
        let (id, request, channels) = (id.to_owned(), Arc::clone(request), Arc::clone(channels));
        async move {
            // Before the instance, so that it goes after it.
            let slot = slot;
            let instance = match ready {
                Some(instance) => instance,
                None => version.make(cpu_budget, params.deadline).await?,
            };
            let asked = instance.evaluate(id, &request, &channels, params).await;
            Ok((asked, slot))
        }
    };
    low_priority_pool::run(call, cpu_budget).await?
}
