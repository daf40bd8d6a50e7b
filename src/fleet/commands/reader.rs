//! Reads the fleet's commands from the store, and passes them to the handler.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::event::{Body, NewEvent, StreamId};
use crate::fleet::commands::{COMMAND_EVENT, Commands, MAX_REPLIES, READ_LIMITS, REPLY_EXPIRY_SECONDS, ResyncReason};
use crate::store::fleet_keys::FleetKeys;
use crate::store::{EventStore, Limits, Retention, StoreError};
use crate::util::backoff::Backoff;

/// Time between reads without a notification: one can get lost although its link stays up.
const POLL_INTERVAL: Duration = Duration::from_millis(700);
/// The first delay after a failed read.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(50);
/// The longest delay after failed reads.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Poll intervals without a subscription, after which an error is logged.
const MAX_UNSUBSCRIBED_INTERVALS: u32 = 4;
/// Replies to the commands of one batch.
const MAX_REPLIES_PER_BATCH: usize = 64;

/// How far the stream was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    /// The last entry that was read.
    at: StreamId,
    /// Entries ever added to the stream, up to that one.
    added: u64,
}

/// The id of a command, and the reply to its sender.
type CommandReply = (StreamId, Value);

/// The result of one read to the end of the stream.
#[derive(Default)]
struct Batch {
    replies: Vec<CommandReply>,
    /// Entries that are not valid commands. Only the first of them and their number are logged, so that many of them do not fill the log.
    skipped: u64,
}

impl Commands {
    /// Reads and executes commands, for the life of the process.
    pub async fn run(self: Arc<Self>) {
        let (key, mut position) = (self.keys.commands(), None);
        let (mut retry, mut unsubscribed_intervals) = (Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY), 0);
        loop {
            let catch_up = tokio::time::timeout(POLL_INTERVAL, self.barrier.wait_work()).await.ok();
            if catch_up.is_none() && !self.barrier.is_synced() {
                unsubscribed_intervals += 1;
                if unsubscribed_intervals == MAX_UNSUBSCRIBED_INTERVALS && self.store.ping().await.is_ok() {
                    tracing::error!(
                        "event delivery is paused, for the node cannot subscribe to {key}: the store's user needs access to that channel and that key"
                    );
                }
                continue;
            }
            unsubscribed_intervals = 0;
            let mut batch = Batch::default();
            let read = self.read_on(&mut position, &mut batch).await;
            if batch.skipped > 1 {
                tracing::warn!(
                    entries = batch.skipped,
                    "entries of {key} were skipped; the first of them is logged above"
                );
            }
            match read {
                Ok(at) => {
                    retry.reset();
                    self.barrier.set_read_to(at);
                    if let Some(catch_up) = catch_up {
                        self.barrier.mark_synced(catch_up);
                    }
                }
                Err(error) => {
                    // Without a notification too: there may be a command that this node cannot read.
                    self.barrier.mark_unsynced();
                    if !matches!(error, StoreError::Unavailable(_)) {
                        tracing::error!(%error, "the commands in {key} cannot be read: event delivery is paused");
                    }
                    tokio::time::sleep(retry.next_delay()).await;
                }
            }
            if !batch.replies.is_empty() {
                tokio::spawn(reply(Arc::clone(&self.store), self.keys.clone(), self.node.clone(), batch.replies));
            }
        }
    }

    /// Reads to the end of the stream, and executes the commands. Returns the id of the last entry, which may have been trimmed or deleted
    /// meanwhile.
    async fn read_on(&self, position: &mut Option<Position>, batch: &mut Batch) -> Result<StreamId, StoreError> {
        loop {
            let Some(read) = position else {
                *position = Some(self.resync(ResyncReason::Start).await?);
                continue;
            };
            let page = self.store.read(&self.keys.commands(), read.at, READ_LIMITS).await?;
            let state = page.stream.unwrap_or_default();
            if state.last < read.at || state.added < read.added {
                *read = self.resync(ResyncReason::StoreReset).await?;
                continue;
            }
            for (id, body) in page.entries {
                self.handle(id, &body, batch);
                // After a long outage there are thousands of commands, and each visits all streams.
                tokio::task::yield_now().await;
                *read = Position { at: id, added: read.added + 1 };
            }
            if page.complete {
                if state.added != read.added {
                    *read = self.resync(ResyncReason::Missed).await?;
                    continue;
                }
                read.at = state.last;
                return Ok(page.barrier_position);
            }
        }
    }

    /// Skips to the end of the stream, after the handler has resynchronized.
    async fn resync(&self, reason: ResyncReason) -> Result<Position, StoreError> {
        match reason {
            ResyncReason::First | ResyncReason::Start => {}
            ResyncReason::Missed => tracing::warn!("commands of the fleet were trimmed before they were read here"),
            ResyncReason::StoreReset => tracing::warn!("the store holds fewer commands of the fleet than it did"),
        }
        // Commands after this position are read. The state that the handler reads next contains the effect of those before.
        let limits = Limits { entries: 0, ..READ_LIMITS };
        let state = self.store.read(&self.keys.commands(), StreamId::ZERO, limits).await?.stream.unwrap_or_default();
        let reason = if reason == ResyncReason::Start && state.added == 0 { ResyncReason::First } else { reason };
        self.handler.resync(reason).await?;
        Ok(Position { at: state.last, added: state.added })
    }

    fn handle(&self, id: StreamId, body: &Body, batch: &mut Batch) {
        let result = match body {
            Body::Event { event, data, .. } if event == COMMAND_EVENT => self.handler.handle(data),
            _ => Err("it is not a command".into()),
        };
        match result {
            Ok(reply) => batch.replies.push((id, reply)),
            Err(reason) => {
                batch.skipped += 1;
                if batch.skipped == 1 {
                    let key = self.keys.commands();
                    tracing::error!(%id, reason, "an entry of {key} is not a valid command of this version: it is skipped");
                }
            }
        }
    }
}

/// Writes the replies to commands, for the senders that wait for them.
async fn reply(store: Arc<dyn EventStore>, keys: FleetKeys, node: String, replies: Vec<CommandReply>) {
    let retention = Retention { max_length: Some(MAX_REPLIES), expire_seconds: Some(REPLY_EXPIRY_SECONDS) };
    // After a long outage nobody waits for the older replies.
    let old = replies.len().saturating_sub(MAX_REPLIES_PER_BATCH);
    for (id, answer) in replies.into_iter().skip(old) {
        let event = NewEvent::new("answer", &json!({ "node": node, "answer": answer }));
        if let Err(error) = store.emit(&keys.command_replies(id), &event, retention).await {
            tracing::debug!(%error, "the reply to a command cannot be written");
            return;
        }
    }
}
