//! Subscriptions to the raw messages of channels. Each has a queue, because its reader may be slower than the publishers; queues are
//! bounded in bytes, each and all together. As in Redis, a subscriber that is too slow loses what waits for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

use crate::channel::budget::ByteBudget;
use crate::channel::cursor::StartPosition;
use crate::channel::membership::{Membership, OpenResult};
use crate::event::StreamId;
use crate::util::allocation::allocation;

/// Bytes of messages that wait for one subscriber: the limit of Redis for a subscriber that stays behind. Larger if one event may be.
const MAX_QUEUE_BYTES: usize = 8 << 20;
/// The limit of all subscribers together, as a multiple of that of one.
const TOTAL_FACTOR: usize = 4;
/// What a message costs in addition to its bytes: the item of the queue, and the allocation.
const MESSAGE_OVERHEAD_BYTES: usize = 96;

/// The queues of all raw subscriptions of a node.
#[derive(Debug)]
pub struct RawQueues {
    /// Of one queue.
    limit_bytes: usize,
    budget: ByteBudget,
    queues: Mutex<Slab<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    /// Of the messages, and of the one that the subscriber has taken and may still be sending.
    bytes: usize,
    sending_bytes: usize,
    /// Messages were dropped, and the subscriber does not know yet.
    is_late: bool,
    wake: Arc<Notify>,
}

impl RawQueues {
    pub fn new(max_event_size: usize) -> Self {
        let limit_bytes = MAX_QUEUE_BYTES.max(max_event_size);
        let budget = ByteBudget::new(limit_bytes.saturating_mul(TOTAL_FACTOR));
        Self { limit_bytes, budget, queues: Mutex::default() }
    }

    fn push(&self, key: usize, message: Bytes) {
        let size = size(&message);
        let queues = &mut *self.queues.lock();
        let fits = |queue: &Queue| !queue.is_late && queue.bytes.saturating_add(size) <= self.limit_bytes;
        let is_taken = queues.get(key).is_some_and(fits) && self.take(queues, key, size);
        let Some(queue) = queues.get_mut(key) else { return };
        if is_taken {
            queue.bytes += size;
            queue.messages.push_back(message);
        } else {
            self.drop_messages(queue);
        }
        queue.wake.notify_one();
    }

    /// Takes memory of the budget. If it is used up, those who have the most lose it first.
    fn take(&self, queues: &mut Slab<Queue>, key: usize, size: usize) -> bool {
        while !self.budget.try_take(size) {
            let Some((largest, queue)) =
                queues.iter_mut().filter(|(_, queue)| !queue.messages.is_empty()).max_by_key(|(_, queue)| queue.bytes)
            else {
                return false;
            };
            self.drop_messages(queue);
            queue.wake.notify_one();
            if largest == key {
                return false;
            }
        }
        true
    }

    fn drop_messages(&self, queue: &mut Queue) {
        queue.messages = VecDeque::new();
        self.budget.release(queue.bytes - queue.sending_bytes);
        queue.bytes = queue.sending_bytes;
        queue.is_late = true;
    }

    fn remove(&self, key: usize) {
        let queue = self.queues.lock().try_remove(key);
        self.budget.release(queue.map_or(0, |queue| queue.bytes));
    }
}

fn size(message: &Bytes) -> usize {
    MESSAGE_OVERHEAD_BYTES + allocation(message.len())
}

/// The raw subscriptions of one channel.
pub(super) struct RawMessages {
    queues: Arc<RawQueues>,
    keys: Vec<usize>,
}

impl RawMessages {
    pub fn new(queues: Arc<RawQueues>) -> Self {
        Self { queues, keys: Vec::new() }
    }

    /// Passes a published message to the subscribers.
    pub fn publish(&self, payload: &[u8]) {
        if self.keys.is_empty() {
            return;
        }
        let message = Bytes::copy_from_slice(payload);
        self.keys.iter().for_each(|key| self.queues.push(*key, message.clone()));
    }
}

/// Receives the messages that are published on a channel, unchanged: for `/redis/subscribe` and the fleet's notifications.
pub struct RawSubscription {
    membership: Membership,
    queues: Arc<RawQueues>,
    key: usize,
    wake: Arc<Notify>,
}

