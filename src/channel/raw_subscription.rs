//! What is published on a channel, as it is.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::channel::membership::{Membership, OpenResult, StartPosition};

/// Messages that wait for their reader.
const TAP_MESSAGES: usize = 64;

/// What is published on a channel, as it is.
pub struct RawSubscription {
    membership: Membership,
    messages: broadcast::Receiver<Bytes>,
}

impl RawSubscription {
    pub(super) fn new(membership: Membership) -> Self {
        let messages = {
            let mut inner = membership.channel.inner();
            match &inner.tap {
                Some(tap) => tap.subscribe(),
                None => {
                    let (tap, messages) = broadcast::channel(TAP_MESSAGES);
                    inner.tap = Some(tap);
                    messages
                }
            }
        };
        Self { membership, messages }
    }

    /// Waits until the channel is subscribed to.
    pub async fn ready(&self) {
        let mut verified = None;
        poll_fn(|cx| match self.membership.open(StartPosition::Tail, &mut verified, cx.waker()) {
            OpenResult::Wait => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    /// The next message; `None` once this reader has been too slow for them.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.messages.recv().await.ok()
    }
}
