//! How a channel continues after the store fell back to an older state: after the last entry that is left of
//! those that it delivered.

use crate::channel::frame::{Gap, GapReason};
use crate::channel::sequencer::Sequencer;
use crate::event::StreamId;
use crate::store::{Page, StreamState};

impl Sequencer {
    /// The stream ends before the position that was read. Chooses the position for a read that finds the entries that are left of those that
    /// were delivered, and those that were added since: after the last entries that were read, or before the first one of which a
    /// notification arrived. All entries of a key that did not exist meanwhile were added since.
    pub(super) fn begin_reset(&mut self, stream: &StreamState) {
        let after = self.reset_from.unwrap_or(self.delivered_to);
        let kept = if self.is_missing { StreamId::ZERO } else { self.history.after().min(stream.last) };
        let notified = self.pending.range(StreamId::ZERO..=stream.last).next().map(|first| first.event.id.before());
        self.staged.clear();
        self.read_to = notified.map_or(kept, |notified| notified.min(kept));
        self.delivered_to = self.read_to;
        self.reset_from = Some(after);
    }

    /// Continues after the last entry of this page that is known.
    pub(super) fn finish_reset(&mut self, after: StreamId, page: &Page) -> Gap {
        let known = page.entries.iter().take_while(|(id, body)| self.history.has(*id, body)).last();
        let resumed = known.map_or(self.read_to, |(id, _)| *id);
        self.restart(resumed);
        self.is_uncounted = true;
        gap(after, resumed)
    }
}

pub(super) const fn gap(after: StreamId, resumed: StreamId) -> Gap {
    Gap { after: Some(after), resumed, certain: true, reason: GapReason::StoreReset }
}
