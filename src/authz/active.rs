//! The version in force: one value, replaced at one moment, and what is left of those before it.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use crate::authz::generation::{Activation, PolicyGeneration};
use crate::authz::in_flight::{InFlight, InFlightGuard};
use crate::policy::info::PolicyInfo;

/// The version in force, if there is one.
#[derive(Default)]
pub struct ActivePolicy {
    now: ArcSwapOption<PolicyGeneration>,
    swapped: Mutex<SwapState>,
    numbers: watch::Sender<u64>,
    /// Places for instances that are made ahead, of all versions together: so many as the pool has for them.
    ahead: OnceLock<Arc<Semaphore>>,
}

#[derive(Default)]
struct SwapState {
    number: u64,
    old: Vec<Retired>,
}

/// A version that is in force no longer.
struct Retired {
    info: Arc<PolicyInfo>,
    version: Weak<PolicyGeneration>,
    pins: Arc<InFlight>,
}

impl Retired {
    /// Decisions of it that are being made.
    fn decisions(&self) -> usize {
        self.version.strong_count()
    }

    fn is_gone(&self) -> bool {
        self.decisions() == 0 && self.pins.count() == 0
    }
}

/// A version that is in force no longer, as long as decisions of it are being made.
#[derive(Clone, Debug)]
pub struct RetiredGeneration {
    /// What it is.
    pub info: Arc<PolicyInfo>,
    /// Decisions that were begun under it and are not done.
    pub decisions: usize,
}

/// A swap that was done: decisions that begin from now on are made by what is in force now.
pub struct Swap {
    /// What is in force.
    pub info: Arc<PolicyInfo>,
    old: Vec<Arc<InFlight>>,
}

impl Swap {
    /// Waits until no answer of an older version is on its way out any more: a few milliseconds, or as long as a decision may take.
    /// Whatever is answered behind this is the new version's word.
    pub async fn acknowledged(self) -> Arc<PolicyInfo> {
        for pins in &self.old {
            pins.gone().await;
        }
        self.info
    }
}

impl ActivePolicy {
    /// What is in force.
    pub fn load(&self) -> Option<Arc<PolicyGeneration>> {
        self.now.load_full()
    }

    fn is(&self, version: &Arc<PolicyGeneration>) -> bool {
        self.now.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, version))
    }

    /// Pins a version that is in force behind this; none if it is not.
    pub fn pin(&self, version: &Arc<PolicyGeneration>) -> Option<InFlightGuard> {
        let pin = version.pins.pin();
        // Whoever swaps stores first and counts then; here it is the other way round, so that one of the two sees the other.
        fence(Ordering::SeqCst);
        self.is(version).then_some(pin)
    }

    /// What is in force, pinned.
    pub fn pinned(&self) -> Option<(Arc<PolicyGeneration>, InFlightGuard)> {
        loop {
            let version = self.load()?;
            if let Some(pin) = self.pin(&version) {
                return Some((version, pin));
            }
        }
    }

    /// Puts the next version in force.
    pub fn swap(&self, next: Activation) -> Swap {
        // Held for the whole, so that numbers are in the order in which versions took force.
        let mut swapped = self.swapped();
        swapped.number += 1;
        // Two versions' worth: while one replaces another both have some. How many that is does not change while a process runs.
        let places = || {
            Arc::new(Semaphore::new(
                next.context.limits.prewarmed_instances.saturating_mul(2).min(Semaphore::MAX_PERMITS),
            ))
        };
        let ahead = Arc::clone(self.ahead.get_or_init(places));
        let version = PolicyGeneration::new(next, swapped.number, ahead);
        let info = Arc::clone(&version.info);
        if let Some(before) = self.now.swap(Some(version)) {
            let (info, pins) = (Arc::clone(&before.info), Arc::clone(&before.pins));
            before.retire();
            swapped.old.push(Retired { info, version: Arc::downgrade(&before), pins });
        }
        fence(Ordering::SeqCst);
        swapped.old.retain(|old| !old.is_gone());
        let old = swapped.old.iter().map(|old| Arc::clone(&old.pins)).collect();
        self.numbers.send_replace(info.number);
        Swap { info, old }
    }

    /// The number of what is in force. Whoever knows the number of now is told of the next one.
    pub fn numbers(&self) -> watch::Receiver<u64> {
        self.numbers.subscribe()
    }

    /// Versions that are in force no longer and still decide about somebody.
    pub fn old(&self) -> Vec<RetiredGeneration> {
        let old = |old: &Retired| RetiredGeneration { info: Arc::clone(&old.info), decisions: old.decisions() };
        self.swapped().old.iter().map(old).filter(|old| old.decisions > 0).collect()
    }

    /// Answers that are on their way out, of all versions.
    pub fn pins(&self) -> usize {
        let swapped = self.swapped();
        let now = self.now.load().as_ref().map_or(0, |version| version.pins.count());
        now + swapped.old.iter().map(|old| old.pins.count()).sum::<usize>()
    }

    fn swapped(&self) -> MutexGuard<'_, SwapState> {
        self.swapped.lock()
    }
}
