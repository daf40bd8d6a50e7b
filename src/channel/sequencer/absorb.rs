//! How a channel takes in the page of a read: what it stages, and how it finds out that the store was reset.

use tokio::time::Instant;

use crate::channel::sequencer::Sequencer;
use crate::channel::sequencer::lost::LostEntries;
use crate::channel::sequencer::proof::Comparison;
use crate::channel::sequencer::reset::StoreReset;
use crate::channel::sequencer::staged::{Hole, Staged};
use crate::event::{Body, StreamId, short_hash};
use crate::store::{Page, StreamState};

impl Sequencer {
    /// Takes in the page of a read for [`Self::request`]. Entries wait until `deadline` for their notifications; `None` for a read
    /// that catches up after a lost link, where the notifications were lost with it.
    ///
    /// Returns a reset if the store lost entries that were read: all staged entries were dropped, and streams continue after the position of
    /// the reset.
    pub fn absorb(&mut self, page: Page, deadline: Option<Instant>, now: Instant) -> Option<StoreReset> {
        self.pending.complete_read();
        if !page.exists {
            return self.absorb_no_stream();
        }
        if std::mem::take(&mut self.is_missing) {
            return self.absorb_new_stream(page, deadline, now);
        }
        let Some(stream) = page.stream else {
            self.absorb_entries(page, true, deadline, now);
            return None;
        };
        let Some(proof) = self.proof else {
            if self.is_contradictory(&page, &stream) {
                self.require_proof();
            } else {
                let is_anchored = page.has_after;
                self.absorb_entries(page, is_anchored, deadline, now);
            }
            return None;
        };
        let start = proof.request(&self.history).after;
        let (common, certain) = match proof.compare(&self.history, &page, &stream, self.read_to) {
            Comparison::Unfinished(proof) => {
                self.proof = Some(proof);
                return None;
            }
            Comparison::Proven { common } => {
                self.proof = None;
                if common.is_some() || self.trimmed(&page, &stream) >= 0 {
                    let is_anchored = common == Some(self.read_to);
                    self.absorb_entries(page, is_anchored, deadline, now);
                    return None;
                }
                (None, false)
            }
            Comparison::Diverged { common, certain } => (common, certain),
        };
        let reset = self.reset(common, certain, start, &page, &stream);
        if !self.is_reread_needed {
            let is_anchored = self.is_entry;
            self.absorb_entries(page, is_anchored, deadline, now);
        }
        Some(reset)
    }

    /// Whether the state of the stream shows that it holds less than before, or may do so.
    fn is_contradictory(&self, page: &Page, stream: &StreamState) -> bool {
        // The last entry that was read is neither there nor trimmed.
        let is_last_missing = self.is_entry
            && !page.has_after
            && (stream.added == stream.length || stream.first.is_some_and(|first| first <= self.read_to));
        is_last_missing || stream.last < self.read_to || self.trimmed(page, stream) < 0
    }

    /// The number of entries that were trimmed or deleted before they were read; negative if the stream counts fewer than were read. Until the
    /// end of the stream is reached, only the trimmed ones before its first entry can be counted.
    fn trimmed(&self, page: &Page, stream: &StreamState) -> i128 {
        let added = i128::from(stream.added) - i128::from(self.entries_added);
        if self.is_uncounted {
            0
        } else if page.complete {
            added - page.entries.iter().filter(|(id, _)| *id > self.read_to).count() as i128
        } else if stream.first.is_some_and(|first| first > self.read_to) {
            added - i128::from(stream.length)
        } else {
            0
        }
    }

