//! The order of one channel's events.
//!
//! The stream in the store is the source of truth: it says which entries exist, in which order, and what they contain. A notification only
//! says when to read, and whether an untyped value is a string. Where entries were trimmed before they were read, notifications are all that
//! is left of them. This is a state machine without clock, task, store or process-wide state: time and pages are arguments.

mod history;
mod pending;
mod reset;
mod staged;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::channel::budget::SequencerBudgets;
use crate::channel::frame::{Gap, GapReason, SequencedFrame};
use crate::channel::sequencer::history::ReadHistory;
use crate::channel::sequencer::pending::PendingNotifications;
use crate::channel::sequencer::staged::{Hole, Staged, StagedQueue};
use crate::event::{Body, EventNotification, StreamId, user_frame};
use crate::store::{Page, StreamState};

/// How long an entry that was read before its notification arrived waits for the notification, and missing entries for
/// theirs. A stock emitter publishes one round trip after it adds the entry. If it dies in between, the channel is delayed by
/// this time.
pub const NOTIFICATION_GRACE: Duration = Duration::from_millis(250);

/// The order of one channel.
#[derive(Debug)]
pub struct Sequencer {
    channel: Arc<str>,
    budgets: Arc<SequencerBudgets>,
    /// Whether notifications supply entries that were trimmed before they were read.
    fill_holes: bool,
    /// Everything up to here was delivered. The staged entries are between this and `read_to`.
    delivered_to: StreamId,
    /// Everything up to here was read.
    read_to: StreamId,
    /// Entries that were ever added to the stream, up to `read_to`. Trimming leaves no other trace.
    entries_added: u64,
    staged: StagedQueue,
    /// Notifications of entries after `read_to`, or in a staged hole; and of entries before that are not known, until a read shows whether the
    /// store was reset.
    pending: PendingNotifications,
    history: ReadHistory,
    /// The last read found no key, so every entry that it will have is added later.
    is_missing: bool,
    /// The store was reset to before this position, which was delivered. The next read finds the entries that are left.
    reset_from: Option<StreamId>,
    /// Since a reset `entries_added` is unknown, until the end of the stream is reached.
    is_uncounted: bool,
}

impl Sequencer {
    pub fn new(channel: Arc<str>, budgets: Arc<SequencerBudgets>, fill_holes: bool) -> Self {
        Self {
            channel,
            fill_holes,
            delivered_to: StreamId::ZERO,
            read_to: StreamId::ZERO,
            entries_added: 0,
            staged: StagedQueue::new(Arc::clone(&budgets)),
            pending: PendingNotifications::new(Arc::clone(&budgets)),
            history: ReadHistory::default(),
            is_missing: false,
            reset_from: None,
            is_uncounted: false,
            budgets,
        }
    }

    /// The position to read after.
    pub fn read_to(&self) -> StreamId {
        self.read_to
    }

    /// Whether reads have to pause until staged entries were delivered.
    pub fn is_full(&self) -> bool {
        self.staged.is_full()
    }

    /// Whether there are notifications that no read has checked.
    pub fn needs_read(&self) -> bool {
        self.pending.needs_read()
    }

    /// Starts at the end of the stream that this page was read from.
    pub fn open(&mut self, page: &Page) {
        self.pending.retain(|id, _| id > page.last());
        self.restart(page.last());
        self.entries_added = page.stream.map_or(0, |stream| stream.added);
        self.is_missing = page.stream.is_none();
        (self.reset_from, self.is_uncounted) = (None, false);
    }

    fn restart(&mut self, position: StreamId) {
        self.staged.clear();
        self.delivered_to = position;
        self.read_to = position;
        self.history.restart(position);
    }

    /// Whether the store was reset, and a read has to find the entries that are left.
    pub fn is_resetting(&self) -> bool {
        self.reset_from.is_some()
    }

    /// Takes in a notification. Returns whether a read is needed.
    pub fn notify(&mut self, notification: EventNotification) -> bool {
        let id = notification.id;
        if id <= self.delivered_to {
            // It is late, or of an entry that was added after the store was reset.
            let is_unknown = !self.history.has_id(id);
            if is_unknown {
                self.pending.add(notification);
            }
            return is_unknown;
        }
        if id <= self.read_to {
            let channel = &self.channel;
            self.staged.resolve(id, |untyped| {
                let (event, data) = untyped.resolve(Some(&notification));
                Staged::Event { id, frame: user_frame(id, &event, &data, channel) }
            });
            // Otherwise no entry with this id was trimmed: it is late, or forged.
            if !self.staged.holes().any(|hole| hole.may_contain(id)) {
                return false;
            }
        }
        // Over the budget, the entry is delivered as Redis stores it.
        self.pending.add(notification);
        true
    }

