//! The active policy: one generation that is replaced atomically, and the retired generations that still finish decisions.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::authz::generation::{Activation, PolicyGeneration};
use crate::authz::in_flight::{InFlight, InFlightGuard};
use crate::policy::info::PolicyInfo;

pub struct ActivePolicy {
    current: ArcSwapOption<PolicyGeneration>,
    /// Locked for the whole of a swap, so that generations increase in the order of activation.
    retired: Mutex<Vec<RetiredEntry>>,
    /// The generation of the last activation.
    generations: watch::Sender<u64>,
    /// One permit per prewarmed instance of all generations together.
    prewarm_permits: Arc<Semaphore>,
}

struct RetiredEntry {
    info: Arc<PolicyInfo>,
    generation: Weak<PolicyGeneration>,
    in_flight: Arc<InFlight>,
}

impl RetiredEntry {
    /// Decisions in progress: each has a reference to its generation.
    fn decisions(&self) -> usize {
        self.generation.strong_count()
    }
}

/// A replaced policy generation that still finishes decisions.
#[derive(Clone, Debug)]
pub struct RetiredGeneration {
    pub info: Arc<PolicyInfo>,
    /// Decisions in progress.
    pub decisions: usize,
}

/// A completed activation: the new generation makes every decision that begins from now on.
pub struct Swap {
    /// The new active policy.
    pub info: Arc<PolicyInfo>,
    retired: Vec<Arc<InFlight>>,
}

impl Swap {
    /// Waits until no response of a retired generation is being written: a few milliseconds, or as long as a decision may take. Every
    /// response after this was decided by the new generation.
    pub async fn drained(self) -> Arc<PolicyInfo> {
        for in_flight in &self.retired {
            in_flight.drained().await;
        }
        self.info
    }
}

impl ActivePolicy {
    /// No policy is active yet. The size of the instance pool does not change while the process runs, and so neither does
    /// `prewarmed_instances`.
    pub fn new(prewarmed_instances: usize) -> Self {
        // Enough for two generations: during a swap both have prewarmed instances.
        let prewarm_permits = prewarmed_instances.saturating_mul(2).min(Semaphore::MAX_PERMITS);
        Self {
            current: ArcSwapOption::empty(),
            retired: Mutex::default(),
            generations: watch::Sender::default(),
            prewarm_permits: Arc::new(Semaphore::new(prewarm_permits)),
        }
    }

    pub fn load(&self) -> Option<Arc<PolicyGeneration>> {
        self.current.load_full()
    }

    /// A guard of this generation, if it is still active.
    pub fn guard_if_active(&self, generation: &Arc<PolicyGeneration>) -> Option<InFlightGuard> {
        let guard = generation.in_flight.guard();
        // `swap` stores the generation and then reads the count. The order is the other way round here, so that at least one of the two
        // sees what the other wrote.
        fence(Ordering::SeqCst);
        let is_active = self.current.load().as_ref().is_some_and(|active| Arc::ptr_eq(active, generation));
        is_active.then_some(guard)
    }

    /// The active generation with a guard.
    pub fn load_guarded(&self) -> Option<(Arc<PolicyGeneration>, InFlightGuard)> {
        loop {
            let generation = self.load()?;
            if let Some(guard) = self.guard_if_active(&generation) {
                return Some((generation, guard));
            }
        }
    }

    /// Activates a policy and retires the one before it.
    pub fn swap(&self, activation: Activation) -> Swap {
        let mut retired = self.retired.lock();
        let number = *self.generations.borrow() + 1;
        let generation = PolicyGeneration::new(activation, number, Arc::clone(&self.prewarm_permits));
        let info = Arc::clone(&generation.info);
        if let Some(previous) = self.current.swap(Some(generation)) {
            let (info, in_flight) = (Arc::clone(&previous.info), Arc::clone(&previous.in_flight));
            previous.retire();
            retired.push(RetiredEntry { info, generation: Arc::downgrade(&previous), in_flight });
        }
        fence(Ordering::SeqCst);
        retired.retain(|entry| entry.decisions() > 0 || entry.in_flight.count() > 0);
        self.generations.send_replace(number);
        Swap { info, retired: retired.iter().map(|entry| Arc::clone(&entry.in_flight)).collect() }
    }

    /// The generation of the active policy; 0 before the first activation.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.generations.subscribe()
    }

    /// Retired generations with decisions in progress.
    pub fn retired(&self) -> Vec<RetiredGeneration> {
        let describe =
            |entry: &RetiredEntry| RetiredGeneration { info: Arc::clone(&entry.info), decisions: entry.decisions() };
        self.retired.lock().iter().map(describe).filter(|retired| retired.decisions > 0).collect()
    }

    /// Responses of all generations that are being written.
    pub fn in_flight(&self) -> usize {
        let retired = self.retired.lock();
        let active = self.current.load().as_ref().map_or(0, |generation| generation.in_flight.count());
        active + retired.iter().map(|entry| entry.in_flight.count()).sum::<usize>()
    }
}
