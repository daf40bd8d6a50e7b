//! What a stream reads from the store by itself: a replay from before the channel's log, or what a slow reader fell behind.
//! All that these hold on a node comes out of one budget; who reads nothing may lose what it holds, and reads it again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::channel::hub::Hub;
use crate::channel::order::{Gap, Out, Why};
use crate::event::{Body, StreamId, user_frame};
use crate::store::{Page, StoreError};

/// One read of a replay, in bytes of entries. A larger entry comes alone.
const PAGE: usize = 64 * 1024;
/// What a page costs in memory: its entries as the store sent them, and as frames.
const COST: usize = 2;
/// The budget's unit, in bytes.
const UNIT: usize = 1024;
/// After a read that failed, growing from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The bound on all pages of this node.
pub struct ReplayBudget {
    units: usize,
    free: Arc<Semaphore>,
    held: Mutex<VecDeque<Weak<Slot>>>,
}

impl ReplayBudget {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { units, free: Arc::new(Semaphore::new(units)), held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<Weak<Slot>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room, and makes some: the page that was read longest ago goes.
    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = u32::try_from((bytes * COST).div_ceil(UNIT).min(self.units)).unwrap_or(u32::MAX);
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(units) {
                return permit;
            }
            let oldest = self.held().pop_front();
            match oldest {
                Some(slot) => drop(slot.upgrade().map(|slot| slot.lock().take())),
                None => {
                    // All of it is with reads under way, which end. The semaphore is never closed.
                    if let Ok(permit) = Arc::clone(&self.free).acquire_many_owned(units).await {
                        return permit;
                    }
                }
            }
        }
    }

    fn hold(&self, slot: &Arc<Slot>) {
        let mut held = self.held();
        if held.len() >= 64 && held.len() == held.capacity() {
            held.retain(|slot| slot.strong_count() > 0);
        }
        held.push_back(Arc::downgrade(slot));
    }
}

/// Where a page lies; empty once it was taken back.
#[derive(Default)]
pub struct Slot(Mutex<Option<Held>>);

/// A page that waits for its client.
pub struct Held {
    /// What the client has not been sent yet.
    pub items: VecDeque<Out>,
    _room: OwnedSemaphorePermit,
}

impl Slot {
    /// The page, for as long as it is needed to hand something out.
    pub fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page that was read.
pub struct Fetched {
    /// Its items.
    pub slot: Arc<Slot>,
    /// What the read said of the stream, without the entries.
    pub page: Page,
    /// The log's end before the read.
    pub log_end: u64,
    /// The position behind the last entry.
    pub end: StreamId,
}

/// What is to be fetched.
pub struct Request {
    /// The channel.
    pub channel: Arc<str>,
    /// The position to read after.
    pub after: StreamId,
    /// Something up to here did exist.
    pub existed: StreamId,
    /// The first read of a replay: what was deleted in the middle is told once.
    pub first: bool,
    /// The log's end.
    pub log_end: u64,
}

/// Reads one page, however long the store stays away.
pub async fn fetch(hub: Hub, budget: Arc<ReplayBudget>, request: Request) -> Result<Fetched, StoreError> {
    let Request { channel, after, existed, first, log_end } = request;
    let (mut bytes, mut delay) = (PAGE, RETRY.0);
    let (mut page, room) = loop {
        let room = budget.take(bytes).await;
        match hub.read(&channel, after, bytes).await {
            Ok(Page { needs: Some(needs), .. }) => bytes = needs,
            Ok(page) => break (page, room),
            Err(StoreError::WrongType) => return Err(StoreError::WrongType),
            Err(_) => {
                drop(room);
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY.1);
            }
        }
    };
    let mut items = VecDeque::with_capacity(page.entries.len() + 1);
    if let Some(gap) = gap_before(after, existed, first, &page) {
        items.push_back(Out { at: gap.resumed.before().max(after), frame: gap.frame(&channel) });
    }
    let mut end = after;
    for (id, body) in page.entries.drain(..) {
        match body {
            Body::Event { event, data, .. } => {
                items.push_back(Out { at: id, frame: user_frame(id, &event, &data, &channel) });
            }
            Body::TooLarge => {
                let gap = Gap { after: end, resumed: id, certain: true, why: Why::TooLarge };
                items.push_back(Out { at: id, frame: gap.frame(&channel) });
            }
            Body::Foreign => {}
        }
        end = id;
    }
    let slot = Arc::new(Slot(Mutex::new(Some(Held { items, _room: room }))));
    budget.hold(&slot);
    Ok(Fetched { slot, page, log_end, end })
}

