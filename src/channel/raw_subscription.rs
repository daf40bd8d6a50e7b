//! A subscription to the raw messages of a channel, for `/redis/subscribe` and the fleet's change notifications.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::channel::membership::{Membership, OpenResult, StartPosition};

/// Messages of a channel that wait for its slowest subscriber.
const MAX_WAITING_MESSAGES: usize = 64;

/// Receives the messages that are published on a channel, unchanged.
pub struct RawSubscription {
    membership: Membership,
    messages: broadcast::Receiver<Bytes>,
}

impl RawSubscription {
    pub(super) fn new(membership: Membership) -> Self {
        let mut channel = membership.channel.state.lock();
        let sender = channel.raw_messages.get_or_insert_with(|| broadcast::Sender::new(MAX_WAITING_MESSAGES));
        let messages = sender.subscribe();
        drop(channel);
        Self { membership, messages }
    }

    /// Waits until the subscription to the channel is confirmed.
    pub async fn ready(&self) {
        let mut required_read = None;
        poll_fn(|cx| match self.membership.open(StartPosition::Tail, &mut required_read, cx.waker()) {
            OpenResult::Pending => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// The next message; `None` if this subscriber was too slow and messages were dropped.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.messages.recv().await.ok()
    }
}
