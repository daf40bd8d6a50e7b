//! Channels: one log of recent events each, in stream order, shared by all its streams; and the hub that owns them.

pub(crate) mod barrier;
pub(crate) mod buffer;
pub(crate) mod gap;
pub mod hub;
pub(crate) mod membership;
pub mod raw_subscription;
pub(crate) mod reader;
pub(crate) mod sequencer;

use crate::telemetry::metrics::metrics;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::channel::buffer::{BufferBudget, EventBuffer};
use crate::channel::sequencer::{PayloadBudget, Sequencer};
use crate::event::{Notification, StreamId};

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
    fn new(name: Arc<str>, log: Arc<BufferBudget>, payloads: Arc<PayloadBudget>) -> Self {
        let inner = Inner {
            link: Link::Down,
            opened: false,
            order: Sequencer::new(Arc::clone(&name), payloads),
            log: EventBuffer::new(log),
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
            Notification::System => false,
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
        let log = &mut self.log;
        let again = self.order.settle(now, |item| {
            match item.gap {
                Some(reason) => metrics().gap(reason.as_str()),
                None => metrics().event_received(item.at.ms),
            }
            log.push(item);
        });
        if self.log.end() != before {
            self.wake();
        }
        again
    }
}