impl RawSubscription {
    pub(super) fn new(membership: Membership) -> Self {
        let mut channel = membership.channel.state.lock();
        let (queues, queue) = (Arc::clone(&channel.raw_messages.queues), Queue::default());
        let wake = Arc::clone(&queue.wake);
        let key = queues.queues.lock().insert(queue);
        channel.raw_messages.keys.push(key);
        drop(channel);
        Self { membership, queues, key, wake }
    }

    /// Waits until the subscription to the channel is confirmed.
    pub async fn ready(&self) {
        let mut required_read = None;
        poll_fn(|cx| match self.membership.open(StartPosition::Tail, StreamId::ZERO, &mut required_read, cx.waker()) {
            OpenResult::Pending => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// The next message; `None` if this subscriber was too slow and messages were dropped.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            // Bound first, so that the lock is not held while this waits.
            let next = self.try_next();
            match next {
                Some(next) => return next,
                None => self.wake.notified().await,
            }
        }
    }

    /// `None` if no message waits.
    fn try_next(&self) -> Option<Option<Bytes>> {
        let mut queues = self.queues.queues.lock();
        let queue = queues.get_mut(self.key)?;
        self.queues.budget.release(queue.sending_bytes);
        queue.bytes -= std::mem::take(&mut queue.sending_bytes);
        if std::mem::take(&mut queue.is_late) {
            return Some(None);
        }
        let message = queue.messages.pop_front()?;
        queue.sending_bytes = size(&message);
        Some(Some(message))
    }
}

impl Drop for RawSubscription {
    fn drop(&mut self) {
        self.membership.channel.state.lock().raw_messages.keys.retain(|key| *key != self.key);
        self.queues.remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(limit_bytes: usize, total: usize, subscribers: usize) -> RawQueues {
        let queues = Mutex::new((0..subscribers).map(|key| (key, Queue::default())).collect());
        RawQueues { limit_bytes, budget: ByteBudget::new(total), queues }
    }

    /// The number of messages of each queue and whether it is late.
    fn state(queues: &RawQueues) -> Vec<(usize, bool)> {
        queues.queues.lock().iter().map(|(_, queue)| (queue.messages.len(), queue.is_late)).collect()
    }

    #[test]
    fn messages_for_a_slow_subscriber_are_bounded_in_bytes() {
        let cost = allocation(1000) + MESSAGE_OVERHEAD_BYTES;
        let queues = queues(10 * cost, 1000 * cost, 2);
        let message = || Bytes::from(vec![b'x'; 1000]);
        (0..10).for_each(|_| queues.push(0, message()));
        assert_eq!((state(&queues), queues.budget.used()), (vec![(10, false), (0, false)], 10 * cost));
        // Later messages are dropped too, until the subscriber knows.
        (0..10).for_each(|_| queues.push(0, message()));
        queues.push(1, message());
        assert_eq!((state(&queues), queues.budget.used()), (vec![(0, true), (1, false)], cost));
        // Small messages cost more than their bytes.
        (0..1000).for_each(|_| queues.push(1, Bytes::from_static(b"x")));
        assert_eq!((state(&queues)[1], queues.budget.used()), ((0, true), 0));
        queues.remove(0);
        queues.remove(1);
        assert_eq!(queues.budget.used(), 0);
    }

    #[test]
    fn subscriber_with_the_most_messages_loses_them_first() {
        let cost = allocation(1000) + MESSAGE_OVERHEAD_BYTES;
        let queues = queues(6 * cost, 10 * cost, 3);
        let push = |key, count| (0..count).for_each(|_| queues.push(key, Bytes::from(vec![b'x'; 1000])));
        push(0, 6);
        push(1, 4);
        assert_eq!(state(&queues), [(6, false), (4, false), (0, false)]);
        push(2, 1);
        assert_eq!(state(&queues), [(0, true), (4, false), (1, false)]);
        assert_eq!(queues.budget.used(), 5 * cost);
        // One message that exceeds the limit.
        queues.push(2, Bytes::from(vec![b'x'; 7 * cost]));
        assert_eq!(state(&queues), [(0, true), (4, false), (0, true)]);
    }
}
