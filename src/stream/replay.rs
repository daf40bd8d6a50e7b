//! What a stream reads from the store by itself: a replay from before the channel's log, or what a slow reader fell behind.
//! All that these hold on a node comes out of one budget; who reads nothing may lose what it holds, and reads it again.

use crate::telemetry::metrics::Metrics;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::channel::hub::Hub;
use crate::channel::sequencer::{Gap, GapReason, SequencedFrame};
use crate::event::{Body, StreamId, user_frame};
use crate::store::Page;

/// One read of a replay, in bytes of entries. A larger entry comes alone.
const PAGE: usize = 64 * 1024;
/// What a page costs in memory: the answer as it came, its fields one by one, and the frames; small entries most of all.
const COST: usize = 4;
/// The budget's unit, in bytes.
const UNIT: usize = 1024;
/// After a read that failed, growing from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

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
    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
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

    fn hold(&self, slot: &Arc<PendingPage>) {
        let mut held = self.held();
        if held.len() >= 64 && held.len() == held.capacity() {
            held.retain(|slot| slot.strong_count() > 0);
        }
        held.push_back(Arc::downgrade(slot));
        drop(held);
        self.more.notify_waiters();
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

/// A page that was read.
pub struct Fetched {
    /// Its items.
    pub slot: Arc<PendingPage>,
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
    /// The position is that of an entry, as far as the client says.
    pub is_entry: bool,
    /// The log's end.
    pub log_end: u64,
}

/// Reads one page, however long the store stays away or the key is no stream.
pub async fn fetch(hub: Hub, budget: Arc<ReplayBudget>, request: Request) -> Fetched {
    let Request { channel, after, log_end, .. } = &request;
    let after = *after;
    let (mut bytes, mut delay) = (PAGE, RETRY.0);
    hub.metrics().replay_page(request.first);
    let (mut page, room) = loop {
        let room = budget.take(bytes).await;
        match hub.read(channel, after, bytes).await {
            Ok(Page { needs: Some(needs), .. }) => bytes = needs,
            Ok(page) => break (page, room),
            Err(_) => {
                drop(room);
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY.1);
            }
        }
    };
    let mut items = VecDeque::with_capacity(page.entries.len() + 1);
    if let Some((gap, at)) = gap_before(&request, &page) {
        items.push_back(gap_item(hub.metrics(), &gap, at, channel));
    }
    let mut end = after;
    for (id, body) in page.entries.drain(..) {
        match body {
            Body::Event { event, data, .. } => {
                items.push_back(SequencedFrame { at: id, frame: user_frame(id, &event, &data, channel), gap: None });
            }
            Body::TooLarge => {
                let gap = Gap { after: end, resumed: id, certain: true, why: GapReason::TooLarge };
                items.push_back(gap_item(hub.metrics(), &gap, id, channel));
            }
            Body::Foreign => {}
        }
        end = id;
    }
    let slot = Arc::new(PendingPage(Mutex::new(Some(BudgetGuard { items, _room: room }))));
    budget.hold(&slot);
    Fetched { slot, page, log_end: *log_end, end }
}

fn gap_item(metrics: &Metrics, gap: &Gap, at: StreamId, channel: &str) -> SequencedFrame {
    metrics.gap(gap.why.as_str());
    SequencedFrame { at, frame: gap.frame(channel), gap: Some(gap.why) }
}

