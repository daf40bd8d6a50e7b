//! Channels: each has an event buffer in stream order, which all its streams share. The hub owns the channels, the reader
//! fills their buffers from the store, and memberships take from them.

pub(crate) mod barrier;
pub(crate) mod buffer;
pub(crate) mod gap;
pub mod hub;
pub(crate) mod membership;
pub mod raw_subscription;
pub(crate) mod reader;
pub(crate) mod sequencer;

use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::channel::buffer::{BufferBudget, EventBuffer};
use crate::channel::sequencer::{PayloadBudget, Sequencer};
use crate::event::{Notification, StreamId};
use crate::telemetry::metrics::Metrics;

/// One channel of this node.
pub struct Channel {
    /// The channel's name, which is its key in the store.
    name: Arc<str>,
    state: Mutex<ChannelState>,
    /// Wakes the reading task, if there is one, to decide again. It keeps one permit, so that a wake-up between two looks at
    /// the state is not lost.
    wake_reader: Notify,
}

/// How current the channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The subscription is not confirmed.
    Down,
    /// Subscribed, but the stream was not read to its end since.
    CatchingUp,
    /// Everything before the subscription was read, and every notification since arrived.
    Live,
    /// The key does not hold a stream.
    WrongType,
}

struct ChannelState {
    link: Link,
    /// The sequencer has a position. A channel opens at the end of its stream; earlier entries are replayed to each stream.
    opened: bool,
    sequencer: Sequencer,
    buffer: EventBuffer,
    metrics: Arc<Metrics>,
    /// The last id that the stream generated, as far as known; `0-0` without a key.
    last_id: StreamId,
    /// Grows with each store reset. A cursor of an older epoch may be beyond the end of the stream.
    epoch: u32,
    /// Where the stream ended at the start of this epoch.
    reset_to: StreamId,
    /// A slot for each member, with its waker while it waits.
    members: Slab<Option<Waker>>,
    /// Copies of published messages for raw subscriptions.
    raw_messages: Option<broadcast::Sender<Bytes>>,
    idle_since: Instant,
    reconcile_at: Instant,
    /// There is a reading task. It looks at `read_requested` before it ends.
    has_reader: bool,
    read_requested: bool,
    read_in_flight: bool,
    /// A stream waits for a read that shows where the stream ends.
    read_awaited: bool,
    /// Reads are numbered from one. These are the numbers of the last one that was started and of the last one that was
    /// absorbed.
    reads_started: u64,
    reads_completed: u64,
}

impl Channel {
    fn new(name: Arc<str>, buffers: Arc<BufferBudget>, payloads: Arc<PayloadBudget>, metrics: Arc<Metrics>) -> Self {
        let state = ChannelState {
            link: Link::Down,
            opened: false,
            sequencer: Sequencer::new(Arc::clone(&name), payloads),
            buffer: EventBuffer::new(buffers),
            metrics,
            last_id: StreamId::ZERO,
            epoch: 0,
            reset_to: StreamId::ZERO,
            members: Slab::new(),
            raw_messages: None,
            idle_since: Instant::now(),
            reconcile_at: Instant::now(),
            has_reader: false,
            read_requested: false,
            read_in_flight: false,
            read_awaited: false,
            reads_started: 0,
            reads_completed: 0,
        };
        Self { name, state: Mutex::new(state), wake_reader: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock()
    }

    /// Takes in a published message. With `read_first`, nothing may be delivered without a read. Returns whether the caller
    /// has to start the reading task.
    fn notify(&self, payload: &[u8], read_first: bool, now: Instant) -> bool {
        let notification = Notification::parse(payload);
        let mut state = self.lock();
        if let Some(sender) = &state.raw_messages
            && sender.send(Bytes::copy_from_slice(payload)).is_err()
        {
            state.raw_messages = None;
        }
        match notification {
            Notification::System => false,
            Notification::Unknown => state.request_read(),
            Notification::Event(_) if !state.opened => state.request_read(),
            Notification::Event(event) => {
                let read_to = state.sequencer.read_to();
                // A read under way may bring the entry too; only its page tells.
                let read_first = read_first || state.read_in_flight;
                if state.sequencer.notify(event, read_first) {
                    return state.request_read();
                }
                if state.sequencer.read_to() != read_to {
                    state.last_id = state.sequencer.read_to();
                }
                state.flush_ready(now);
                // The entry that the reading task waits for may have gone out.
                self.wake_reader.notify_one();
                false
            }
        }
    }
}

impl ChannelState {
    fn register_waker(&mut self, member: usize, waker: &Waker) {
        if let Some(slot) = self.members.get_mut(member) {
            match slot {
                Some(known) if known.will_wake(waker) => {}
                _ => *slot = Some(waker.clone()),
            }
        }
    }

    /// Wakes all members that wait. Each registers again once it has taken everything.
    fn wake_members(&mut self) {
        for (_, slot) in &mut self.members {
            if let Some(waker) = slot.take() {
                waker.wake();
            }
        }
    }

    /// Requests a read. Returns whether the caller has to start the reading task, because there is none.
    #[must_use]
    fn request_read(&mut self) -> bool {
        self.read_requested = true;
        !std::mem::replace(&mut self.has_reader, true)
    }

    /// Moves frames that are ready from the sequencer to the buffer. Returns the deadline of the first staged entry that
    /// waits, if any.
    fn flush_ready(&mut self, now: Instant) -> Option<Instant> {
        let end_before = self.buffer.end_index();
        let (buffer, metrics) = (&mut self.buffer, &self.metrics);
        let deadline = self.sequencer.flush_ready(now, |frame| {
            match frame.gap {
                Some(reason) => metrics.gap(reason.as_str()),
                None => metrics.event_received(frame.position.ms),
            }
            buffer.push(frame);
        });
        if self.buffer.end_index() != end_before {
            self.wake_members();
        }
        deadline
    }
}
