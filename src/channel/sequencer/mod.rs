//! The order of one channel's events.
//!
//! The stream in the store is the source of truth: it says which entries exist and in which order. A notification says when
//! to read, and carries an entry's content as its emitter encoded it. This is a state machine without clock, task, store or
//! process-wide state: time and pages are arguments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::channel::frame::{Gap, GapReason, SequencedFrame};
use crate::event::{Body, EventNotification, StreamId, user_frame};
use crate::store::Page;

/// How long an entry that was read before its notification arrived waits for the notification, and missing entries for
/// theirs. A stock emitter publishes one round trip after it adds the entry. If it dies in between, the channel is delayed by
/// this time.
pub const NOTIFICATION_GRACE: Duration = Duration::from_millis(250);
/// At this many staged entries, reads pause until some were delivered.
const MAX_STAGED_ENTRIES: usize = 2048;
const MAX_ID: StreamId = StreamId::new(u64::MAX, u64::MAX);

/// The limit on the bytes of notifications that wait for a read. All channels of a node share it.
#[derive(Debug)]
pub struct PayloadBudget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl PayloadBudget {
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: AtomicUsize::new(0) }
    }

    fn try_reserve(&self, bytes: usize) -> bool {
        let fits = self.used_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.limit_bytes;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Entries that were read and not delivered yet.
#[derive(Debug)]
enum Staged {
    /// With a deadline, the event waits for its notification until then: the stream does not tell whether a stock emitter
    /// added a string or JSON text.
    Event {
        id: StreamId,
        frame: Bytes,
        deadline: Option<Instant>,
    },
    /// An entry of another application.
    Skip(StreamId),
    TooLarge(StreamId),
    /// `count` entries before `end` were trimmed. Notifications that arrive until the deadline supply them.
    Missing {
        count: u64,
        end: StreamId,
        deadline: Instant,
    },
    StoreReset,
}

impl Staged {
    fn id(&self) -> Option<StreamId> {
        match self {
            Self::Event { id, .. } | Self::Skip(id) | Self::TooLarge(id) => Some(*id),
            Self::Missing { .. } | Self::StoreReset => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Event { deadline, .. } => *deadline,
            Self::Missing { count: 1.., deadline, .. } => Some(*deadline),
            _ => None,
        }
    }
}

/// A notification that waits for a read.
#[derive(Debug)]
struct Pending {
    event: EventNotification,
    /// A read began after the notification arrived, so that read finds the entry if it exists.
    is_covered: bool,
}

/// The order of one channel.
#[derive(Debug)]
pub struct Sequencer {
    channel: Arc<str>,
    budget: Arc<PayloadBudget>,
    /// Everything up to here was delivered. The staged entries are between this and `read_to`.
    delivered_to: StreamId,
    /// Everything up to here was read.
    read_to: StreamId,
    /// Entries that were ever added to the stream, up to `read_to`. Trimming leaves no other trace.
    entries_added: u64,
    staged: VecDeque<Staged>,
    /// Notifications of entries after `read_to`.
    pending: BTreeMap<StreamId, Pending>,
}

impl Drop for Sequencer {
    fn drop(&mut self) {
        self.discard_pending_to(MAX_ID);
    }
}

impl Sequencer {
    pub fn new(channel: Arc<str>, budget: Arc<PayloadBudget>) -> Self {
        Self {
            channel,
            budget,
            delivered_to: StreamId::ZERO,
            read_to: StreamId::ZERO,
            entries_added: 0,
            staged: VecDeque::new(),
            pending: BTreeMap::new(),
        }
    }

    /// The position to read after.
    pub fn read_to(&self) -> StreamId {
        self.read_to
    }

    /// Whether reads have to pause until staged entries were delivered.
    pub fn is_full(&self) -> bool {
        self.staged.len() >= MAX_STAGED_ENTRIES
    }

    /// Whether there are notifications of entries that were not read.
    pub fn needs_read(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Starts at the end of the stream that this page was read from.
    pub fn open(&mut self, page: &Page) {
        self.staged.clear();
        self.discard_pending_to(page.last());
        self.delivered_to = page.last();
        self.read_to = self.delivered_to;
        self.entries_added = page.stream.map_or(0, |stream| stream.added);
    }

    /// Takes in a notification. With `read_first`, it cannot be delivered before a read. Returns whether a read is needed.
    pub fn notify(&mut self, notification: EventNotification, read_first: bool) -> bool {
        if notification.id <= self.delivered_to {
            return false;
        }
        if notification.id <= self.read_to {
            self.apply_to_staged(&notification);
            return false;
        }
        if notification.prev == Some(self.read_to) && !read_first {
            self.read_to = notification.id;
            self.entries_added += 1;
            let event = self.ready_event(&notification);
            self.staged.push_back(event);
            return false;
        }
        // Over the limit, the entry is delivered as Redis stores it.
        if self.budget.try_reserve(payload_bytes(&notification)) {
            let pending = Pending { event: notification, is_covered: false };
            if let Some(old) = self.pending.insert(pending.event.id, pending) {
                self.budget.release(payload_bytes(&old.event));
            }
        }
        true
    }

    /// A read begins. It finds the entries of all notifications that have arrived.
    pub fn begin_read(&mut self) {
        self.pending.values_mut().for_each(|pending| pending.is_covered = true);
    }

    /// Takes in the page of a read after `read_to`. Entries wait until `deadline` for their notifications; `None` for a read
    /// that catches up after a lost link, where the notifications were lost with it.
    ///
    /// Returns a gap if the stream ends before the position that was read: the store was reset, and all staged entries are dropped.
    pub fn absorb(&mut self, page: Page, deadline: Option<Instant>, now: Instant) -> Option<Gap> {
        let Some(stream) = page.stream else {
            self.absorb_no_stream(deadline.is_none());
            return None;
        };
        if stream.last < self.read_to {
            let gap =
                Gap { after: self.delivered_to, resumed: stream.last, certain: true, reason: GapReason::StoreReset };
            self.open(&page);
            return Some(gap);
        }
        let entries: Vec<_> = page.entries.into_iter().filter(|(id, _)| *id > self.read_to).collect();
        let end = if page.complete { stream.last } else { entries.last().map_or(self.read_to, |(id, _)| *id) };
        let added = i128::from(stream.added) - i128::from(self.entries_added);
        let read = entries.len() as i128;
        // Entries that were trimmed before they were read. Until the end of the stream is reached, only the trimmed ones
        // before its first entry can be counted.
        let trimmed = if page.complete {
            added - read
        } else if stream.first.is_some_and(|first| first > self.read_to) {
            added - i128::from(stream.length)
        } else {
            0
        };
        self.entries_added = if page.complete {
            stream.added
        } else {
            self.entries_added.saturating_add_signed((read + trimmed.max(0)) as i64)
        };
        self.read_to = end;

        let mut notified: BTreeMap<StreamId, EventNotification> =
            self.take_covered(end).into_iter().map(|notification| (notification.id, notification)).collect();
        let first_read = entries.first().map(|(id, _)| *id);
        let mut batch: Vec<Staged> = Vec::with_capacity(entries.len());
        for (id, body) in entries {
            batch.push(match (body, notified.remove(&id)) {
                (Body::Event { .. }, Some(notification)) => self.ready_event(&notification),
                (Body::Event { event, data, ambiguous }, None) => {
                    let frame = user_frame(id, &event, &data, &self.channel);
                    Staged::Event { id, frame, deadline: deadline.filter(|_| ambiguous) }
                }
                (Body::TooLarge, _) => Staged::TooLarge(id),
                (Body::Foreign, _) => Staged::Skip(id),
            });
        }
        // The notifications that are left are of trimmed entries, and have their content.
        batch.extend(notified.values().map(|notification| self.ready_event(notification)));
        batch.sort_by_key(Staged::id);
        let missing = trimmed - notified.len() as i128;
        if trimmed < 0 {
            // The stream has fewer entries than were counted and yet reaches further: it was reset and has grown since.
            self.staged.push_back(Staged::StoreReset);
        } else if missing > 0 {
            let count = u64::try_from(missing).unwrap_or(u64::MAX);
            // Trimming removes the oldest entries, so they were before the first one that was read.
            let end = first_read.unwrap_or(end);
            self.staged.push_back(Staged::Missing { count, end, deadline: deadline.unwrap_or(now) });
        }
        self.staged.extend(batch);
        // A covered notification without an entry, though the read reached the end of the stream, was forged.
        if page.complete {
            self.take_covered(MAX_ID);
        }
        None
    }

    /// The key does not exist: it expired or was deleted.
    fn absorb_no_stream(&mut self, is_catch_up: bool) {
        // Without a subscription, entries may have been added and deleted unnoticed.
        if std::mem::take(&mut self.entries_added) > 0 && is_catch_up {
            self.staged.push_back(Staged::StoreReset);
        }
        // Entries that were notified before they expired are delivered from their notifications.
        for notification in self.take_covered(MAX_ID) {
            self.read_to = notification.id;
            let event = self.ready_event(&notification);
            self.staged.push_back(event);
        }
    }

    /// Hands out the frames that are ready. Returns the deadline of the first staged entry that waits, if any.
    pub fn flush_ready(&mut self, now: Instant, mut out: impl FnMut(SequencedFrame)) -> Option<Instant> {
        while let Some(front) = self.staged.pop_front_if(|front| front.deadline().is_none_or(|at| at <= now)) {
            let after = self.delivered_to;
            match front {
                Staged::Event { id, frame, .. } => {
                    self.delivered_to = id;
                    out(SequencedFrame { position: id, bytes: frame, gap: None });
                }
                Staged::Skip(id) => self.delivered_to = id,
                Staged::TooLarge(id) => {
                    self.delivered_to = id;
                    let gap = Gap { after, resumed: id, certain: true, reason: GapReason::TooLarge };
                    out(gap.frame(id, &self.channel));
                }
                Staged::Missing { count: 0, .. } => {}
                Staged::Missing { .. } | Staged::StoreReset => {
                    let next = self.staged.iter().find_map(Staged::id);
                    let (reason, certain, resumed) = match front {
                        Staged::Missing { end, .. } => (GapReason::Trimmed, true, end),
                        _ => (GapReason::StoreReset, false, next.unwrap_or(self.read_to)),
                    };
                    // Just before the next entry, so that a client that resumes from here does not get the gap again.
                    self.delivered_to = next.map_or(self.read_to, |id| id.before().max(after));
                    let gap = Gap { after, resumed, certain, reason };
                    out(gap.frame(self.delivered_to, &self.channel));
                }
            }
        }
        if let Some(front) = self.staged.front() {
            return front.deadline();
        }
        self.delivered_to = self.read_to;
        None
    }

    /// Takes in a notification of an entry that was read already, or was trimmed before the read.
    fn apply_to_staged(&mut self, notification: &EventNotification) {
        let id = Some(notification.id);
        let event = self.ready_event(notification);
        let at = self.staged.iter().position(|staged| staged.id() >= id).unwrap_or(self.staged.len());
        if let Some(staged) = self.staged.get_mut(at)
            && staged.id() == id
        {
            if matches!(staged, Staged::Event { deadline: Some(_), .. }) {
                *staged = event;
            }
            return;
        }
        // The entry was trimmed: the gap before it has one entry less.
        for staged in self.staged.range_mut(..at).rev() {
            if let Staged::Missing { count, .. } = staged {
                *count = count.saturating_sub(1);
                break;
            }
        }
        self.staged.insert(at, event);
    }

    fn ready_event(&self, notification: &EventNotification) -> Staged {
        let EventNotification { id, event, data, .. } = notification;
        Staged::Event { id: *id, frame: user_frame(*id, event, data, &self.channel), deadline: None }
    }

    /// Removes and returns the notifications up to `end` that a read has answered.
    fn take_covered(&mut self, end: StreamId) -> Vec<EventNotification> {
        // One that arrived after the read began counts too, if the read brought its entry.
        let is_taken = |id: &StreamId, pending: &mut Pending| pending.is_covered || *id <= self.read_to;
        let taken: Vec<_> = self.pending.extract_if(..=end, is_taken).map(|(_, pending)| pending.event).collect();
        taken.iter().for_each(|notification| self.budget.release(payload_bytes(notification)));
        taken
    }

    fn discard_pending_to(&mut self, end: StreamId) {
        self.begin_read();
        self.take_covered(end);
    }
}

fn payload_bytes(notification: &EventNotification) -> usize {
    notification.data.len() + notification.event.len()
}

#[cfg(test)]
mod tests;
