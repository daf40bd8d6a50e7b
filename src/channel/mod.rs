//! Channels: each has an event buffer in stream order, which all its streams share. The hub owns the channels, the reader
//! fills their buffers from the store, and memberships take from them.

pub(crate) mod barrier;
pub(crate) mod budget;
pub(crate) mod buffer;
mod command_check;
pub(crate) mod cursor;
pub(crate) mod delivery;
mod fence;
pub(crate) mod frame;
pub mod hub;
pub(crate) mod lifetimes;
mod master_proof;
pub(crate) mod membership;
pub(crate) mod raw_subscription;
pub(crate) mod reader;
mod reconciliation;
pub(crate) mod replay_source;
mod resets;
pub(crate) mod sequencer;

use std::sync::{Arc, Weak};
use std::task::Waker;

use parking_lot::{Mutex, MutexGuard};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::channel::buffer::EventBuffer;
use crate::channel::delivery::Delivery;
use crate::channel::hub::HubShared;
use crate::channel::lifetimes::Due;
use crate::channel::membership::Member;
use crate::channel::raw_subscription::RawMessages;
use crate::channel::reader::StoreReader;
use crate::channel::resets::Resets;
use crate::channel::sequencer::Sequencer;
use crate::event::{Notification, StreamId};
use crate::telemetry::metrics::Metrics;
use crate::util::client_key::ClientKey;
use crate::util::client_shares::ClientShare;

/// One channel of this node.
pub struct Channel {
    /// The channel's name, which is its key in the store.
    name: Arc<str>,
    state: Mutex<ChannelState>,
    reader: Arc<StoreReader>,
    hub: Weak<HubShared>,
    /// Wakes the reading task, if there is one, to decide again. It keeps one permit, so that a wake-up between two looks at
    /// the state is not lost.
    wake_reader: Notify,
    /// Wakes replays that wait until the channel is proven.
    proven: Notify,
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
    /// The store refuses the subscription. The store's task tries again.
    Refused,
}

impl Link {
    /// Whether reads make sense: the next confirmation of the subscription requests one.
    const fn is_subscribed(self) -> bool {
        !matches!(self, Self::Down | Self::Refused)
    }
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
    resets: Resets,
    /// Counts the times at which another master of the channel's key may have taken over. A page of a read that began before does not count.
    takeovers: u32,
    members: Slab<Member>,
    delivery: Delivery,
    /// What the channel costs, as a share of a member; `None` without members, and for the gateway's own channels.
    share: Option<ClientShare>,
    /// The hub's key of this channel.
    due: Due,
    /// Receives the published messages, if there are raw subscriptions.
    raw_messages: RawMessages,
    reads: Reads,
}

/// The reads of a channel by its reading task.
#[derive(Default)]
struct Reads {
    /// There is a reading task. It looks at `requested` before it ends.
    has_task: bool,
    requested: bool,
    in_flight: bool,
    /// A stream waits for a read that shows where the stream ends.
    awaited: bool,
    /// The reading task waits for a permit; and the clients that joined since it began to wait.
    waits_for_permit: bool,
    joined_while_waiting: Vec<Arc<ClientKey>>,
    /// Reads are numbered from one. These are the numbers of the last one that was started and of the last one that was
    /// absorbed.
    started: u64,
    completed: u64,
}

impl Channel {
    /// Takes in a published message.
    fn notify(self: &Arc<Self>, payload: &[u8], now: Instant) {
        let mut state = self.state.lock();
        state.raw_messages.publish(payload);
        // An event over the limit is not parsed: it only requests a read.
        let is_parsed = payload.len() <= self.reader.max_event_size;
        match if is_parsed { Notification::parse(payload) } else { Notification::Unknown } {
            Notification::System => return,
            Notification::Event(event) if state.opened => {
                if state.sequencer.notify(event) {
                    return self.request_read(state);
                }
            }
            Notification::Event(_) | Notification::Unknown => return self.request_read(state),
        }
        state.flush_ready(now);
        drop(state);
        // The entry that the reading task waits for may have gone out.
        self.wake_reader.notify_one();
    }

    /// Another master may have taken over: the channel has to prove what it read.
    fn require_proof(self: &Arc<Self>, mut state: MutexGuard<'_, ChannelState>) {
        state.takeovers = state.takeovers.wrapping_add(1);
        if state.opened {
            state.sequencer.require_proof();
        }
        if state.link.is_subscribed() {
            self.request_read(state);
        }
    }

    /// Requests a read from the reading task, and starts the task if there is none.
    fn request_read(self: &Arc<Self>, mut state: MutexGuard<'_, ChannelState>) {
        state.reads.requested = true;
        let has_task = std::mem::replace(&mut state.reads.has_task, true);
        drop(state);
        if has_task {
            self.wake_reader.notify_one();
        } else {
            tokio::spawn(Arc::clone(self).read_until_quiet());
        }
    }
}

impl ChannelState {
    fn register_waker(&mut self, member: usize, waker: &Waker) {
        match self.members.get_mut(member) {
            Some(Member { waker: Some(known), .. }) if known.will_wake(waker) => {}
            Some(member) => member.waker = Some(waker.clone()),
            None => {}
        }
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
            self.deliver_frames();
        }
        deadline
    }
}
