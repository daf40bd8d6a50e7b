//! Reads of the store for one stream: a replay of events from before the channel's event buffer, or of events that a slow
//! stream missed because they were evicted from the buffer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::frame::{Gap, GapReason, SequencedFrame};
use crate::channel::membership::Cursor;
use crate::event::{Body, StreamId, user_frame};
use crate::store::Page;
use crate::stream::StreamContext;
use crate::stream::replay_budget::PendingPage;
use crate::util::backoff::Backoff;
use crate::util::client_key::ClientKey;

/// Entries of one read. A larger entry comes in a page of its own.
const PAGE_BYTES: usize = 64 * 1024;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

pub struct ReplayPage {
    /// The frames that were not delivered yet.
    pub pending: Arc<PendingPage>,
    /// The result of the read, without the entries.
    pub page: Page,
    /// The id of the last entry, or the position that was read after.
    pub end: StreamId,
}

/// Reads one page after a cursor on behalf of a client. It retries until the store answers and the key holds a stream. `is_first` is the
/// first read of a replay: a deleted entry in the middle of the stream is reported by that read only.
pub async fn read_page(
    context: StreamContext,
    client: Arc<ClientKey>,
    channel: Arc<str>,
    cursor: Cursor,
    is_first: bool,
) -> ReplayPage {
    let (StreamContext { hub, replay_budget, .. }, after) = (context, cursor.position);
    let (mut bytes, mut backoff) = (PAGE_BYTES, Backoff::new(RETRY_MIN, RETRY_MAX));
    hub.metrics().replay_page(is_first);
    let (mut page, permit) = loop {
        let turn = replay_budget.turns.acquire(&client).await;
        let permit = replay_budget.acquire(bytes).await;
        match hub.read(&channel, after, bytes).await {
            Ok(Page { needs: Some(needs), .. }) => bytes = needs,
            Ok(page) => break (page, permit),
            Err(_) => {
                // Other replays may use the memory meanwhile.
                drop((turn, permit));
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    };
    let mut frames = VecDeque::with_capacity(page.entries.len() + 1);
    if let Some((gap, position)) = gap_before(&cursor, is_first, &page) {
        frames.push_back(gap.frame(position, &channel));
    }
    let mut end = after;
    for (id, body) in page.entries.drain(..) {
        if body == Body::TooLarge {
            let gap = Gap { after: Some(end), resumed: id, certain: true, reason: GapReason::TooLarge };
            frames.push_back(gap.frame(id, &channel));
        } else if let Some((event, data)) = body.into_event() {
            let bytes = user_frame(id, &event, &data, &channel);
            frames.push_back(SequencedFrame { position: id, bytes, gap: None });
        }
        end = id;
    }
    frames.iter().filter_map(|frame| frame.gap).for_each(|reason| hub.metrics().gap(reason.as_str()));
    ReplayPage { pending: replay_budget.add_page(frames, permit), page, end }
}

/// The gap between a position and the page that was read after it, if entries are or may be missing, and the position of a
/// client that has received the gap. Trimming leaves no trace but the number of entries that were ever added.
fn gap_before(cursor: &Cursor, is_first: bool, page: &Page) -> Option<(Gap, StreamId)> {
    let Cursor { position: after, existed_to, is_entry, .. } = *cursor;
    let gap = |resumed, certain| Gap { after: Some(after), resumed, certain, reason: GapReason::Trimmed };
    let Some(stream) = page.stream else {
        let resumed = existed_to.max(after);
        return (after > StreamId::ZERO && is_first).then(|| (gap(resumed, existed_to > after), resumed));
    };
    if after >= stream.last {
        return None;
    }
    match stream.first {
        // No id fits between the position and the first entry.
        Some(first) if first > after && first.before() == after => None,
        Some(first) if first > after => {
            // A stream that never lost an entry, and does not have the one that the client received, was created again.
            let is_new = is_entry && is_first && stream.added == stream.length;
            let certain =
                after == StreamId::ZERO || stream.max_deleted > after || (existed_to > after && first > existed_to);
            (stream.added > stream.length || is_new).then(|| (gap(first, certain), first.before()))
        }
        // An entry was deleted somewhere after the position. The position stays, so that a client that reconnects now does
        // not miss the entries before the deleted one.
        Some(_) => (stream.max_deleted > after && is_first).then(|| (gap(stream.last, true), after)),
        None => Some((gap(stream.last, after == StreamId::ZERO || existed_to > after), stream.last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StreamState;

    fn id(ms: u64) -> StreamId {
        StreamId::new(ms, 0)
    }

    fn gap_after(after: u64, existed_to: u64, is_entry: bool, page: &Page) -> Option<(Gap, StreamId)> {
        let mut cursor = Cursor::default();
        (cursor.position, cursor.existed_to, cursor.is_entry) = (id(after), id(existed_to), is_entry);
        gap_before(&cursor, true, page)
    }

    #[test]
    fn gap_is_reported_where_the_store_does_not_prove_continuity() {
        let check = |after, existed_to, first, added, length, max_deleted, expect: Option<(u64, StreamId, bool)>| {
            let stream = StreamState { last: id(100), added, length, first, max_deleted: id(max_deleted) };
            let page = Page { stream: Some(stream), ..Page::default() };
            let gap = gap_after(after, existed_to, false, &page);
            assert_eq!(gap.map(|(gap, at)| (gap.resumed.ms, at, gap.certain)), expect, "after {after}");
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
        let no_key = Page::default();
        assert_eq!(gap_after(0, 0, true, &no_key), None);
        assert_eq!(gap_after(5, 0, true, &no_key).map(|(gap, _)| gap.certain), Some(false));
        // Created again: the entry that the client received is not there, and yet none was ever dropped.
        let stream = StreamState { last: id(100), added: 1, length: 1, first: Some(id(100)), ..StreamState::default() };
        let recreated = Page { stream: Some(stream), ..Page::default() };
        assert_eq!(gap_after(5, 0, true, &recreated).map(|(gap, _)| gap.certain), Some(false));
        assert_eq!(gap_after(5, 0, false, &recreated), None);
    }
}
