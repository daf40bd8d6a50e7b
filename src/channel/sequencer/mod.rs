//! The order of one channel's events.
//!
//! The stream in the store is the source of truth: it says which entries exist, in which order, and what they contain. A notification only
//! says when to read, and whether an untyped value is a string. Where entries were trimmed before they were read, notifications are all that
//! is left of them. This is a state machine without clock, task, store or process-wide state: time and pages are arguments.

mod absorb;
pub(crate) mod history;
mod lost;
mod pending;
mod proof;
mod reset;
mod staged;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::channel::budget::SequencerBudgets;
use crate::channel::frame::{Gap, GapReason, SequencedFrame};
pub use crate::channel::sequencer::history::EntryKey;
use crate::channel::sequencer::history::ReadHistory;
use crate::channel::sequencer::lost::LostEntries;
pub use crate::channel::sequencer::lost::has;
use crate::channel::sequencer::pending::PendingNotifications;
use crate::channel::sequencer::proof::Proof;
pub use crate::channel::sequencer::reset::{StoreReset, start_after_unknown_loss};
use crate::channel::sequencer::staged::{Hole, Staged, StagedQueue};
use crate::event::{ContentHash, EventNotification, StreamId, short_hash, user_frame};
use crate::store::{Page, ReadRequest};

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
    /// The stream had an entry with the id `read_to`.
    is_entry: bool,
    /// Entries that were ever added to the stream, up to `read_to`. Trimming leaves no other trace.
    entries_added: u64,
    /// `entries_added` was compared with the stream's state when everything up to here was read.
    counted_to: StreamId,
    staged: StagedQueue,
    /// Notifications of entries after `read_to`, or in a staged hole; and of entries before that are not known, until a read shows whether the
    /// store was reset.
    pending: PendingNotifications,
    history: ReadHistory,
    /// The oldest entry that the stream was seen to have, and whether it never had an older one.
    oldest: Option<(StreamId, bool)>,
    /// What the last reset lost.
    lost: Option<Box<LostEntries>>,
    /// The store may hold less than before. The next read finds out whether the entries that were read are still there.
    proof: Option<Proof>,
    /// The last read found no key, so every entry that it will have is added later.
    is_missing: bool,
    /// Since a reset `entries_added` is unknown, until the end of the stream is reached.
    is_uncounted: bool,
    /// A notification named an entry that a read did not find.
    wants_state: bool,
    /// The last page began after `read_to`, so another read is needed.
    is_reread_needed: bool,
}

impl Sequencer {
    pub fn new(channel: Arc<str>, budgets: Arc<SequencerBudgets>, fill_holes: bool) -> Self {
        Self {
            channel,
            fill_holes,
            delivered_to: StreamId::ZERO,
            read_to: StreamId::ZERO,
            is_entry: false,
            entries_added: 0,
            counted_to: StreamId::ZERO,
            staged: StagedQueue::new(Arc::clone(&budgets)),
            pending: PendingNotifications::new(Arc::clone(&budgets)),
            history: ReadHistory::default(),
            oldest: None,
            lost: None,
            proof: None,
            is_missing: false,
            is_uncounted: false,
            wants_state: false,
            is_reread_needed: false,
            budgets,
        }
    }

    /// The id of the stream's last entry (`None` without a stream), if everything is read and nothing is left to find out: a read would find
    /// nothing, unless the stream changed.
    pub fn known_end(&self) -> Option<Option<StreamId>> {
        let is_undecided = self.needs_read() || self.is_uncounted || self.wants_state;
        if is_undecided || !self.pending.is_empty() || self.staged.iter().next().is_some() {
            return None;
        }
        if self.is_missing { Some(None) } else { self.is_entry.then_some(Some(self.read_to)) }
    }

    /// Everything up to here was read.
    pub fn read_to(&self) -> StreamId {
        self.read_to
    }

    /// What the next read looks for.
    pub fn request(&self) -> ReadRequest {
        if self.is_missing {
            return ReadRequest::with_state(StreamId::ZERO);
        }
        if let Some(proof) = &self.proof {
            return proof.request(&self.history);
        }
        ReadRequest {
            after: self.read_to,
            is_entry: self.is_entry,
            notified: self.notified(),
            wants_state: self.wants_state || self.is_uncounted,
        }
    }

    /// The number of notifications of entries that were not read.
    fn notified(&self) -> u32 {
        let notified = self.pending.range(self.read_to..=StreamId::MAX).filter(|known| known.event.id > self.read_to);
        u32::try_from(notified.count()).unwrap_or(u32::MAX)
    }

