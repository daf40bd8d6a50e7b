//! What a stream reads from the store by itself: a replay from before the channel's log, or what a slow reader fell behind.
//! All that these hold on a node comes out of one budget; who reads nothing may lose what it holds, and reads it again.

use crate::telemetry::metrics::metrics;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::gap::{Gap, GapReason};
use crate::channel::hub::Hub;
use crate::channel::sequencer::SequencedFrame;
use crate::event::{Body, StreamId, user_frame};
use crate::store::Page;
use crate::stream::replay_budget::{PendingPage, ReplayBudget};
use crate::util::backoff::Backoff;

/// One read of a replay, in bytes of entries. A larger entry comes alone.
const PAGE: usize = 64 * 1024;
/// The first and the longest delay before a failed read is tried again.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

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
    let (mut bytes, mut backoff) = (PAGE, Backoff::new(RETRY_MIN, RETRY_MAX));
    metrics().replay_page(request.first);
    let (mut page, room) = loop {
        let room = budget.take(bytes).await;
        match hub.read(channel, after, bytes).await {
            Ok(Page { needs: Some(needs), .. }) => bytes = needs,
            Ok(page) => break (page, room),
            Err(_) => {
                drop(room);
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    };
    let mut items = VecDeque::with_capacity(page.entries.len() + 1);
    if let Some((gap, at)) = gap_before(&request, &page) {
        items.push_back(gap_item(&gap, at, channel));
    }
    let mut end = after;
    for (id, body) in page.entries.drain(..) {
        match body {
            Body::Event { event, data, .. } => {
                items.push_back(SequencedFrame {
                    position: id,
                    bytes: user_frame(id, &event, &data, channel),
                    gap: None,
                });
            }
            Body::TooLarge => {
                let gap = Gap { after: end, resumed: id, certain: true, reason: GapReason::TooLarge };
                items.push_back(gap_item(&gap, id, channel));
            }
            Body::Foreign => {}
        }
        end = id;
    }
    let slot = budget.hold(items, room);
    Fetched { slot, page, log_end: *log_end, end }
}

fn gap_item(gap: &Gap, at: StreamId, channel: &str) -> SequencedFrame {
    metrics().gap(gap.reason.as_str());
    SequencedFrame::gap(gap, at, channel)
}

/// What is or may be gone between a position and the page read behind it, and the position behind the gap. Trimming leaves
/// no trace but the number of entries ever added.
fn gap_before(request: &Request, page: &Page) -> Option<(Gap, StreamId)> {
    let Request { after, existed, first: first_read, is_entry, .. } = *request;
    let gap = |resumed, certain| Gap { after, resumed, certain, reason: GapReason::Trimmed };
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
}
