//! Reads of the store for one stream: a replay of events from before the channel's event buffer, or of events that a slow
//! stream missed because they were evicted from the buffer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::cursor::Cursor;
use crate::channel::frame::{Gap, GapReason, SequencedFrame};
use crate::channel::replay_source::{ProofToken, ReplaySource};
use crate::channel::sequencer::{has as is_in, start_after_unknown_loss};
use crate::event::{Body, StreamId, short_hash, user_frame};
use crate::store::{Page, ReadRequest};
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
    /// The page counts as long as the channel's proof from before the read.
    pub token: ProofToken,
    /// It is the first page of a replay.
    pub is_first: bool,
}

/// Reads one page after a cursor on behalf of a client. It retries until the store answers, the key holds a stream, and the channel has proven
/// what it read; `None` if the store was reset, so that the stream continues elsewhere. `is_first` is the first read of a replay: a deleted entry
/// in the middle of the stream is reported by that read only.
pub async fn read_page(
    context: StreamContext,
    client: Arc<ClientKey>,
    source: ReplaySource,
    cursor: Cursor,
    is_first: bool,
) -> Option<ReplayPage> {
    let StreamContext { hub, replay_budget, .. } = context;
    // The store lost the entry of the client's position: the read starts earlier; and `loss` is whether that is certain.
    let restart = cursor.restart.filter(|_| is_first).map(|restart| restart.max(cursor.floor));
    let (mut after, mut loss) = (restart.unwrap_or(cursor.position), restart.map(|_| true));
    let channel = Arc::clone(source.name());
    let (mut bytes, mut backoff) = (PAGE_BYTES, Backoff::new(RETRY_MIN, RETRY_MAX));
    // Entries that the channel read may have been deleted, so a page contradicts it at most once.
    let mut is_verified = false;
    let mut request =
        ReadRequest { after, is_entry: cursor.is_entry && loss.is_none(), notified: 0, wants_state: is_first };
    // The read starts before the entry that the client has received, to compare it.
    if is_first && cursor.is_unchecked && cursor.content.is_some() {
        (request.after, request.is_entry) = (after.before(), false);
    }
    hub.metrics().replay_page(is_first);
    let (mut page, permit, token) = loop {
        let token = source.proven(cursor.epoch()).await?;
        let turn = replay_budget.turns.acquire(&client).await;
        let permit = replay_budget.acquire(bytes).await;
        let mut result = hub.read(&channel, request, bytes).await;
        if let Ok(page) = &mut result
            && is_first
            && cursor.is_unchecked
            && loss.is_none()
            && page.needs.is_none()
            && source.is_current(token)
            && let Some(certain) = loss_at(&cursor, page)
        {
            // The client may lack any entry that the new master added after those that it still has.
            after = start_after_unknown_loss(cursor.position, page.last().unwrap_or_default()).max(cursor.floor);
            (request, bytes) = (ReadRequest::with_state(after), PAGE_BYTES);
            loss = Some(certain);
            continue;
        }
        match result {
            Ok(_) if !source.is_current(token) => {}
            Ok(Page { needs: Some(needs), .. }) => bytes = needs,
            Ok(page) if !is_verified && source.is_contradicted_by(after, &page, token) => {
                source.require_proof();
                is_verified = true;
            }
            Ok(page) => {
                drop(turn);
                let last = page.entries.last().map_or(after, |(id, _)| *id);
                if source.has_read(last, token).await {
                    break (page, permit, token);
                }
                drop(permit);
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(_) => {
                // Other replays may use the memory meanwhile.
                drop((turn, permit));
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    };
    let mut frames = VecDeque::with_capacity(page.entries.len() + 1);
    let gap = loss.and_then(|certain| gap_of_unknown_extent(&page, certain));
    if let Some((gap, position)) = gap.or_else(|| gap_before(&cursor, is_first, &page)) {
        frames.push_back(gap.frame(position, &channel));
    }
    let (mut end, received) = (after, source.lost());
    for (id, body) in page.entries.drain(..) {
        let content = short_hash(body.content_hash());
        if id <= cursor.received_to && is_in(&received, id, &body) {
            // The store lost it and has it again.
        } else if body == Body::TooLarge {
            let gap = Gap { after: Some(end), resumed: id, certain: true, reason: GapReason::TooLarge };
            frames.push_back(gap.frame(id, &channel));
        } else if let Some((event, data)) = body.into_event() {
            let bytes = user_frame(id, &event, &data, &channel);
            frames.push_back(SequencedFrame { position: id, content, bytes, gap: None });
        }
        end = id;
    }
    frames.iter().filter_map(|frame| frame.gap).for_each(|reason| hub.metrics().gap(reason.as_str()));
    Some(ReplayPage { pending: replay_budget.add_page(frames, permit), page, end, token, is_first })
}

/// Whether the page shows that the store lost the entry at the unchecked position of a client, or has another one there; and if so, whether it
/// is certain that entries are lost. Of a page that was read from before this entry, the entry is removed.
fn loss_at(cursor: &Cursor, page: &mut Page) -> Option<bool> {
    if let Some(received) = cursor.content {
        let found = page.take_entry(cursor.position).and_then(|body| short_hash(body.content_hash()));
        if found.is_some_and(|found| found != received) {
            return Some(false);
        }
    }
    let (stream, position) = (page.stream?, cursor.position);
    if position > stream.last {
        return Some(true);
    }
    // The entry is neither there nor trimmed. It may have been deleted; so may the last one, which nothing follows.
    let is_lost = !page.has_after && position < stream.last && stream.first.is_some_and(|first| first <= position);
    is_lost.then_some(stream.max_deleted < position && !cursor.is_time)
}

/// The gap before the first entry that a stream gets after a loss of unknown extent; `None` without a key.
fn gap_of_unknown_extent(page: &Page, certain: bool) -> Option<(Gap, StreamId)> {
    let first = page.entries.first().map(|(id, _)| *id);
    let resumed = first.or(page.last())?;
    let gap = Gap { after: None, resumed, certain, reason: GapReason::StoreReset };
    Some((gap, first.map_or(resumed, StreamId::before)))
}

/// The gap between a position and the page that was read after it, if entries are or may be missing, and the position of a
/// client that has received the gap. Trimming leaves no trace but the number of entries that were ever added.
fn gap_before(cursor: &Cursor, is_first: bool, page: &Page) -> Option<(Gap, StreamId)> {
    let Cursor { position: after, existed_to, is_entry, .. } = *cursor;
    let gap = |resumed, certain| Gap { after: Some(after), resumed, certain, reason: GapReason::Trimmed };
    if !page.exists {
        let resumed = existed_to.max(after);
        // What the client has received is gone, too.
        let gap = Gap { after: None, ..gap(resumed, existed_to > after) };
        return (after > StreamId::ZERO && is_first).then_some((gap, resumed));
    }
    // Otherwise the entry at the position is there, and all that follow.
    let stream = page.stream?;
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
            let gap = Gap { after: Some(after).filter(|_| !is_new), ..gap(first, certain) };
            (stream.added > stream.length || is_new).then_some((gap, first.before()))
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
            let (last, max_deleted, has_last) = (id(100), id(max_deleted), false);
            let stream = StreamState { last, added, length, first, has_last, max_deleted };
            let page = Page { exists: true, stream: Some(stream), ..Page::default() };
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
        let found = |gap: Option<(Gap, StreamId)>| gap.map(|(gap, _)| (gap.after, gap.certain));
        assert_eq!(found(gap_after(5, 0, true, &no_key)), Some((None, false)));
        // Created again: the entry that the client received is not there, and yet none was ever dropped.
        let stream = StreamState { last: id(100), added: 1, length: 1, first: Some(id(100)), ..StreamState::default() };
        let recreated = Page { exists: true, stream: Some(stream), ..Page::default() };
        assert_eq!(found(gap_after(5, 0, true, &recreated)), Some((None, false)));
        assert_eq!(gap_after(5, 0, false, &recreated), None);
    }
}
