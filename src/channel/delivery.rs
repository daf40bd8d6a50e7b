//! The delivery of new frames to a channel's streams, by tasks of their own: the task that takes in notifications never waits for a
//! socket, and no channel is locked while bytes are copied or a task is woken.
//!
//! A channel with news is queued once. A task takes it when the notifications that were ready have been taken in, so that a burst is one
//! write to each stream, and serves [`MEMBERS_PER_TURN`] of its members; then it is the next channel's turn.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::task::Waker;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::channel::cursor::Cursor;
use crate::channel::frame::SequencedFrame;
use crate::channel::{Channel, ChannelState};
use crate::telemetry::metrics::Metrics;

/// Streams of one channel that are served before the next channel: about half a millisecond of writes.
const MEMBERS_PER_TURN: usize = 64;
/// Frames that are delivered in one turn. A stream that has more to get reads them from the buffer itself.
const FRAMES_PER_TURN: usize = 64;

/// A stream that takes frames at once, without its task.
pub trait Subscriber: Send + Sync {
    /// Writes the frames of the batch that the stream does not have, or wakes its task if that is not possible. `reader` is the number from
    /// [`Membership::deliver_to`](crate::channel::membership::Membership::deliver_to), and `scratch` is any buffer.
    fn deliver(&self, reader: usize, batch: &Batch, scratch: &mut BytesMut) -> Written;
}

/// The amount that was written to a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub events: u64,
    /// Bytes of the stream, without the framing of HTTP.
    pub bytes: u64,
}

/// New frames of a channel, for many of its streams.
pub struct Batch {
    epoch: u32,
    /// The index of the first frame.
    first_index: u64,
    frames: Vec<SequencedFrame>,
    /// The buffer has no frames after these.
    is_complete: bool,
    pub now: Instant,
}

impl Batch {
    /// The frames after a cursor, with the index of the first one; `None` if the stream has to look for itself.
    pub fn after(&self, cursor: &Cursor) -> Option<(u64, &[SequencedFrame])> {
        let index = cursor.index_in(self.epoch)?;
        let offset = usize::try_from(index.checked_sub(self.first_index)?).ok()?;
        Some((index, self.frames.get(offset..)?))
    }

    /// Whether a stream that has all frames of the batch has all frames of the channel.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }
}

/// The channels with news for their members.
#[derive(Default)]
pub(super) struct DeliveryQueue {
    state: Mutex<QueueState>,
    added: Notify,
}

#[derive(Default)]
struct QueueState {
    channels: VecDeque<Arc<Channel>>,
    is_closed: bool,
}

impl DeliveryQueue {
    fn push(&self, channel: Arc<Channel>) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.channels.push_back(channel);
            drop(state);
            self.added.notify_one();
        }
    }

    /// Ends the tasks.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        // In a statement of its own: a channel is dropped without the lock.
        let channels = std::mem::take(&mut state.channels);
        drop((state, channels));
        self.added.notify_waiters();
        self.added.notify_one();
    }

    /// The next channel; `None` once the queue is closed.
    async fn next(&self) -> Option<Arc<Channel>> {
        loop {
            if let Some(channel) = self.state.lock().channels.pop_front() {
                return Some(channel);
            }
            if self.state.lock().is_closed {
                // For the next task.
                self.added.notify_one();
                return None;
            }
            self.added.notified().await;
            // Notifications that are ready are taken in first.
            tokio::task::yield_now().await;
        }
    }
}

/// Delivers until the queue is closed. Several tasks may serve one queue, and one channel.
pub(super) async fn deliver(queue: Arc<DeliveryQueue>, metrics: Arc<Metrics>) {
    let (mut turn, mut scratch) = (Turn::default(), BytesMut::new());
    while let Some(channel) = queue.next().await {
        let batch = channel.state.lock().begin_turn(&mut turn);
        drop(channel);
        let mut written = Written::default();
        if let Some(batch) = batch {
            for (subscriber, reader) in turn.subscribers.drain(..) {
                let to_one = subscriber.deliver(reader, &batch, &mut scratch);
                written.events += to_one.events;
                written.bytes += to_one.bytes;
            }
        }
        turn.subscribers.clear();
        turn.wakers.drain(..).for_each(Waker::wake);
        if written.bytes > 0 {
            metrics.events_sent.inc_by(written.events);
            metrics.stream_sent_bytes.inc_by(written.bytes);
        }
        tokio::task::yield_now().await;
    }
}