    /// A read begins. It finds the entries of all notifications that have arrived.
    pub fn begin_read(&mut self) {
        self.pending.begin_read();
    }

    /// Takes in the page of a read after `read_to`. Entries wait until `deadline` for their notifications; `None` for a read
    /// that catches up after a lost link, where the notifications were lost with it.
    ///
    /// Returns a gap if the store was reset: the stream ended before the position that was read, and all staged entries were dropped. A
    /// second read, from before the entries that were read last, has found where the streams have to continue.
    pub fn absorb(&mut self, page: Page, deadline: Option<Instant>, now: Instant) -> Option<Gap> {
        self.pending.complete_read();
        let Some(stream) = page.stream else { return self.absorb_no_stream(deadline.is_none()) };
        if stream.last < self.read_to {
            self.begin_reset(&stream);
            return None;
        }
        self.is_missing = false;
        let gap = self.reset_from.take().map(|after| self.finish_reset(after, &page));
        let after = self.read_to;
        let entries: Vec<_> = page.entries.into_iter().filter(|(id, _)| *id > after).collect();
        let end = if page.complete { stream.last } else { entries.last().map_or(after, |(id, _)| *id) };
        let added = i128::from(stream.added) - i128::from(self.entries_added);
        let read = entries.len() as i128;
        // Entries that were trimmed before they were read. Until the end of the stream is reached, only the trimmed ones
        // before its first entry can be counted.
        let trimmed = if self.is_uncounted {
            0
        } else if page.complete {
            added - read
        } else if stream.first.is_some_and(|first| first > after) {
            added - i128::from(stream.length)
        } else {
            0
        };
        self.entries_added = if page.complete {
            stream.added
        } else {
            self.entries_added.saturating_add_signed((read + trimmed.max(0)) as i64)
        };
        self.is_uncounted &= !page.complete;
        self.read_to = end;

        let deadline = deadline.filter(|_| !self.budgets.staged.is_exhausted());
        if trimmed < 0 {
            // The stream has fewer entries than were counted and yet reaches further: it was reset and has grown since.
            self.staged.push(Staged::StoreReset);
        } else if trimmed > 0 {
            let count = u64::try_from(trimmed).unwrap_or(u64::MAX);
            // Trimming removes the oldest entries, so they were before the first one that was read.
            let resumed = entries.first().map_or(end, |(id, _)| *id);
            self.staged.push(Staged::Hole(self.hole(count, after, resumed, &stream, deadline, now)));
        }
        for (id, body) in entries {
            self.history.push(id, &body);
            let entry = self.stage(id, body, deadline);
            self.staged.push(entry);
        }
        // The other notifications have no entry here. In a hole it may have been trimmed. After the end of the stream it may follow, unless
        // the read began after the notification: then that was forged, or is of another database of this Redis.
        let holes: Vec<&Hole> = self.staged.holes().collect();
        self.pending.retain(|id, is_checked| {
            if id <= end { holes.iter().any(|hole| hole.may_contain(id)) } else { !(page.complete && is_checked) }
        });
        gap
    }

    /// The key does not exist: it expired or was deleted. Nothing proves that the entries of notifications existed.
    fn absorb_no_stream(&mut self, is_catch_up: bool) -> Option<Gap> {
        self.is_missing = true;
        if let Some(after) = self.reset_from.take() {
            self.open(&Page::default());
            return Some(reset::gap(after, StreamId::ZERO));
        }
        let mut is_notified = false;
        let (delivered_to, read_to) = (self.delivered_to, self.read_to);
        self.pending.retain(|id, is_checked| {
            is_notified |= id > read_to && is_checked;
            (id > delivered_to && id <= read_to) || !is_checked
        });
        // Entries may have been added and deleted: unnoticed without a subscription, and as notified with one.
        if std::mem::take(&mut self.entries_added) > 0 && (is_catch_up || is_notified) {
            self.staged.push(Staged::StoreReset);
        }
        None
    }

    fn stage(&mut self, id: StreamId, body: Body, deadline: Option<Instant>) -> Staged {
        let notification = self.pending.take(id);
        let (event, data) = match (body, deadline) {
            (Body::TooLarge, _) => return Staged::TooLarge(id),
            (Body::Foreign, _) => return Staged::Skip(id),
            (Body::Event { event, data }, _) => (event, data),
            (Body::Untyped(event), Some(deadline)) if notification.is_none() => {
                return Staged::Untyped { id, event, deadline };
            }
            (Body::Untyped(untyped), _) => untyped.resolve(notification.as_ref()),
        };
        Staged::Event { id, frame: self.event_frame(id, &event, &data) }
    }

