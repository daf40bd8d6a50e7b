//! How a channel continues after the store fell back to an older state: after the last entry that is left of
//! those that it delivered.

use std::sync::Arc;

use crate::channel::sequencer::Sequencer;
use crate::channel::sequencer::history::EntryKey;
use crate::channel::sequencer::lost::LostEntries;
use crate::event::StreamId;
use crate::store::{Page, StreamState};

/// How far before its position a stream starts again after a loss of unknown extent: longer than a failover loses, as a rule. A replica that
/// received nothing for `repl-timeout`, by default 60 s, is not in sync, and ids that a new master adds follow its last entry, however slow its
/// clock is.
const UNKNOWN_LOSS_WINDOW_MS: u64 = 60_000;

/// The position after which a stream starts again that received everything up to `received`, when it is not known how much of that the store
/// lost. `last` is the store's last id.
pub fn start_after_unknown_loss(received: StreamId, last: StreamId) -> StreamId {
    StreamId::new(received.min(last).ms.saturating_sub(UNKNOWN_LOSS_WINDOW_MS), 0).before()
}

/// A reset of the store, and where the channel continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreReset {
    /// The position after which the channel delivers what the store has.
    pub position: StreamId,
    /// The last entry that was delivered and is left; `None` if no such entry is known.
    pub common: Option<StreamId>,
    /// The entry that is delivered next, or the last id of the stream.
    pub resumed: StreamId,
    /// The store proves that entries are lost.
    pub certain: bool,
    /// The last entries that were read after `position`.
    pub lost: Arc<[EntryKey]>,
}

impl Sequencer {
    /// Continues after the entry `common`. The page was read after the position `start`.
    pub(super) fn reset(
        &mut self,
        common: Option<StreamId>,
        certain: bool,
        start: StreamId,
        page: &Page,
        stream: &StreamState,
    ) -> StoreReset {
        let next = page.entries.first().map(|(id, _)| *id);
        let (position, resumed) = match (common, next) {
            (Some(common), _) => (common, None),
            // All entries of a key that did not exist meanwhile were added since.
            (None, _) if self.is_missing => (StreamId::ZERO, stream.first),
            (None, _) if self.is_created_again(stream) => (StreamId::ZERO, stream.first),
            // Entries before those that are remembered may be old ones, except those that were notified.
            (None, next) => match (self.pending.range(StreamId::ZERO..=start.min(stream.last)).next(), next) {
                (Some(notified), _) => (notified.event.id.before(), Some(notified.event.id)),
                // Nothing is left between the start of the history and this entry.
                (None, Some(_)) => (self.history.before(), next),
                (None, None) => (stream.last.min(self.history.before()), None),
            },
        };
        let (position, resumed) = match stream.first.filter(|_| common.is_none()) {
            Some(first) => {
                let start = start_after_unknown_loss(self.read_to, stream.last).max(first.before());
                // The entry that follows is not in this page.
                if start < position { (start, Some(stream.last)) } else { (position, resumed) }
            }
            None => (position, resumed),
        };
        let is_entry = common.is_some() || (position == stream.last && stream.has_last);
        self.restart_after(position, is_entry);
        let resumed = resumed.or_else(|| {
            let following = page.entries.iter().filter(|(id, _)| *id > position);
            let is_new = |(id, body): &&(StreamId, _)| self.lost.as_ref().is_none_or(|lost| !lost.has(*id, body));
            following.clone().find(is_new).map(|(id, _)| *id)
        });
        self.is_uncounted = true;
        // Otherwise the page has the entries after the position.
        self.is_reread_needed = position < start;
        let lost = self.lost_entries();
        StoreReset { position, common, resumed: resumed.unwrap_or(stream.last), certain, lost }
    }

    /// The key does not exist any more, and entries may be lost.
    pub(super) fn reset_to_nothing(&mut self) -> StoreReset {
        self.restart_after(StreamId::ZERO, false);
        let lost = self.lost_entries();
        StoreReset { position: StreamId::ZERO, common: None, resumed: StreamId::ZERO, certain: false, lost }
    }

    /// Whether this stream, without a common entry, is not an older state of the one that was read: it never lost an entry, and does not begin
    /// where that began. An older state can only begin there or earlier.
    fn is_created_again(&self, stream: &StreamState) -> bool {
        let (Some(first), Some((oldest, is_first))) = (stream.first, self.oldest) else { return false };
        stream.added == stream.length && (first > oldest || (is_first && first != oldest))
    }

    fn lost_entries(&self) -> Arc<[EntryKey]> {
        self.lost.as_ref().map_or_else(Arc::default, |lost| Arc::clone(lost.entries()))
    }

    fn restart_after(&mut self, position: StreamId, is_entry: bool) {
        let lost = self.history.split_off(position, is_entry);
        // Those of a key that does not exist were lost before.
        if !self.is_missing {
            self.lost = LostEntries::new(lost);
        }
        self.staged.clear();
        (self.delivered_to, self.read_to, self.counted_to, self.is_entry) = (position, position, position, is_entry);
        (self.proof, self.wants_state) = (None, false);
    }
}
