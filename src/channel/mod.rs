//! Channels: one log of recent events each, in stream order, shared by all its streams; and the hub that owns them.

pub(crate) mod barrier;
pub(crate) mod buffer;
pub mod hub;
pub(crate) mod reader;
pub(crate) mod sequencer;

use crate::telemetry::metrics::Metrics;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::channel::buffer::{BufferBudget, EventBuffer};
use crate::channel::sequencer::{Gap, PayloadBudget, SequencedFrame, Sequencer};
use crate::event::{Notification, StreamId};
use crate::store::Page;

/// Messages of a [`hub::RawSubscription`] that wait for its reader.
const TAP_MESSAGES: usize = 64;

/// Where a stream wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// At the stream's end.
    Tail,
    /// Behind this position, which need not be an entry's: a time, on somebody's clock.
    From(StreamId),
    /// Behind this entry, which the client has seen.
    Id(StreamId),
}

/// A stream's place in a channel.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// Everything up to here was handed over.
    pub at: StreamId,
    /// The number of the log's item that comes next; none while the store has to be read.
    next: Option<u64>,
    epoch: u32,
    /// Something up to here did exist after `at`, for the log held it.
    pub existed: StreamId,
    /// `at` is an entry, as far as the client says.
    pub is_entry: bool,
}

impl Cursor {
    /// What comes next has to be read from the store.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.next.is_none()
    }
}

/// What [`Channel::open`] answers.
#[derive(Debug)]
pub enum OpenResult {
    /// Not yet: the store has to be heard first. The waker is called.
    Wait,
    /// The key is no stream. The waker is called when that changes.
    Wrong,
    /// The place, and what is known to be gone before it.
    Open(Cursor, Option<Gap>),
}

/// What [`Channel::pull`] answers.
#[derive(Debug)]
pub enum PullResult {
    /// The sink had enough.
    Full,
    /// There is no more for now. The waker is called.
    Idle,
    /// What comes next is no longer in the log: read the store after `cursor.at`, then [`Channel::rejoin`].
    Behind,
    /// The store went back before the cursor, which now stands where the store ends.
    Back(Gap),
}

/// One channel of this node.
pub struct Channel {
    name: Arc<str>,
    inner: Mutex<Inner>,
    /// Wakes the task that reads, while there is one.
    rung: Notify,
}

/// What the channel knows of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The subscription is not confirmed.
    Down,
    /// Confirmed, but the stream was not read since.
    Unread,
    /// Everything that rings is heard, and everything before was read.
    Up,
    /// The key is no stream.
    Wrong,
}

struct Inner {
    link: Link,
    opened: bool,
    order: Sequencer,
    log: EventBuffer,
    metrics: Arc<Metrics>,
    /// The last id that the stream generated, as far as known; `0-0` without a key.
    tail: StreamId,
    /// Grows when the store went back; `back` is where to.
    epoch: u32,
    back: StreamId,
    members: Slab<Option<Waker>>,
    tap: Option<broadcast::Sender<Bytes>>,
    idle_since: Instant,
    check_at: Instant,
    /// A task reads; it looks again at `again` before it ends.
    reading: bool,
    in_flight: bool,
    again: bool,
    /// A stream waits for a read to tell it where the store ends.
    awaited: bool,
    /// Reads begun and done, by number.
    begun: u64,
    done: u64,
}

impl Channel {
    fn new(name: Arc<str>, log: Arc<BufferBudget>, payloads: Arc<PayloadBudget>, metrics: Arc<Metrics>) -> Self {
        let inner = Inner {
            link: Link::Down,
            opened: false,
            order: Sequencer::new(Arc::clone(&name), payloads),
            log: EventBuffer::new(log),
            metrics,
            tail: StreamId::ZERO,
            epoch: 0,
            back: StreamId::ZERO,
            members: Slab::new(),
            tap: None,
            idle_since: Instant::now(),
            check_at: Instant::now(),
            reading: false,
            in_flight: false,
            again: false,
            awaited: false,
            begun: 0,
            done: 0,
        };
        Self { name, inner: Mutex::new(inner), rung: Notify::new() }
    }