    /// The hole that `count` entries after `after` left that were trimmed before they were read. Trimming removes the oldest entries, so
    /// notifications supply ids before the first entry that the stream still has. One that catches up does not wait for any.
    fn hole(
        &self,
        count: u64,
        after: StreamId,
        end: StreamId,
        stream: &StreamState,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Hole {
        let last = stream.first.map_or(stream.last, StreamId::before).max(after);
        match deadline.filter(|_| self.fill_holes && last > after) {
            Some(deadline) => Hole { count, end, after, last, deadline },
            None => Hole { count, end, after, last: after, deadline: now },
        }
    }

    /// Hands out the frames that are ready. Returns the deadline of the first staged entry that waits, if any.
    pub fn flush_ready(&mut self, now: Instant, mut out: impl FnMut(SequencedFrame)) -> Option<Instant> {
        loop {
            let front = match self.staged.pop_ready(now) {
                Ok(Some(front)) => front,
                Ok(None) => break,
                Err(deadline) => return Some(deadline),
            };
            let after = self.delivered_to;
            match front {
                Staged::Event { id, frame } => out(self.deliver(id, frame)),
                Staged::Untyped { id, event, .. } => {
                    let (event, data) = event.resolve(None);
                    let frame = self.event_frame(id, &event, &data);
                    out(self.deliver(id, frame));
                }
                Staged::Skip(id) => self.delivered_to = id,
                Staged::TooLarge(id) => {
                    self.delivered_to = id;
                    let gap = Gap { after: Some(after), resumed: id, certain: true, reason: GapReason::TooLarge };
                    out(gap.frame(id, &self.channel));
                }
                Staged::Hole(hole) => self.fill(&hole, &mut out),
                Staged::StoreReset => {
                    let next = self.next_staged();
                    let resumed = next.unwrap_or(self.read_to);
                    let reason = GapReason::StoreReset;
                    out(self.gap(next, Gap { after: Some(after), resumed, certain: false, reason }));
                }
            }
        }
        self.delivered_to = self.read_to;
        None
    }

    /// Hands out the entries of a hole that notifications supply, and a gap before them if entries are still missing.
    ///
    /// Nothing proves which notification is of an entry. If they are more than the missing entries, some are forged or of another
    /// database, and delivering any of them might replace a real one; so none is delivered, and the gap says that entries are missing.
    fn fill(&mut self, hole: &Hole, out: &mut impl FnMut(SequencedFrame)) {
        let (mut total, mut is_disputed, mut ids) = (0, false, Vec::new());
        for pending in self.pending.range(hole.after..=hole.last) {
            total += 1;
            is_disputed |= pending.is_disputed;
            // Without a check, a command may precede it that this node has not processed.
            if self.pending.is_checked(pending) {
                ids.push(pending.event.id);
            }
        }
        if total > hole.count || is_disputed {
            ids.clear();
        }
        if (ids.len() as u64) < hole.count {
            let next = ids.first().copied().or_else(|| self.next_staged());
            let (after, resumed) = (Some(self.delivered_to), hole.end);
            out(self.gap(next, Gap { after, resumed, certain: true, reason: GapReason::Trimmed }));
        }
        for id in ids {
            if let Some(EventNotification { event, data, .. }) = self.pending.take(id) {
                let frame = self.event_frame(id, &event, &data);
                out(self.deliver(id, frame));
            }
        }
        self.pending.retain(|id, _| !hole.may_contain(id));
    }

    fn deliver(&mut self, id: StreamId, bytes: Bytes) -> SequencedFrame {
        self.delivered_to = id;
        SequencedFrame { position: id, bytes, gap: None }
    }

    /// The frame of a gap before the entry `next`. Its position is just before that entry, so that a client that resumes from there does
    /// not get the gap again.
    fn gap(&mut self, next: Option<StreamId>, gap: Gap) -> SequencedFrame {
        self.delivered_to = next.map_or(self.read_to, |id| id.before().max(self.delivered_to));
        gap.frame(self.delivered_to, &self.channel)
    }

    fn next_staged(&self) -> Option<StreamId> {
        self.staged.iter().find_map(Staged::id)
    }

    fn event_frame(&self, id: StreamId, event: &str, data: &str) -> Bytes {
        user_frame(id, event, data, &self.channel)
    }
}

#[cfg(test)]
mod tests;
