//! The memory of all replays of a node. If a client does not read, its page may be reclaimed for another client; the stream
//! reads the page again when the client continues.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::channel::frame::SequencedFrame;
use crate::util::fair_queue::FairSemaphore;

/// Bytes of memory for a byte of entries: the reply, its decoded fields, and the frames. Small entries need the most.
const MEMORY_FACTOR: usize = 4;
/// Concurrent reads of all replays. Further ones wait for their client's turn, before they take memory.
const MAX_CONCURRENT_READS: usize = 32;
/// The bytes of one semaphore permit.
const PERMIT_BYTES: usize = 1024;
/// References to dropped pages are removed when the list is full and at least this long.
const MIN_PURGED_PAGES: usize = 64;

/// The limit on the pages of all replays.
pub struct ReplayBudget {
    /// A permit for each read in progress.
    pub(super) turns: FairSemaphore,
    permits: usize,
    free: Arc<Semaphore>,
    /// The pages that wait for their clients, oldest first.
    pages: Mutex<VecDeque<Weak<PendingPage>>>,
    page_added: Notify,
}

impl ReplayBudget {
    pub fn new(bytes: usize) -> Self {
        let permits = (bytes / PERMIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        let free = Arc::new(Semaphore::new(permits));
        let turns = FairSemaphore::new(MAX_CONCURRENT_READS);
        Self { turns, permits, free, pages: Mutex::default(), page_added: Notify::new() }
    }

    pub fn used_bytes(&self) -> usize {
        self.permits.saturating_sub(self.free.available_permits()) * PERMIT_BYTES
    }

    /// Waits for the memory of a read. While there is too little, it reclaims the oldest pages.
    pub(super) async fn acquire(&self, bytes: usize) -> OwnedSemaphorePermit {
        // A read that needs more than the whole budget gets the whole budget.
        let permits = (bytes * MEMORY_FACTOR).div_ceil(PERMIT_BYTES).min(self.permits);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        loop {
            // Created before the list is examined, so that a page that is added in between is noticed.
            let page_added = self.page_added.notified();
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(permits) {
                return permit;
            }
            let oldest = self.pages.lock().pop_front();
            match oldest {
                Some(page) => drop(page.upgrade().map(|page| page.lock().take())),
                None => {
                    // Reads in progress have all the memory. They become pages, perhaps of clients that never read; those
                    // have to be reclaimed too. The semaphore is never closed.
                    tokio::select! {
                        permit = Arc::clone(&self.free).acquire_many_owned(permits) => if let Ok(permit) = permit {
                            return permit;
                        },
                        () = page_added => {}
                    }
                }
            }
        }
    }

    /// Adds the frames of a finished read, with the memory that it acquired.
    pub(super) fn add_page(&self, frames: VecDeque<SequencedFrame>, permit: OwnedSemaphorePermit) -> Arc<PendingPage> {
        let page = Arc::new(Mutex::new(Some(UnsentFrames { frames, _permit: permit })));
        let mut pages = self.pages.lock();
        if pages.len() >= MIN_PURGED_PAGES && pages.len() == pages.capacity() {
            pages.retain(|page| page.strong_count() > 0);
        }
        pages.push_back(Arc::downgrade(&page));
        drop(pages);
        self.page_added.notify_waiters();
        page
    }
}

/// A page that waits for its client; `None` once it was reclaimed.
pub type PendingPage = Mutex<Option<UnsentFrames>>;

/// The frames of a page that were not sent yet, and their memory.
pub struct UnsentFrames {
    pub frames: VecDeque<SequencedFrame>,
    _permit: OwnedSemaphorePermit,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn oldest_page_is_reclaimed_when_memory_is_short() {
        let budget = ReplayBudget::new(50 * MEMORY_FACTOR * PERMIT_BYTES);
        let page = async || {
            let permit = budget.acquire(20 * PERMIT_BYTES).await;
            budget.add_page(VecDeque::new(), permit)
        };
        let (a, b) = (page().await, page().await);
        assert!(a.lock().is_some() && b.lock().is_some());
        let c = page().await;
        assert!(a.lock().is_none() && b.lock().is_some() && c.lock().is_some());
        drop(c);
        let d = page().await;
        assert!(b.lock().is_some() && d.lock().is_some(), "a dropped page frees its memory");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_read_reclaims_pages_that_are_added_later() {
        let budget = Arc::new(ReplayBudget::new(100 * PERMIT_BYTES));
        // Reads in progress have all the memory when another read wants some.
        let reads = [budget.acquire(10 * PERMIT_BYTES).await, budget.acquire(10 * PERMIT_BYTES).await];
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { drop(budget.acquire(10 * PERMIT_BYTES).await) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        // They become pages of clients that do not read.
        let pages = reads.map(|permit| budget.add_page(VecDeque::new(), permit));
        let acquired = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(acquired.is_ok(), "it waits for ever");
        assert!(pages[0].lock().is_none() && pages[1].lock().is_some());
    }
}