/// The members that are served in one turn.
#[derive(Default)]
struct Turn {
    subscribers: Vec<(Arc<dyn Subscriber>, usize)>,
    wakers: Vec<Waker>,
}

/// Where the delivery of a channel's frames to its members is.
pub(super) struct Delivery {
    channel: Weak<Channel>,
    queue: Arc<DeliveryQueue>,
    is_queued: bool,
    /// Members wait for something else than frames.
    wakes_all: bool,
    /// The round wakes all members.
    round_wakes: bool,
    /// Members that wait have all frames before this index.
    from: u64,
    /// The end of the buffer when the round began.
    round_end: u64,
    /// The slot that the round continues with; 0 before it begins.
    next_member: usize,
}

impl Delivery {
    pub fn new(channel: Weak<Channel>, queue: Arc<DeliveryQueue>) -> Self {
        Self {
            channel,
            queue,
            is_queued: false,
            wakes_all: false,
            round_wakes: false,
            from: 0,
            round_end: 0,
            next_member: 0,
        }
    }

    fn queue(&mut self) {
        if let Some(channel) = self.channel.upgrade().filter(|_| !self.is_queued) {
            self.is_queued = true;
            self.queue.push(channel);
        }
    }
}

impl ChannelState {
    /// Delivers new frames to all members that wait.
    pub(super) fn deliver_frames(&mut self) {
        if self.members.is_empty() {
            self.delivery.from = self.buffer.end_index();
        } else {
            self.delivery.queue();
        }
    }

    /// Wakes all members that wait, which look for the change themselves. Each registers again once it has taken everything.
    pub(super) fn wake_members(&mut self) {
        if !self.members.is_empty() {
            self.delivery.wakes_all = true;
            self.delivery.queue();
        }
    }

    /// Begins a turn, and queues the channel again if members or frames are left.
    fn begin_turn(&mut self, turn: &mut Turn) -> Option<Batch> {
        let (end, delivery) = (self.buffer.end_index(), &mut self.delivery);
        if delivery.next_member == 0 {
            delivery.round_end = end;
            delivery.round_wakes = std::mem::take(&mut delivery.wakes_all);
        }
        let from = delivery.from.max(self.buffer.first_index());
        let frames = self.buffer.frames_from(from).into_iter().flatten();
        let frames: Vec<_> = frames.take(FRAMES_PER_TURN).cloned().collect();
        let is_complete = from + frames.len() as u64 >= end;
        // Without frames if all of them are evicted: streams see that they miss some.
        let batch = (delivery.from < end).then(|| Batch {
            epoch: self.resets.epoch(),
            first_index: from,
            frames,
            is_complete,
            now: Instant::now(),
        });
        let mut slot = delivery.next_member;
        let slots = self.members.capacity();
        while slot < slots && turn.subscribers.len() + turn.wakers.len() < MEMBERS_PER_TURN {
            if let Some(member) = self.members.get_mut(slot) {
                let subscriber = member.subscriber.as_ref().filter(|_| !delivery.round_wakes);
                match subscriber.and_then(|(subscriber, reader)| Some((subscriber.upgrade()?, *reader))) {
                    Some(subscriber) => turn.subscribers.push(subscriber),
                    None => turn.wakers.extend(member.waker.take()),
                }
            }
            slot += 1;
        }
        delivery.is_queued = false;
        if slot < slots {
            delivery.next_member = slot;
            delivery.queue();
        } else {
            (delivery.next_member, delivery.from) = (0, delivery.round_end);
            if end != delivery.round_end || delivery.wakes_all {
                delivery.queue();
            }
        }
        batch
    }
}
