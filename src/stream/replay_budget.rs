//! The memory of replays.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::channel::sequencer::SequencedFrame;

/// What a page costs in memory: the answer as it came, its fields one by one, and the frames; small entries most of all.
const COST: usize = 4;
/// The budget's unit, in bytes.
const UNIT: usize = 1024;

/// The bound on all pages of this node.
pub struct ReplayBudget {
    units: usize,
    free: Arc<Semaphore>,
    held: Mutex<VecDeque<Weak<PendingPage>>>,
    /// A read under way became a page, which can be taken back.
    more: Notify,
}

impl ReplayBudget {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { units, free: Arc::new(Semaphore::new(units)), held: Mutex::default(), more: Notify::new() }
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn used(&self) -> usize {
        self.units.saturating_sub(self.free.available_permits()) * UNIT
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<Weak<PendingPage>>> {
        self.held.lock()
    }

    /// Waits for room, and makes some: the page that was read longest ago goes.
    pub(super) async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = u32::try_from((bytes * COST).div_ceil(UNIT).min(self.units)).unwrap_or(u32::MAX);
        loop {
            // From before the look at what is held, so that no page comes unseen.
            let more = self.more.notified();
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(units) {
                return permit;
            }
            let oldest = self.held().pop_front();
            match oldest {
                Some(slot) => drop(slot.upgrade().map(|slot| slot.lock().take())),
                None => {
                    // All of it is with reads under way. They end as pages, perhaps of clients that never read: those have
                    // to be taken back too. The semaphore is never closed.
                    tokio::select! {
                        permit = Arc::clone(&self.free).acquire_many_owned(units) => if let Ok(permit) = permit {
                            return permit;
                        },
                        () = more => {}
                    }
                }
            }
        }
    }

    pub(super) fn hold(&self, items: VecDeque<SequencedFrame>, room: OwnedSemaphorePermit) -> Arc<PendingPage> {
        let slot = Arc::new(PendingPage(Mutex::new(Some(BudgetGuard { items, _room: room }))));
        let mut held = self.held();
        if held.len() >= 64 && held.len() == held.capacity() {
            held.retain(|slot| slot.strong_count() > 0);
        }
        held.push_back(Arc::downgrade(&slot));
        drop(held);
        self.more.notify_waiters();
        slot
    }
}

/// Where a page lies; empty once it was taken back.
#[derive(Default)]
pub struct PendingPage(Mutex<Option<BudgetGuard>>);

/// A page that waits for its client.
pub struct BudgetGuard {
    /// What the client has not been sent yet.
    pub items: VecDeque<SequencedFrame>,
    _room: OwnedSemaphorePermit,
}

impl PendingPage {
    /// The page, for as long as it is needed to hand something out.
    pub fn lock(&self) -> MutexGuard<'_, Option<BudgetGuard>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_oldest_page_goes_when_room_is_short() {
        let budget = ReplayBudget::new(50 * COST * UNIT);
        let page = async || {
            let room = budget.take(20 * UNIT).await;
            budget.hold(VecDeque::new(), room)
        };
        let (a, b) = (page().await, page().await);
        assert!(a.lock().is_some() && b.lock().is_some());
        let c = page().await;
        assert!(a.lock().is_none() && b.lock().is_some() && c.lock().is_some());
        drop(c);
        let d = page().await;
        assert!(b.lock().is_some() && d.lock().is_some(), "what a client let go makes room by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_reads_under_way_gets_what_they_become() {
        let budget = Arc::new(ReplayBudget::new(100 * UNIT));
        // All room is with reads under way when somebody else wants some.
        let reads = [budget.take(10 * UNIT).await, budget.take(10 * UNIT).await];
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { drop(budget.take(10 * UNIT).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        // They become pages of clients that do not read.
        let pages = reads.map(|room| budget.hold(VecDeque::new(), room));
        let got = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(got.is_ok(), "it waits for ever");
        assert!(pages[0].lock().is_none() && pages[1].lock().is_some());
    }
}
