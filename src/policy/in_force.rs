//! The version in force: one value, replaced at one moment, and what is left of those before it.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, Semaphore, watch};

use super::version::{About, Next, Version};

/// The version in force, if there is one.
#[derive(Default)]
pub struct InForce {
    now: ArcSwapOption<Version>,
    swapped: Mutex<Swapped>,
    numbers: watch::Sender<u64>,
    /// Places for instances that are made ahead, of all versions together: so many as the pool has for them.
    ahead: OnceLock<Arc<Semaphore>>,
}

#[derive(Default)]
struct Swapped {
    number: u64,
    old: Vec<Retired>,
}

/// A version that is in force no longer.
struct Retired {
    about: Arc<About>,
    version: Weak<Version>,
    pins: Arc<Pins>,
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
pub struct Old {
    /// What it is.
    pub about: Arc<About>,
    /// Decisions that were begun under it and are not done.
    pub decisions: usize,
}

/// A swap that was done: decisions that begin from now on are made by what is in force now.
pub struct Swap {
    /// What is in force.
    pub about: Arc<About>,
    old: Vec<Arc<Pins>>,
}

impl Swap {
    /// Waits until no answer of an older version is on its way out any more: a few milliseconds, or as long as a decision may take.
    /// Whatever is answered behind this is the new version's word.
    pub async fn acknowledged(self) -> Arc<About> {
        for pins in &self.old {
            pins.gone().await;
        }
        self.about
    }
}

/// The pins of one version.
#[derive(Default)]
pub struct Pins {
    count: AtomicUsize,
    none: Notify,
}

impl Pins {
    /// How many answers are on their way out.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until there is none. Meant for a version that is in force no longer.
    pub async fn gone(&self) {
        loop {
            let mut none = pin!(self.none.notified());
            // From here on a notification is seen.
            none.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            none.await;
        }
    }
}

/// An answer of a version is on its way out: a swap is not acknowledged while there is one of an older version.
pub struct Pin(Arc<Pins>);

impl Drop for Pin {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

impl InForce {
    /// What is in force.
    pub fn load(&self) -> Option<Arc<Version>> {
        self.now.load_full()
    }

    fn is(&self, version: &Arc<Version>) -> bool {
        self.now.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, version))
    }

    /// Pins a version that is in force behind this; none if it is not.
    pub fn pin(&self, version: &Arc<Version>) -> Option<Pin> {
        version.pins.count.fetch_add(1, Ordering::SeqCst);
        let pin = Pin(Arc::clone(&version.pins));
        // Whoever swaps stores first and counts then; here it is the other way round, so that one of the two sees the other.
        fence(Ordering::SeqCst);
        self.is(version).then_some(pin)
    }

    /// What is in force, pinned.
    pub fn pinned(&self) -> Option<(Arc<Version>, Pin)> {
        loop {
            let version = self.load()?;
            if let Some(pin) = self.pin(&version) {
                return Some((version, pin));
            }
        }
    }

    /// Puts the next version in force.
    pub fn swap(&self, next: Next) -> Swap {
        // Held for the whole, so that numbers are in the order in which versions took force.
        let mut swapped = self.swapped();
        swapped.number += 1;
        // Two versions' worth: while one replaces another both have some. How many that is does not change while a process runs.
        let places =
            || Arc::new(Semaphore::new(next.basis.limits.prepared.saturating_mul(2).min(Semaphore::MAX_PERMITS)));
        let ahead = Arc::clone(self.ahead.get_or_init(places));
        let version = Version::new(next, swapped.number, ahead);
        let about = Arc::clone(&version.about);
        if let Some(before) = self.now.swap(Some(version)) {
            let (about, pins) = (Arc::clone(&before.about), Arc::clone(&before.pins));
            before.retire();
            swapped.old.push(Retired { about, version: Arc::downgrade(&before), pins });
        }
        fence(Ordering::SeqCst);
        swapped.old.retain(|old| !old.is_gone());
        let old = swapped.old.iter().map(|old| Arc::clone(&old.pins)).collect();
        self.numbers.send_replace(about.generation);
        Swap { about, old }
    }

    /// The number of what is in force. Whoever knows the number of now is told of the next one.
    pub fn numbers(&self) -> watch::Receiver<u64> {
        self.numbers.subscribe()
    }

    /// Versions that are in force no longer and still decide about somebody.
    pub fn old(&self) -> Vec<Old> {
        let old = |old: &Retired| Old { about: Arc::clone(&old.about), decisions: old.decisions() };
        self.swapped().old.iter().map(old).filter(|old| old.decisions > 0).collect()
    }

    /// Answers that are on their way out, of all versions.
    pub fn pins(&self) -> usize {
        let swapped = self.swapped();
        let now = self.now.load().as_ref().map_or(0, |version| version.pins.count());
        now + swapped.old.iter().map(|old| old.pins.count()).sum::<usize>()
    }

    fn swapped(&self) -> MutexGuard<'_, Swapped> {
        self.swapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