/// What is or may be gone between a position and the page read behind it, and the position behind the gap. Trimming leaves
/// no trace but the number of entries ever added.
fn gap_before(request: &Request, page: &Page) -> Option<(Gap, StreamId)> {
    let Request { after, existed, first: first_read, is_entry, .. } = *request;
    let gap = |resumed, certain| Gap { after, resumed, certain, why: GapReason::Trimmed };
    let Some(stream) = page.stream else {
        let resumed = existed.max(after);
        return (after > StreamId::ZERO && first_read).then(|| (gap(resumed, existed > after), resumed));
    };
    if after >= stream.last {
        return None;
    }
    match stream.first {
        // Nothing fits between the position and the first entry.
        Some(first) if first > after && first.before() == after => None,
        Some(first) if first > after => {
            // A stream that never lost an entry, and yet does not have the one that the client saw: made anew.
            let anew = is_entry && first_read && stream.added == stream.length;
            let proven = after == StreamId::ZERO || stream.max_deleted > after || (existed > after && first > existed);
            (stream.added > stream.length || anew).then(|| (gap(first, proven), first.before()))
        }
        // Somewhere behind: the position stays, so that nothing is lost by one who leaves here.
        Some(_) => (stream.max_deleted > after && first_read).then(|| (gap(stream.last, true), after)),
        None => Some((gap(stream.last, after == StreamId::ZERO || existed > after), stream.last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StreamState;

    fn id(ms: u64) -> StreamId {
        StreamId::new(ms, 0)
    }

    fn request(after: u64, existed: u64, is_entry: bool) -> Request {
        Request { channel: "c".into(), after: id(after), existed: id(existed), first: true, is_entry, log_end: 0 }
    }

    #[test]
    fn gaps() {
        let check = |after, existed, first, added, length, max_deleted, expect: Option<(u64, StreamId, bool)>| {
            let stream = StreamState { last: id(100), added, length, first, max_deleted: id(max_deleted) };
            let page = Page { stream: Some(stream), ..Page::default() };
            let gap = gap_before(&request(after, existed, false), &page);
            assert_eq!(gap.map(|(g, at)| (g.resumed.ms, at, g.certain)), expect, "after {after}");
        };
        let before = |ms| id(ms).before();
        check(10, 0, Some(id(5)), 9, 9, 0, None);
        check(10, 0, Some(id(5)), 99, 9, 0, None);
        check(10, 0, Some(id(50)), 9, 9, 0, None);
        check(10, 0, Some(id(50)), 99, 9, 0, Some((50, before(50), false)));
        check(0, 0, Some(id(50)), 99, 9, 0, Some((50, before(50), true)));
        check(10, 40, Some(id(50)), 99, 9, 0, Some((50, before(50), true)));
        check(10, 60, Some(id(50)), 99, 9, 0, Some((50, before(50), false)));
        check(10, 0, None, 9, 0, 0, Some((100, id(100), false)));
        check(10, 0, Some(id(5)), 99, 9, 20, Some((100, id(10), true)));
        check(100, 0, None, 9, 0, 100, None);
        let gone = Page::default();
        assert_eq!(gap_before(&request(0, 0, true), &gone), None);
        assert_eq!(gap_before(&request(5, 0, true), &gone).map(|(g, _)| g.certain), Some(false));
        // Made anew: what the client saw is not there, and yet nothing was ever dropped.
        let stream = StreamState { last: id(100), added: 1, length: 1, first: Some(id(100)), ..StreamState::default() };
        let anew = Page { stream: Some(stream), ..Page::default() };
        assert_eq!(gap_before(&request(5, 0, true), &anew).map(|(g, _)| g.certain), Some(false));
        assert_eq!(gap_before(&request(5, 0, false), &anew), None);
    }

    #[tokio::test]
    async fn the_oldest_page_goes_when_room_is_short() {
        let budget = ReplayBudget::new(50 * COST * UNIT);
        let page = async || {
            let slot = Arc::new(PendingPage(Mutex::new(Some(BudgetGuard {
                items: VecDeque::new(),
                _room: budget.take(20 * UNIT).await,
            }))));
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
        let pages = reads.map(|room| {
            let slot = Arc::new(PendingPage(Mutex::new(Some(BudgetGuard { items: VecDeque::new(), _room: room }))));
            budget.hold(&slot);
            slot
        });
        let got = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        assert!(got.is_ok(), "it waits for ever");
        assert!(pages[0].lock().is_none() && pages[1].lock().is_some());
    }
}
