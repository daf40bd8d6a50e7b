//! One channel's order. The stream is the truth and gives order and existence; doorbells say when to look, and what an
//! entry held in the words of its emitter. This is the whole of it as a state machine without clock, task or store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::event::{Body, NotificationKind, StreamId, json_string, user_frame};
use crate::store::Page;

/// How long an entry that was read before its doorbell rang waits for it, and a hole for the doorbells of the entries that
/// were trimmed from it. A stock emitter rings one round trip after it adds; whoever dies between delays the channel by this.
pub const PATIENCE: Duration = Duration::from_millis(250);
/// Entries that may wait; beyond that nothing is read until some have gone out.
const MAX_STAGED: usize = 2048;

/// A bound on the payloads that wait for a read, shared by all channels of a node.
#[derive(Debug)]
pub struct PayloadBudget {
    limit: usize,
    used: AtomicUsize,
}

impl PayloadBudget {
    /// So many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    fn take(&self, bytes: usize) -> bool {
        let fits = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.limit;
        if !fits {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Why entries are or may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Trimmed, deleted or expired before they were read.
    Trimmed,
    /// The store holds less than it did: a restart or a failover lost the end of the stream, or the key was made anew.
    WentBack,
    /// An entry over `stream.max-event-size`.
    TooLarge,
}

impl GapReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Trimmed, Self::WentBack, Self::TooLarge];

    /// As the `gap` frame says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::WentBack => "store-reset",
            Self::TooLarge => "too-large",
        }
    }
}

/// Entries between two ids that are or may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last position before it.
    pub after: StreamId,
    /// Where the stream goes on: the first entry behind the hole, or the stream's last id; the entry itself when that was
    /// too large.
    pub resumed: StreamId,
    /// The store proves that something is gone.
    pub certain: bool,
    /// What happened.
    pub why: GapReason,
}

impl Gap {
    /// The `data:` part of its block.
    #[must_use]
    pub fn frame(&self, channel: &str) -> Bytes {
        let Self { after, resumed, certain, why } = self;
        let (channel, why) = (json_string(channel), why.as_str());
        Bytes::from(format!(
            "data: {{\"type\":\"gap\",\"channel\":{channel},\"after\":\"{after}\",\"resumed\":\"{resumed}\",\
             \"certain\":{certain},\"reason\":\"{why}\"}}\n\n"
        ))
    }
}

/// What goes out to the streams, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequencedFrame {
    /// The position behind it.
    pub at: StreamId,
    /// The `data:` part of its block.
    pub frame: Bytes,
    /// The reason, if it reports a gap and is not an event.
    pub gap: Option<GapReason>,
}

#[derive(Debug)]
enum Staged {
    Event {
        id: StreamId,
        frame: Bytes,
        until: Option<Instant>,
    },
    Skip(StreamId),
    TooLarge(StreamId),
    /// So many entries before `end` are gone, unless their doorbells ring until then.
    Hole {
        missing: u64,
        end: StreamId,
        until: Instant,
    },
    WentBack,
}

impl Staged {
    fn id(&self) -> Option<StreamId> {
        match self {
            Self::Event { id, .. } | Self::Skip(id) | Self::TooLarge(id) => Some(*id),
            Self::Hole { .. } | Self::WentBack => None,
        }
    }
}

/// The order of one channel.
#[derive(Debug)]
pub struct Sequencer {
    channel: Arc<str>,
    budget: Arc<PayloadBudget>,
    /// Everything up to here went out, or never was.
    head: StreamId,
    /// Everything up to here was read; between `head` and this are the staged ones.
    read_to: StreamId,
    /// Entries that the stream ever had, up to `read_to`.
    added: u64,
    staged: VecDeque<Staged>,
    /// Doorbells beyond `read_to`; the flag says that a read has begun since.
    payloads: BTreeMap<StreamId, (NotificationKind, bool)>,
}

impl Drop for Sequencer {
    fn drop(&mut self) {
        self.forget_payloads();
    }
}

impl Sequencer {
    /// A channel at its stream's end.
    #[must_use]
    pub fn new(channel: Arc<str>, budget: Arc<PayloadBudget>) -> Self {
        Self {
            channel,
            budget,
            head: StreamId::ZERO,
            read_to: StreamId::ZERO,
            added: 0,
            staged: VecDeque::new(),
            payloads: BTreeMap::new(),
        }
    }