    /// Whether reads have to pause until staged entries were delivered.
    pub fn is_full(&self) -> bool {
        self.staged.is_full()
    }

    /// Whether there are notifications that no read has checked, or entries that a read has to compare.
    pub fn needs_read(&self) -> bool {
        self.pending.needs_read() || self.needs_proof() || self.is_reread_needed
    }

    /// Whether it is unknown if the store still has the entries that were read.
    pub fn needs_proof(&self) -> bool {
        self.proof.is_some()
    }

    /// The store may hold less than before: its master is another one, or notifications were lost. The caller drops the page of a read that
    /// began before.
    pub fn require_proof(&mut self) {
        self.proof = Some(Proof::default());
    }

    /// Whether an entry with this id was read, as far as is remembered.
    pub fn has_read(&self, id: StreamId) -> bool {
        self.history.has_id(id)
    }

    /// The hash of the content of the entry that was read with this id, if it is remembered.
    pub fn content(&self, id: StreamId) -> Option<u64> {
        self.history.content(id)
    }

    /// Whether the last reset lost the entry with this id, and the store has it again.
    pub fn has_returned(&self, id: StreamId) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.has_returned(id))
    }

    /// Whether this page of another read shows that the store was reset: in this range it lacks an entry that was read, or has one that was not.
    pub fn is_contradicted_by(&self, range: RangeInclusive<StreamId>, page: &Page) -> bool {
        // Older entries than the first may be trimmed, and of a stream without entries nothing is left to compare.
        let Some(first) = page.stream.map_or(Some(StreamId::ZERO), |stream| stream.first) else { return false };
        let start = self.history.after().max(first.before()).max(*range.start());
        let last = page.entries.last().map_or(start, |(id, _)| *id);
        let end = if page.complete { *range.end() } else { last.min(*range.end()) };
        let read = self.history.entries_after(start).take_while(|(id, _)| *id <= end);
        let present = page.entries.iter().filter(|(id, _)| *id > start && *id <= end);
        !read.eq(present.map(|(id, body)| (*id, body.content_hash())))
    }

    /// Starts at the end of the stream that this page was read from.
    pub fn open(&mut self, page: &Page) {
        let stream = page.stream.unwrap_or_default();
        self.pending.retain(|id, _| id > stream.last);
        self.staged.clear();
        (self.delivered_to, self.read_to, self.counted_to) = (stream.last, stream.last, stream.last);
        self.is_entry = stream.has_last;
        match &page.last_entry {
            Some(last) if self.is_entry => {
                self.history.restart(stream.last.before(), false);
                self.history.push(stream.last, last);
            }
            _ => self.history.restart(stream.last, self.is_entry),
        }
        self.lost = None;
        self.oldest = absorb::oldest_of(&stream);
        self.entries_added = stream.added;
        self.is_missing = !page.exists;
        (self.proof, self.is_uncounted, self.wants_state, self.is_reread_needed) = (None, false, false, false);
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
                let content = short_hash(untyped.content_hash());
                Staged::Event { id, content, frame: user_frame(id, &event, &data, channel) }
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
        self.is_reread_needed = false;
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
                Staged::Event { id, content, frame } => out(self.deliver(id, content, frame)),
                Staged::Untyped { id, event, .. } => {
                    let content = short_hash(event.content_hash());
                    let (event, data) = event.resolve(None);
                    let frame = self.event_frame(id, &event, &data);
                    out(self.deliver(id, content, frame));
                }
                Staged::Skip(id) => self.delivered_to = id,
                Staged::TooLarge(id) => {
                    self.delivered_to = id;
                    let gap = Gap { after: Some(after), resumed: id, certain: true, reason: GapReason::TooLarge };
                    out(gap.frame(id, &self.channel));
                }
                Staged::Hole(hole) => self.fill(&hole, &mut out),
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
            let (after, resumed) = (Some(hole.from.min(self.delivered_to)), hole.end);
            out(self.gap(next, Gap { after, resumed, certain: true, reason: GapReason::Trimmed }));
        }
        for id in ids {
            if let Some(EventNotification { event, data, .. }) = self.pending.take(id) {
                let frame = self.event_frame(id, &event, &data);
                // How the entry was stored is not known.
                out(self.deliver(id, None, frame));
            }
        }
        self.pending.retain(|id, _| !hole.may_contain(id));
    }

    fn deliver(&mut self, id: StreamId, content: Option<ContentHash>, bytes: Bytes) -> SequencedFrame {
        self.delivered_to = id;
        SequencedFrame { position: id, content, bytes, gap: None }
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