/// What is or may be gone between a position and the page read behind it. Trimming leaves no trace but the number of entries
/// ever added.
fn gap_before(after: StreamId, existed: StreamId, first_read: bool, page: &Page) -> Option<Gap> {
    let Some(stream) = page.stream else {
        let gap = Gap { after, resumed: existed.max(after), certain: existed > after, why: Why::Trimmed };
        return (after > StreamId::ZERO && first_read).then_some(gap);
    };
    if after >= stream.last {
        return None;
    }
    let trimmed = stream.first.is_none_or(|first| first > after) && stream.added > stream.length;
    let deleted = stream.max_deleted > after && first_read;
    let resumed = stream.first.filter(|first| *first > after).unwrap_or(stream.last);
    let proven = after == StreamId::ZERO || (existed > after && resumed > existed);
    (trimmed || deleted).then_some(Gap { after, resumed, certain: deleted || proven, why: Why::Trimmed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StreamState;

    #[test]
    fn gaps() {
        let id = |ms| StreamId::new(ms, 0);
        let check = |after, existed, first, added, length, max_deleted, expect: Option<(u64, bool)>| {
            let stream = StreamState { last: id(100), added, length, first, max_deleted: id(max_deleted) };
            let page = Page { stream: Some(stream), ..Page::default() };
            let gap = gap_before(id(after), id(existed), true, &page);
            assert_eq!(gap.map(|g| (g.resumed.ms, g.certain)), expect, "after {after}");
        };
        check(10, 0, Some(id(5)), 9, 9, 0, None);
        check(10, 0, Some(id(5)), 99, 9, 0, None);
        check(10, 0, Some(id(50)), 9, 9, 0, None);
        check(10, 0, Some(id(50)), 99, 9, 0, Some((50, false)));
        check(0, 0, Some(id(50)), 99, 9, 0, Some((50, true)));
        check(10, 40, Some(id(50)), 99, 9, 0, Some((50, true)));
        check(10, 60, Some(id(50)), 99, 9, 0, Some((50, false)));
        check(10, 0, None, 9, 0, 0, Some((100, false)));
        check(10, 0, Some(id(5)), 99, 9, 20, Some((100, true)));
        check(100, 0, None, 9, 0, 100, None);
        let gone = Page::default();
        assert_eq!(gap_before(StreamId::ZERO, StreamId::ZERO, true, &gone), None);
        assert_eq!(gap_before(id(5), StreamId::ZERO, true, &gone).map(|g| g.certain), Some(false));
    }

    #[tokio::test]
    async fn the_oldest_page_goes_when_room_is_short() {
        let budget = ReplayBudget::new(100 * UNIT);
        let page = async || {
            let slot =
                Arc::new(Slot(Mutex::new(Some(Held { items: VecDeque::new(), _room: budget.take(20 * UNIT).await }))));
            budget.hold(&slot);
            slot
        };
        let (a, b) = (page().await, page().await);
        assert!(a.lock().is_some() && b.lock().is_some());
        let c = page().await;
        assert!(a.lock().is_none() && b.lock().is_some() && c.lock().is_some());
        drop(c);
        let d = page().await;
        assert!(b.lock().is_some() && d.lock().is_some(), "what a client let go makes room by itself");
    }
}
