//! A policy generation: a policy with its context, its cached decisions and its prewarmed instances, replaced as one value.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::authz::cache::DecisionCache;
use crate::authz::in_flight::InFlight;
use crate::policy::Failure;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::util::clock::now_ms;
use crate::wasm::component::Policy;
use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::host::PolicyContext;
use crate::wasm::instance::{Checkpoint, Instance};
use crate::wasm::low_priority_pool;

/// Instances that take less time than this to create and prepare are not prewarmed: to take one from the pool and to refill the pool on
/// another thread costs about as much.
pub const MIN_PREWARM_TIME: Duration = Duration::from_micros(100);
/// The pause after an instance could not be prewarmed.
const PREWARM_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A policy and what becomes active with it.
pub struct Activation {
    pub policy: Policy,
    pub context: Arc<PolicyContext>,
    pub origin: PolicyOrigin,
    /// Digest of the test cases' text, `sha256:…`.
    pub cases: Option<Box<str>>,
}

pub struct PolicyGeneration {
    /// The description for operators.
    pub info: Arc<PolicyInfo>,
    pub policy: Policy,
    pub cache: DecisionCache,
    pub context: Arc<PolicyContext>,
    prewarmed: Arc<PrewarmPool>,
    /// The state of a prepared instance, which all instances get once there is one.
    checkpoint: OnceLock<Checkpoint>,
    /// Responses that this generation decided.
    pub in_flight: Arc<InFlight>,
}

/// Instances that wait for a request.
struct PrewarmPool {
    /// `None` once the generation is retired.
    instances: Mutex<Option<Vec<PrewarmedInstance>>>,
    changed: Notify,
}

/// An instance and its permit. The permit is the second field, so that it is released after the instance is dropped.
type PrewarmedInstance = (Instance, Option<OwnedSemaphorePermit>);

impl PrewarmPool {
    /// Adds an instance. If the generation was retired meanwhile, the instance is dropped instead, after the lock is released.
    fn push(&self, instance: PrewarmedInstance) {
        if let Some(instances) = self.instances.lock().as_mut() {
            instances.push(instance);
        }
    }
}

impl PolicyGeneration {
    /// Creates a generation and starts to prewarm instances for it.
    pub fn new(activation: Activation, generation: u64, prewarm_permits: Arc<Semaphore>) -> Arc<Self> {
        let Activation { policy, context, origin, cases } = activation;
        context.env.tokens.start();
        let info = PolicyInfo { generation, digest: Box::from(&**policy.digest()), cases, since: now_ms(), origin };
        let cache = DecisionCache::new(context.limits.cache_size, context.limits.cache_max_age);
        let prewarmed = PrewarmPool { instances: Mutex::new(Some(Vec::new())), changed: Notify::new() };
        let (info, prewarmed, in_flight) = (Arc::new(info), Arc::new(prewarmed), Arc::default());
        let checkpoint = OnceLock::new();
        let generation = Arc::new(Self { info, policy, cache, context, prewarmed, checkpoint, in_flight });
        if generation.context.limits.prewarmed_instances > 0 {
            let task = keep_prewarmed(Arc::downgrade(&generation), Arc::clone(&generation.prewarmed), prewarm_permits);
            if let Err(failure) = low_priority_pool::spawn(task) {
                tracing::warn!(%failure, "cannot prewarm instances");
            }
        }
        generation
    }

    /// The policy's clock, in milliseconds since the Unix epoch.
    pub fn clock(&self) -> u64 {
        (self.context.env.clock)()
    }

    pub fn take_prewarmed(&self) -> Option<Instance> {
        // The prewarm permit is released here: from now on the evaluation permit counts the instance.
        let (instance, _) = self.prewarmed.instances.lock().as_mut()?.pop()?;
        self.prewarmed.changed.notify_one();
        Some(instance)
    }

    /// Prewarms one instance, in addition to `limits.prewarmed_instances`.
    pub async fn prewarm_one(&self) -> Result<(), Failure> {
        let instance = self.prewarm().await?;
        self.prewarmed.push((instance, None));
        Ok(())
    }