    /// The channel's name, which is its key in the store.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A panic under this lock is a bug; what it left is still better served than refused.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Finds the place to begin at. `verified` is the caller's memory between two calls. The flag says that the caller has
    /// to start a read.
    fn open(
        &self,
        member: usize,
        start: StartPosition,
        verified: &mut Option<u64>,
        waker: &Waker,
    ) -> (OpenResult, bool) {
        let mut inner = self.inner();
        let opening = match (inner.link, start) {
            (Link::Wrong, _) => OpenResult::Wrong,
            (Link::Down | Link::Unread, _) => OpenResult::Wait,
            (Link::Up, StartPosition::Tail) => OpenResult::Open(inner.cursor(inner.tail), None),
            (Link::Up, StartPosition::From(id)) => OpenResult::Open(inner.cursor(inner.tail.min(id)), None),
            (Link::Up, StartPosition::Id(id)) if id <= inner.tail => {
                OpenResult::Open(Cursor { is_entry: id > StreamId::ZERO, ..inner.cursor(id) }, None)
            }
            (Link::Up, StartPosition::Id(id)) => {
                // Another node may have seen more than this one has: only a read that began after now can tell.
                let need = *verified.get_or_insert(inner.begun + 1);
                if inner.done >= need {
                    let why = sequencer::GapReason::WentBack;
                    let gap = Gap { after: id, resumed: inner.tail, certain: inner.tail > StreamId::ZERO, why };
                    OpenResult::Open(inner.cursor(inner.tail), Some(gap))
                } else {
                    inner.awaited = true;
                    OpenResult::Wait
                }
            }
        };
        let read = matches!(opening, OpenResult::Wait) && inner.awaited && inner.want_read();
        if !matches!(opening, OpenResult::Open(..)) {
            inner.wait(member, waker);
        }
        (opening, read)
    }

    /// Hands the items behind the cursor to the sink until that answers false.
    fn pull(
        &self,
        member: usize,
        cursor: &mut Cursor,
        waker: &Waker,
        mut sink: impl FnMut(&SequencedFrame) -> bool,
    ) -> PullResult {
        let mut inner = self.inner();
        if cursor.epoch != inner.epoch {
            cursor.epoch = inner.epoch;
            cursor.next = inner.log.after(cursor.at.min(inner.back));
            if cursor.at > inner.back {
                let gap =
                    Gap { after: cursor.at, resumed: inner.back, certain: true, why: sequencer::GapReason::WentBack };
                cursor.at = inner.back;
                return PullResult::Back(gap);
            }
        }
        let Some(items) = cursor.next.and_then(|next| inner.log.from(next)) else {
            if cursor.next.take().is_some() {
                cursor.existed = inner.log.floor();
            }
            return PullResult::Behind;
        };
        let mut next = cursor.next.unwrap_or_default();
        for item in items {
            // What waited for its doorbell comes to the log after the stream was seen to hold it: a stream that began, or
            // read for itself, behind that has no use for it.
            if item.at < cursor.at || (item.at == cursor.at && item.gap.is_none()) {
                next += 1;
                continue;
            }
            if !sink(item) {
                cursor.next = Some(next);
                return PullResult::Full;
            }
            next += 1;
            cursor.at = item.at;
        }
        cursor.next = Some(next);
        inner.wait(member, waker);
        PullResult::Idle
    }

    /// The log's end, to be given to [`Self::rejoin`] behind a read that begins now.
    fn log_end(&self) -> u64 {
        self.inner().log.end()
    }