    /// Stages the entries of a page that are after `read_to`. `is_anchored` means that the stream has an entry with the id `read_to`.
    fn absorb_entries(&mut self, page: Page, is_anchored: bool, deadline: Option<Instant>, now: Instant) {
        let after = self.read_to;
        let trimmed = page.stream.map_or(0, |stream| self.trimmed(&page, &stream));
        let entries: Vec<_> = page.entries.into_iter().filter(|(id, _)| *id > after).collect();
        let last = entries.last().map(|(id, _)| *id);
        let end = if page.complete {
            page.stream.map_or(last, |stream| Some(stream.last)).unwrap_or(after)
        } else {
            last.unwrap_or(after)
        };
        self.entries_added = match page.stream {
            Some(stream) if page.complete => stream.added,
            _ => self.entries_added.saturating_add_signed((entries.len() as i128 + trimmed.max(0)) as i64),
        };
        self.is_entry = last.map_or(is_anchored && end == after, |last| last == end);
        self.read_to = end;
        let deadline = deadline.filter(|_| !self.budgets.staged.is_exhausted());
        if let Some(stream) = page.stream {
            if let Ok(count @ 1..) = u64::try_from(trimmed) {
                // Trimming removes the oldest entries, so they were before the first one that was read.
                let resumed = entries.first().map_or(end, |(id, _)| *id);
                // If the last entry is there, nothing after it was trimmed: others were deleted, perhaps before it.
                let from = if is_anchored { self.counted_to } else { after };
                self.staged.push(Staged::Hole(self.hole(count, (from, after), resumed, &stream, deadline, now)));
            }
            // An entry that the proof found is there, whatever the stream counts.
            self.is_uncounted = !page.complete && (self.is_uncounted || trimmed < 0);
            self.counted_to = end;
            self.oldest = oldest_of(&stream).or(self.oldest);
            self.wants_state = false;
        }
        for (id, body) in entries {
            self.history.push(id, &body);
            if let Some(lost) = &mut self.lost {
                lost.read(id, &body);
            }
            let entry = self.stage(id, body, deadline);
            self.staged.push(entry);
        }
        // The other notifications have no entry here. In a hole it may have been trimmed. After the end of the stream it may follow, unless
        // the read began after the notification: then that was forged, or is of another database of this Redis.
        let holes: Vec<&Hole> = self.staged.holes().collect();
        let mut is_missed = false;
        self.pending.retain(|id, is_checked| {
            is_missed |= id > after && id <= end;
            if id <= end { holes.iter().any(|hole| hole.may_contain(id)) } else { !(page.complete && is_checked) }
        });
        // The count of entries tells whether it was deleted.
        self.wants_state |= is_missed && page.stream.is_none();
    }

    /// The key does not exist: it expired or was deleted. Nothing proves that the entries of notifications existed.
    fn absorb_no_stream(&mut self) -> Option<StoreReset> {
        let was_missing = std::mem::replace(&mut self.is_missing, true);
        if !was_missing {
            // They may return, as with another server.
            let read = self.history.split_off(StreamId::ZERO, false);
            self.lost = LostEntries::new(read);
            self.history.restart(self.read_to, false);
            self.is_entry = false;
        }
        let is_proof = self.proof.take().is_some();
        let mut is_notified = false;
        let (delivered_to, read_to) = (self.delivered_to, self.read_to);
        self.pending.retain(|id, is_checked| {
            is_notified |= id > read_to && is_checked;
            (id > delivered_to && id <= read_to) || !is_checked
        });
        // Entries may have been added and deleted: unnoticed by another server or without a subscription, and as notified otherwise.
        let existed = std::mem::take(&mut self.entries_added) > 0;
        (self.is_uncounted, self.wants_state) = (false, false);
        (existed && (is_proof || is_notified)).then(|| self.reset_to_nothing())
    }

    /// The first page of a key that did not exist before: all its entries are new.
    fn absorb_new_stream(&mut self, page: Page, deadline: Option<Instant>, now: Instant) -> Option<StoreReset> {
        self.proof = None;
        let stream = page.stream.unwrap_or_default();
        let is_after = stream.first.is_none_or(|first| first > self.read_to) && stream.last > self.read_to;
        let reset = (!is_after && self.read_to > StreamId::ZERO).then(|| {
            self.is_missing = true;
            let reset = self.reset(None, true, StreamId::ZERO, &page, &stream);
            self.is_missing = false;
            reset
        });
        self.absorb_entries(page, false, deadline, now);
        reset
    }

    fn stage(&mut self, id: StreamId, body: Body, deadline: Option<Instant>) -> Staged {
        let notification = self.pending.take(id);
        let content = short_hash(body.content_hash());
        let (event, data) = match (body, deadline) {
            (Body::TooLarge, _) => return Staged::TooLarge(id),
            (Body::Foreign, _) => return Staged::Skip(id),
            (Body::Event { event, data }, _) => (event, data),
            (Body::Untyped(event), Some(deadline)) if notification.is_none() => {
                return Staged::Untyped { id, event, deadline };
            }
            (Body::Untyped(untyped), _) => untyped.resolve(notification.as_ref()),
        };
        Staged::Event { id, content, frame: self.event_frame(id, &event, &data) }
    }

    /// The hole that `count` entries after `from` left that were trimmed before they were read. Trimming removes the oldest entries, so
    /// notifications supply ids before the first entry that the stream still has. One that catches up does not wait for any.
    fn hole(
        &self,
        count: u64,
        (from, after): (StreamId, StreamId),
        end: StreamId,
        stream: &StreamState,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Hole {
        let last = stream.first.map_or(stream.last, StreamId::before).max(after);
        match deadline.filter(|_| self.fill_holes && last > after) {
            Some(deadline) => Hole { count, from, end, after, last, deadline },
            None => Hole { count, from, end, after, last: after, deadline: now },
        }
    }
}

/// The first entry of a stream, and whether it never had an older one.
pub(super) fn oldest_of(stream: &StreamState) -> Option<(StreamId, bool)> {
    stream.first.map(|first| (first, stream.added == stream.length))
}