    /// Everything up to here went out.
    #[must_use]
    #[cfg(test)]
    pub fn head(&self) -> StreamId {
        self.head
    }

    /// Where the next read goes on.
    #[must_use]
    pub fn read_to(&self) -> StreamId {
        self.read_to
    }

    /// So much waits that nothing more may be read yet.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.staged.len() >= MAX_STAGED
    }

    /// Doorbells tell of entries that were not read.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        !self.payloads.is_empty()
    }

    /// Begins at the end of the stream as this page has it.
    pub fn open(&mut self, page: &Page) {
        self.staged.clear();
        self.forget_payloads_to(page.last());
        self.head = page.last();
        self.read_to = self.head;
        self.added = page.stream.map_or(0, |s| s.added);
    }

    /// A doorbell rang. True if a read is needed to know more.
    pub fn ring(&mut self, rung: NotificationKind, reading: bool) -> bool {
        if rung.id <= self.head {
            return false;
        }
        if rung.id <= self.read_to {
            self.fill(&rung);
            return false;
        }
        if rung.prev == Some(self.read_to) && !reading {
            self.read_to = rung.id;
            self.added += 1;
            let event = self.settled(&rung);
            self.staged.push_back(event);
            return false;
        }
        let size = rung.data.len() + rung.event.len();
        if self.budget.take(size)
            && let Some((old, _)) = self.payloads.insert(rung.id, (rung, false))
        {
            self.budget.give(old.data.len() + old.event.len());
        }
        true
    }

    /// A read begins: whatever rang before is answered by it.
    pub fn begin_read(&mut self) {
        self.payloads.values_mut().for_each(|(_, seen)| *seen = true);
    }

    /// Takes in what a read from `read_to` brought. `until`: when patience ends for what it brought, for a read that
    /// doorbells caused; `None` for a catching-up, where nobody will ring any more.
    /// A [`Gap`] is answered where the store went back before what was read: everything that waited is void.
    pub fn absorb(&mut self, page: Page, until: Option<Instant>, now: Instant) -> Option<Gap> {
        let Some(state) = page.stream else {
            // Expired or deleted. What rang before that and was not read goes out by its payload. While nobody listened,
            // something else may have come and gone.
            if std::mem::take(&mut self.added) > 0 && until.is_none() {
                self.staged.push_back(Staged::WentBack);
            }
            for rung in self.take_seen(StreamId::new(u64::MAX, u64::MAX)) {
                self.read_to = rung.id;
                let event = self.settled(&rung);
                self.staged.push_back(event);
            }
            return None;
        };
        if state.last < self.read_to {
            let gap = Gap { after: self.head, resumed: state.last, certain: true, why: GapReason::WentBack };
            self.open(&page);
            return Some(gap);
        }
        let fresh: Vec<_> = page.entries.into_iter().filter(|(id, _)| *id > self.read_to).collect();
        let end = if page.complete { state.last } else { fresh.last().map_or(self.read_to, |(id, _)| *id) };
        let grown = i128::from(state.added) - i128::from(self.added);
        let read = fresh.len() as i128;
        let missing = if page.complete {
            grown - read
        } else if state.first.is_some_and(|first| first > self.read_to) {
            grown - i128::from(state.length)
        } else {
            0
        };
        self.added =
            if page.complete { state.added } else { self.added.saturating_add_signed((read + missing.max(0)) as i64) };
        self.read_to = end;

        let mut rung: BTreeMap<StreamId, NotificationKind> =
            self.take_seen(end).into_iter().map(|rung| (rung.id, rung)).collect();
        let oldest_read = fresh.first().map(|(id, _)| *id);
        let mut batch: Vec<Staged> = Vec::with_capacity(fresh.len());
        for (id, body) in fresh {
            batch.push(match (body, rung.remove(&id)) {
                (Body::Event { .. }, Some(rung)) => self.settled(&rung),
                (Body::Event { event, data, ambiguous }, None) => {
                    let frame = user_frame(id, &event, &data, &self.channel);
                    Staged::Event { id, frame, until: until.filter(|_| ambiguous) }
                }
                (Body::TooLarge, _) => Staged::TooLarge(id),
                (Body::Foreign, _) => Staged::Skip(id),
            });
        }
        // Trimmed before it could be read, but its doorbell says what it was.
        let missing = missing - rung.len() as i128;
        batch.extend(rung.values().map(|rung| self.settled(rung)));
        batch.sort_by_key(Staged::id);
        if missing + (rung.len() as i128) < 0 {
            self.staged.push_back(Staged::WentBack);
        } else if missing > 0 {
            let missing = u64::try_from(missing).unwrap_or(u64::MAX);
            // A trim takes the oldest: they were before the first that was read.
            let end = oldest_read.unwrap_or(end);
            self.staged.push_back(Staged::Hole { missing, end, until: until.unwrap_or(now) });
        }
        self.staged.extend(batch);
        // What rang before this read and is not in a stream that was read to its end never was an entry of it.
        if page.complete {
            self.take_seen(StreamId::new(u64::MAX, u64::MAX));
        }
        None
    }

    /// Hands out what is ready. Answers when to come again for what waits.
    pub fn settle(&mut self, now: Instant, mut out: impl FnMut(SequencedFrame)) -> Option<Instant> {
        while let Some(front) = self.staged.front() {
            match front {
                Staged::Event { until: Some(until), .. } if *until > now => return Some(*until),
                Staged::Hole { missing: 1.., until, .. } if *until > now => return Some(*until),
                _ => {}
            }
            let Some(front) = self.staged.pop_front() else { break };
            let next = self.staged.iter().find_map(Staged::id);
            let gap = |why, certain, resumed: Option<StreamId>| {
                let resumed = resumed.unwrap_or(self.read_to);
                let frame = Gap { after: self.head, resumed, certain, why }.frame(&self.channel);
                (frame, Some(why))
            };
            match front {
                Staged::Event { id, frame, .. } => {
                    self.head = id;
                    out(SequencedFrame { at: id, frame, gap: None });
                }
                Staged::Skip(id) => self.head = id,
                Staged::TooLarge(id) => {
                    let (frame, gap) = gap(GapReason::TooLarge, true, Some(id));
                    self.head = id;
                    out(SequencedFrame { at: id, frame, gap });
                }
                Staged::Hole { missing: 0, .. } => {}
                Staged::Hole { .. } | Staged::WentBack => {
                    let (frame, gap) = match front {
                        Staged::Hole { end, .. } => gap(GapReason::Trimmed, true, Some(end)),
                        _ => gap(GapReason::WentBack, false, next),
                    };
                    // Just before what comes next, so that a client that comes back there is not told again.
                    self.head = next.map_or(self.read_to, |id| id.before().max(self.head));
                    out(SequencedFrame { at: self.head, frame, gap });
                }
            }
        }
        self.head = self.read_to;
        None
    }

    /// A doorbell of something that was read already, or trimmed before it could be.
    fn fill(&mut self, rung: &NotificationKind) {
        let event = self.settled(rung);
        let at = self.staged.iter().position(|staged| staged.id() >= Some(rung.id)).unwrap_or(self.staged.len());
        if let Some(staged) = self.staged.get_mut(at)
            && staged.id() == Some(rung.id)
        {
            if matches!(staged, Staged::Event { until: Some(_), .. }) {
                *staged = event;
            }
            return;
        }
        for staged in self.staged.range_mut(..at).rev() {
            if let Staged::Hole { missing, .. } = staged {
                *missing = missing.saturating_sub(1);
                break;
            }
        }
        self.staged.insert(at, event);
    }

    fn settled(&self, rung: &NotificationKind) -> Staged {
        Staged::Event { id: rung.id, frame: user_frame(rung.id, &rung.event, &rung.data, &self.channel), until: None }
    }

    /// Takes the payloads up to an id whose doorbells rang before the read began, and drops those that were passed.
    fn take_seen(&mut self, end: StreamId) -> Vec<NotificationKind> {
        let mut taken = Vec::new();
        let read_to = self.read_to;
        self.payloads.retain(|id, (rung, seen)| {
            // Rung since the read began, but read by it all the same.
            let take = *id <= end && (*seen || *id <= read_to);
            if take {
                self.budget.give(rung.data.len() + rung.event.len());
                taken.push(rung.clone());
            }
            !take
        });
        taken
    }

    fn forget_payloads_to(&mut self, end: StreamId) {
        self.begin_read();
        self.take_seen(end);
    }

    fn forget_payloads(&mut self) {
        self.forget_payloads_to(StreamId::new(u64::MAX, u64::MAX));
    }
}

#[cfg(test)]
mod tests;