    /// Drops the prewarmed instances, because the next generation needs their permits. The task that created them is in the low-priority
    /// pool and may not run for a long time.
    pub fn retire(&self) {
        let instances = self.prewarmed.instances.lock().take();
        self.prewarmed.changed.notify_one();
        if instances.as_ref().is_none_or(Vec::is_empty) {
            return;
        }
        // Dropping large instances takes time.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(instances))),
            Err(_) => drop(instances),
        }
    }

    /// Creates an instance for a decision by `deadline`.
    pub async fn new_instance(&self, cpu_budget: Arc<CpuBudget>, deadline: Instant) -> Result<Instance, Failure> {
        self.instance_from(self.checkpoint.get(), cpu_budget, deadline).await
    }

    async fn instance_from(
        &self,
        checkpoint: Option<&Checkpoint>,
        cpu_budget: Arc<CpuBudget>,
        deadline: Instant,
    ) -> Result<Instance, Failure> {
        let PolicyContext { env, limits } = &*self.context;
        let mut instance = Instance::new(&self.policy, Arc::clone(env), limits, cpu_budget, deadline).await?;
        if let Some(checkpoint) = checkpoint {
            instance.restore(&self.policy, checkpoint, deadline).await?;
        }
        Ok(instance)
    }

    /// Saves the state of a prepared instance, if the policy has checkpoints and this state is the same in all instances.
    pub async fn save_checkpoint(&self) -> Result<(), Failure> {
        if self.policy.checkpoint().is_none() || self.checkpoint.get().is_some() {
            return Ok(());
        }
        let (budget, PolicyContext { env, limits }) = (Arc::<CpuBudget>::default(), &*self.context);
        let saved = Instance::checkpoint(&self.policy, Arc::clone(env), limits, Arc::clone(&budget));
        let Some(checkpoint) = budget.measure(saved).await? else { return Ok(()) };
        // A state that cannot be restored would fail every decision.
        budget.start_call();
        let restored = self.instance_from(Some(&checkpoint), Arc::clone(&budget), Instant::now() + limits.timeout);
        budget.measure(restored).await?;
        let _ = self.checkpoint.set(checkpoint);
        Ok(())
    }

    async fn prewarm(&self) -> Result<Instance, Failure> {
        let (budget, PolicyContext { env, limits }) = (Arc::<CpuBudget>::default(), &*self.context);
        // With a checkpoint there is nothing left to prepare.
        if self.checkpoint.get().is_some() {
            return budget.measure(self.new_instance(Arc::clone(&budget), Instant::now() + limits.timeout)).await;
        }
        budget.measure(Instance::prepared(&self.policy, Arc::clone(env), limits, Arc::clone(&budget))).await
    }
}

impl Drop for PolicyGeneration {
    fn drop(&mut self) {
        self.prewarmed.changed.notify_one();
    }
}

/// Saves the checkpoint of the policy, if it has one, then keeps `limits.prewarmed_instances` instances in the pool. Ends when the
/// generation is retired, or when an instance takes less than [`MIN_PREWARM_TIME`] to create and prepare.
async fn keep_prewarmed(generation: Weak<PolicyGeneration>, pool: Arc<PrewarmPool>, permits: Arc<Semaphore>) {
    let has_checkpoint = |generation: Arc<PolicyGeneration>| generation.policy.checkpoint().is_some();
    if generation.upgrade().is_some_and(has_checkpoint)
        && let Ok(_permit) = permits.acquire().await
        && let Some(generation) = generation.upgrade()
        && let Err(failure) = generation.save_checkpoint().await
    {
        tracing::warn!(policy = %generation.policy.digest(), %failure, "cannot prepare the state of new instances");
    }
    loop {
        let Some(target) = generation.upgrade().map(|generation| generation.context.limits.prewarmed_instances) else {
            return;
        };
        let Some(available) = pool.instances.lock().as_ref().map(Vec::len) else { return };
        if available >= target {
            pool.changed.notified().await;
            continue;
        }
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            () = pool.changed.notified() => continue,
        };
        let (Ok(permit), Some(generation)) = (permit, generation.upgrade()) else { return };
        let start = Instant::now();
        match generation.prewarm().await {
            Ok(_) if start.elapsed() < MIN_PREWARM_TIME => return,
            Ok(instance) => pool.push((instance, Some(permit))),
            Err(failure) => {
                tracing::warn!(policy = %generation.policy.digest(), %failure, "cannot prewarm an instance");
                drop(generation);
                tokio::time::sleep(PREWARM_RETRY_DELAY).await;
            }
        }
    }
}
