//! What is in force at a moment, as one value: what decides, what it may see, and the instances that were made ahead for it.

use crate::policy::info::PolicyInfo;
use crate::policy::info::PolicyOrigin;
use crate::wasm::host::PolicyContext;
use parking_lot::{Mutex, MutexGuard};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::authz::cache::DecisionCache;
use crate::authz::in_flight::InFlight;
use crate::policy::Failure;
use crate::util::clock::now_ms;
use crate::wasm::component::Policy;
use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::instance::Instance;
use crate::wasm::low_priority_pool;

/// An instance that is made in less than this is made when it is needed: to take one from a queue and to fill that again from
/// another thread costs about as much.
pub const WORTHWHILE: Duration = Duration::from_micros(100);
/// After an instance could not be made or prepared.
const BACK_OFF: Duration = Duration::from_secs(1);

/// What takes force next.
pub struct Activation {
    /// What decides.
    pub policy: Policy,
    /// What it has around it.
    pub context: Arc<PolicyContext>,
    /// Where it comes from.
    pub origin: PolicyOrigin,
    /// `sha256:…` of the text of its cases.
    pub cases: Option<Arc<str>>,
}

/// A policy in force.
pub struct PolicyGeneration {
    /// What it is, for those who ask.
    pub info: Arc<PolicyInfo>,
    /// What decides.
    pub policy: Policy,
    /// What it answered and may answer again.
    pub cache: DecisionCache,
    /// What it has around it.
    pub context: Arc<PolicyContext>,
    ready: Arc<PrewarmPool>,
    /// Answers of this version that are on their way out.
    pub pins: Arc<InFlight>,
}

/// Instances that wait for their one decision.
struct PrewarmPool {
    /// None when the version is in force no longer.
    waiting: Mutex<Option<Vec<PrewarmedInstance>>>,
    changed: Notify,
}

/// An instance that was made ahead, and after it its place among those: it is free when the instance is gone.
type PrewarmedInstance = (Instance, Option<OwnedSemaphorePermit>);

impl Default for PrewarmPool {
    fn default() -> Self {
        Self { waiting: Mutex::new(Some(Vec::new())), changed: Notify::new() }
    }
}

impl PrewarmPool {
    fn waiting(&self) -> MutexGuard<'_, Option<Vec<PrewarmedInstance>>> {
        self.waiting.lock()
    }

    fn push(&self, instance: PrewarmedInstance) {
        // Let go behind the lock, if it comes too late.
        let late = match &mut *self.waiting() {
            Some(waiting) => {
                waiting.push(instance);
                None
            }
            None => Some(instance),
        };
        drop(late);
    }
}

impl PolicyGeneration {
    /// Makes one value of all that a decision depends on, and begins to make instances for it.
    pub fn new(next: Activation, number: u64, places: Arc<Semaphore>) -> Arc<Self> {
        let Activation { policy, context, origin, cases } = next;
        context.env.tokens.start();
        let info = PolicyInfo { number, digest: Arc::clone(policy.digest()), cases, since: now_ms(), origin };
        let cache = DecisionCache::new(context.limits.cache_size, context.limits.cache_max_age);
        let (info, ready, pins) = (Arc::new(info), Arc::default(), Arc::default());
        let version = Arc::new(Self { info, policy, cache, context, ready, pins });
        if version.context.limits.prewarmed_instances > 0 {
            let filling = fill(Arc::downgrade(&version), Arc::clone(&version.ready), places);
            if let Err(failure) = low_priority_pool::spawn(filling) {
                tracing::warn!(%failure, "no instances are made ahead");
            }
        }
        version
    }

    /// What the policy takes for the time, ms since 1970.
    pub fn clock(&self) -> u64 {
        (self.context.env.clock)()
    }

    /// An instance that was made ahead, if there is one.
    pub fn take(&self) -> Option<Instance> {
        // From here on it counts among the decisions.
        let (instance, _) = self.ready.waiting().as_mut()?.pop()?;
        self.ready.changed.notify_one();
        Some(instance)
    }

    /// A new instance, by `deadline`, whose CPU time `cpu_budget` counts.
    pub async fn make(&self, cpu_budget: Arc<CpuBudget>, deadline: Instant) -> Result<Instance, Failure> {
        Instance::new(&self.policy, Arc::clone(&self.context.env), &self.context.limits, cpu_budget, deadline).await
    }

    /// Makes one more instance ahead, whatever the limits say of their number.
    pub async fn prepare_one(&self) -> Result<(), Failure> {
        let instance = self.prepare().await?;
        self.ready.push((instance, None));
        Ok(())
    }

    /// It is in force no longer: what was made ahead for it goes now. The task that made it may not get to that for long, for it runs
    /// behind all others, and its places are wanted.
    pub fn retire(&self) {
        let waiting = self.ready.waiting().take();
        self.ready.changed.notify_one();
        if waiting.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        // Large ones take their time.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(waiting))),
            Err(_) => drop(waiting),
        }
    }

    async fn prepare(&self) -> Result<Instance, Failure> {
        let deadline = Instant::now() + self.context.limits.timeout;
        let cpu_budget = Arc::<CpuBudget>::default();
        let made = async {
            let mut instance = self.make(Arc::clone(&cpu_budget), deadline).await?;
            if let Some(preparation) = self.policy.preparation() {
                instance.prepare(preparation, deadline).await?;
            }
            Ok(instance)
        };
        let mut made = pin!(made);
        poll_fn(|cx| cpu_budget.poll(made.as_mut(), cx)).await
    }
}

impl Drop for PolicyGeneration {
    fn drop(&mut self) {
        self.ready.changed.notify_one();
    }
}

/// Keeps `limits.prewarmed_instances` instances ready as long as the version lives, unless it is quick enough without.
async fn fill(version: Weak<PolicyGeneration>, ready: Arc<PrewarmPool>, places: Arc<Semaphore>) {
    loop {
        let Some(wanted) = version.upgrade().map(|version| version.context.limits.prewarmed_instances) else { return };
        let waiting = ready.waiting().as_ref().map(Vec::len);
        let Some(waiting) = waiting else { return };
        if waiting >= wanted {
            ready.changed.notified().await;
            continue;
        }
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = ready.changed.notified() => continue,
        };
        let (Ok(place), Some(version)) = (place, version.upgrade()) else { return };
        let start = Instant::now();
        match version.prepare().await {
            Ok(_) if version.policy.preparation().is_none() && start.elapsed() < WORTHWHILE => return,
            Ok(instance) => ready.push((instance, Some(place))),
            Err(failure) => {
                tracing::warn!(policy = %version.policy.digest(), %failure, "an instance could not be prepared");
                drop(version);
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}