    /// After a read brought everything up to `cursor.at`: goes on in the log, if that reaches back so far. `page` is what
    /// the read said of the stream, `end` the log's end before it. True if the store ends before the log begins: it went
    /// back, and the caller has to start a read that shows it.
    fn rejoin(&self, cursor: &mut Cursor, page: &Page, end: u64) -> bool {
        let mut inner = self.inner();
        if cursor.epoch != inner.epoch {
            return false;
        }
        cursor.next = match page.stream {
            // Without a key there is nothing but what came since.
            None => inner.log.from(end).is_some().then_some(end),
            Some(stream) if page.complete => {
                cursor.at = cursor.at.max(stream.last);
                inner.log.after(cursor.at)
            }
            Some(_) => inner.log.after(cursor.at),
        };
        cursor.next.is_none() && page.complete && inner.want_read()
    }

    /// Takes a message in. `held`: nothing may be delivered without a read. True if a read has to be started.
    fn ring(&self, payload: &[u8], held: bool, now: Instant) -> bool {
        let doorbell = Notification::parse(payload);
        let mut inner = self.inner();
        if let Some(tap) = &inner.tap
            && tap.send(Bytes::copy_from_slice(payload)).is_err()
        {
            inner.tap = None;
        }
        match doorbell {
            Notification::Noise => false,
            Notification::Unknown => inner.want_read(),
            Notification::Event(_) if !inner.opened => inner.want_read(),
            Notification::Event(rung) => {
                let (in_flight, read_to) = (inner.in_flight, inner.order.read_to());
                if inner.order.ring(rung, in_flight || held) {
                    return inner.want_read();
                }
                if inner.order.read_to() != read_to {
                    inner.tail = inner.order.read_to();
                }
                inner.settle(now);
                self.rung.notify_one();
                false
            }
        }
    }
}

impl Inner {
    fn cursor(&self, at: StreamId) -> Cursor {
        Cursor { at, next: self.log.after(at), epoch: self.epoch, existed: StreamId::ZERO, is_entry: false }
    }

    fn wait(&mut self, member: usize, waker: &Waker) {
        if let Some(slot) = self.members.get_mut(member) {
            match slot {
                Some(known) if known.will_wake(waker) => {}
                _ => *slot = Some(waker.clone()),
            }
        }
    }

    /// Wakes all that wait; each of them waits again when it has seen everything.
    fn wake(&mut self) {
        for (_, slot) in &mut self.members {
            if let Some(waker) = slot.take() {
                waker.wake();
            }
        }
    }

    /// Notes that a read is wanted. True if nobody reads, so that the caller has to.
    fn want_read(&mut self) -> bool {
        self.again = true;
        !std::mem::replace(&mut self.reading, true)
    }

    /// Moves what is ready from the order to the log. Answers when the next may be.
    fn settle(&mut self, now: Instant) -> Option<Instant> {
        let before = self.log.end();
        let (log, metrics) = (&mut self.log, &self.metrics);
        let again = self.order.settle(now, |item| {
            match item.gap {
                Some(reason) => metrics.gap(reason.as_str()),
                None => metrics.event_received(item.at.ms),
            }
            log.push(item);
        });
        if self.log.end() != before {
            self.wake();
        }
        again
    }

    /// Takes in what a read brought.
    fn absorb(&mut self, page: Page, patience_ends: Option<Instant>, now: Instant) {
        let last = page.last();
        // Catching up goes on until the end is reached: only then is what waits for a doorbell worth waiting for.
        if !self.opened || page.complete || self.link != Link::Unread {
            self.link = Link::Up;
        }
        if self.opened {
            if let Some(gap) = self.order.absorb(page, patience_ends, now) {
                self.epoch = self.epoch.wrapping_add(1);
                self.back = gap.resumed;
                self.log.restart(gap.resumed);
            }
            self.settle(now);
        } else {
            // The first time; or the key was no stream for a while, and whoever was in the channel before has to look anew.
            self.opened = true;
            self.epoch = self.epoch.wrapping_add(1);
            self.back = last;
            self.order.open(&page);
            self.log.restart(last);
        }
        self.tail = last;
    }
}
