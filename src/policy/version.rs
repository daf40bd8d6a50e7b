//! What is in force at a moment, as one value: what decides, what it may see, and the instances that were made ahead for it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::cache::Cache;
use super::cases::Suite;
use super::component::Policy;
use super::host::Surroundings;
use super::in_force::Pins;
use super::instance::Instance;
use super::pace::Pace;
use super::signature::Statement;
use super::{Failure, Limits, slow_lane};
use crate::stream::now_ms;

/// An instance that is made in less than this is made when it is needed: to take one from a queue and to fill that again from
/// another thread costs about as much.
pub const WORTHWHILE: Duration = Duration::from_micros(100);
/// After an instance could not be made or prepared.
const BACK_OFF: Duration = Duration::from_secs(1);

/// All that a decision depends on beside the component.
pub struct Basis {
    /// What a policy may see, ask and reach.
    pub surroundings: Arc<Surroundings>,
    /// The bounds of one decision. Those of all together (`concurrency`, `queue_timeout`) are the gate's, from its beginning.
    pub limits: Limits,
}

/// What takes force next.
pub struct Next {
    /// What decides.
    pub policy: Policy,
    /// What it has around it.
    pub basis: Arc<Basis>,
    /// Where it comes from.
    pub origin: Origin,
    /// What came with it.
    pub papers: Papers,
}

/// What came with a component. It holds for the component whatever is around that, and is asked for again when that changes.
#[derive(Clone, Debug, Default)]
pub struct Papers {
    /// What it has to decide and what it requires.
    pub suite: Option<Arc<Suite>>,
    /// `sha256:…` of the text of its cases.
    pub cases: Option<Arc<str>>,
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// For people: `file policy.wasm`, `fleet`, `control port`.
    pub source: String,
    /// The number under which it was signed or pushed, where there is one. In a fleet it only goes upwards.
    pub sequence: Option<u64>,
    /// Whether a restart activates it again; false for a policy that could not be written to its file.
    pub persisted: bool,
    /// What was signed, where it had to be.
    #[serde(skip)]
    pub signed: Option<Statement>,
}

impl Default for Origin {
    fn default() -> Self {
        Self { source: String::new(), sequence: None, persisted: true, signed: None }
    }
}

/// What is in force, as it is told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct About {
    /// Counts the activations of this process, from 1.
    pub generation: u64,
    /// `sha256:…` of the component.
    #[serde(serialize_with = "as_text")]
    pub digest: Arc<str>,
    /// `sha256:…` of the cases that came with it.
    #[serde(serialize_with = "as_optional_text")]
    pub cases: Option<Arc<str>>,
    /// In force since, ms since 1970.
    pub since: u64,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
}

fn as_text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

fn as_optional_text<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(to)
}

/// A policy in force.
pub struct Version {
    /// What it is, for those who ask.
    pub about: Arc<About>,
    /// What decides.
    pub policy: Policy,
    /// What it answered and may answer again.
    pub cache: Cache,
    /// What it has around it.
    pub basis: Arc<Basis>,
    ready: Arc<Ready>,
    /// Answers of this version that are on their way out.
    pub pins: Arc<Pins>,
}

/// Instances that wait for their one decision.
struct Ready {
    /// None when the version is in force no longer.
    waiting: Mutex<Option<Vec<Ahead>>>,
    changed: Notify,
}

/// An instance that was made ahead, and after it its place among those: it is free when the instance is gone.
type Ahead = (Instance, Option<OwnedSemaphorePermit>);

impl Default for Ready {
    fn default() -> Self {
        Self { waiting: Mutex::new(Some(Vec::new())), changed: Notify::new() }
    }
}

impl Ready {
    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Ahead>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, instance: Ahead) {
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

impl Version {
    /// Makes one value of all that a decision depends on, and begins to make instances for it.
    pub fn new(next: Next, generation: u64, places: Arc<Semaphore>) -> Arc<Self> {
        let Next { policy, basis, origin, papers } = next;
        basis.surroundings.tokens.start();
        let about =
            About { generation, digest: Arc::clone(policy.digest()), cases: papers.cases, since: now_ms(), origin };
        let cache = Cache::new(basis.limits.cache, basis.limits.cache_max_age);
        let (about, ready, pins) = (Arc::new(about), Arc::default(), Arc::default());
        let version = Arc::new(Self { about, policy, cache, basis, ready, pins });
        if version.basis.limits.prepared > 0 {
            let filling = fill(Arc::downgrade(&version), Arc::clone(&version.ready), places);
            if let Err(failure) = slow_lane::spawn(filling) {
                tracing::warn!(%failure, "no instances are made ahead");
            }
        }
        version
    }

    /// What the policy takes for the time, ms since 1970.
    pub fn clock(&self) -> u64 {
        (self.basis.surroundings.clock)()
    }

    /// An instance that was made ahead, if there is one.
    pub fn take(&self) -> Option<Instance> {
        // From here on it counts among the decisions.
        let (instance, _) = self.ready.waiting().as_mut()?.pop()?;
        self.ready.changed.notify_one();
        Some(instance)
    }

    /// A new instance, by `deadline`, at a pace that whoever polls this sees.
    pub async fn make(&self, pace: Arc<Pace>, deadline: Instant) -> Result<Instance, Failure> {
        Instance::make(&self.policy, Arc::clone(&self.basis.surroundings), &self.basis.limits, pace, deadline).await
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
        let deadline = Instant::now() + self.basis.limits.timeout;
        let pace = Arc::<Pace>::default();
        let made = async {
            let mut instance = self.make(Arc::clone(&pace), deadline).await?;
            if let Some(preparation) = self.policy.preparation() {
                instance.prepare(preparation, deadline).await?;
            }
            Ok(instance)
        };
        let mut made = pin!(made);
        poll_fn(|cx| pace.poll(made.as_mut(), cx)).await
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        self.ready.changed.notify_one();
    }
}

/// Keeps `limits.prepared` instances ready as long as the version lives, unless it is quick enough without.
async fn fill(version: Weak<Version>, ready: Arc<Ready>, places: Arc<Semaphore>) {
    loop {
        let Some(wanted) = version.upgrade().map(|version| version.basis.limits.prepared) else { return };
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
