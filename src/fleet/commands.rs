//! The fleet's commands: entries of one stream of the store. Every node reads the stream to its end before any channel delivers
//! events, so a node that lost its link executes the commands that it missed before it delivers anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::hub::Hub;
use crate::event::{Body, NewEvent, StreamId};
use crate::fleet::node_status::live_nodes;
use crate::store::command::{Reply, RestCommand};
use crate::store::fleet_keys::FleetKeys;
use crate::store::{EventStore, ReadLimits, ReadRequest, Retention, StoreError};
use crate::util::backoff::Backoff;

/// The event name of a command.
const COMMAND_EVENT: &str = "command";
/// Commands that the stream keeps. A node that misses more of them resynchronizes.
const MAX_COMMANDS: u64 = 10_000;
/// Replies to one command that the store keeps.
const MAX_REPLIES: u64 = 1_000;
/// Life of the replies to a command.
const REPLY_EXPIRY_SECONDS: u64 = 60;
/// Time between two reads of the replies to a command.
const REPLY_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Entries of one read.
const MAX_READ_ENTRIES: usize = 256;
/// Bytes of one read.
const MAX_READ_BYTES: usize = 256 << 10;
/// Bytes of one command.
const MAX_COMMAND_BYTES: usize = 64 << 10;
const READ_LIMITS: ReadLimits =
    ReadLimits { entries: MAX_READ_ENTRIES, bytes: MAX_READ_BYTES, max_event: MAX_COMMAND_BYTES };

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

/// Why the handler must resynchronize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncReason {
    /// The node has started, and no command was ever sent.
    First,
    /// The node has started; it does not read the commands before its start.
    Start,
    /// Commands were trimmed before this node read them.
    Missed,
    /// The store lost its latest commands, or all of them.
    StoreReset,
}

/// How far the stream was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// The last entry that was read.
    at: StreamId,
    /// Entries ever added to the stream, up to that one.
    added: u64,
    entry: LastEntry,
}

/// Whether the stream had an entry at the position when that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastEntry {
    /// The stream's state was read, without its entries.
    Unknown,
    /// An entry of this id was read: while it is there, the store has lost no command before it.
    Read,
    /// There was none, because it was deleted, or the stream is empty.
    Missing,
}

/// A node's reply to a command.
#[derive(Serialize, Deserialize)]
struct CommandReply {
    node: String,
    answer: Value,
}

/// The result of one read to the end of the stream.
#[derive(Default)]
struct Batch {
    /// The id of each command, and the reply to its sender.
    replies: Vec<(StreamId, Value)>,
    /// Entries that are not valid commands. Only the first of them and their number are logged, so that many of them do not fill the log.
    skipped: u64,
}

/// Executes commands.
#[async_trait]
pub trait CommandHandler: Send + Sync {
    /// Executes a command, a JSON object. No channel delivers events before this returns, so it must neither block nor wait. The value is
    /// the reply to the sender; an error says why the command is invalid.
    fn handle(&self, command: &str) -> Result<Value, String>;

    /// Completes what commands have begun and what needs a read of the store. Called after each read to the end of the commands, also if there
    /// were none. No channel delivers events before it succeeds.
    async fn settle(&self) -> Result<(), StoreError>;

    /// Reads the state that missed commands would have set. No channel delivers events before it succeeds.
    async fn resync(&self, reason: ResyncReason) -> Result<(), StoreError>;
}

/// Reads the fleet's commands on this node, and passes them to the handler.
pub struct Commands {
    store: Arc<dyn EventStore>,
    barrier: Arc<CommandBarrier>,
    keys: FleetKeys,
    node: String,
    handler: Arc<dyn CommandHandler>,
}

impl Commands {
    /// The commands of the fleet with these keys, for a node of this name. Until [`Self::run`] has read them to their end, the hub's
    /// channels wait.
    pub fn new(hub: &Hub, keys: FleetKeys, node: String, handler: Arc<dyn CommandHandler>) -> Self {
        let barrier = hub.add_barrier(&keys.commands());
        Self { store: Arc::clone(hub.store()), barrier, keys, node, handler }
    }

    pub const fn keys(&self) -> &FleetKeys {
        &self.keys
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether this node has processed all commands, as far as it knows while its link is up.
    pub fn are_synced(&self) -> bool {
        self.barrier.is_synced()
    }

    /// Whether this node has proved that it reads from the store's current master, if the store needs that. Without a proof it delivers no
    /// events.
    pub fn is_master_proven(&self) -> bool {
        self.barrier.is_master_proven()
    }

    /// Waits until this node has processed all commands.
    pub async fn wait_synced(&self) {
        self.barrier.wait_synced().await;
    }

    /// Reads and executes commands, for the life of the process.
    pub async fn run(self: Arc<Self>) {
        let (key, mut position) = (self.keys.commands(), None);
        let (mut retry, mut unsubscribed_intervals) = (Backoff::new(MIN_RETRY_DELAY, MAX_RETRY_DELAY), 0);
        let mut failed = false;
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
            let read = match self.read_on(&mut position, &mut batch).await {
                Ok(at) => self.handler.settle().await.map(|()| at),
                Err(error) => Err(error),
            };
            if batch.skipped > 1 {
                tracing::warn!(
                    entries = batch.skipped,
                    "entries of {key} were skipped; the first of them is logged above"
                );
            }
            match read {
                Ok(at) => {
                    retry.reset();
                    if std::mem::take(&mut failed) {
                        tracing::info!("the commands in {key} can be read again: event delivery continues");
                    }
                    self.barrier.set_read_to(at);
                    if let Some(catch_up) = catch_up {
                        self.barrier.mark_synced(catch_up);
                    }
                }
                Err(error) => {
                    // Without a notification too: there may be a command that this node cannot read.
                    self.barrier.mark_unsynced();
                    let was_failed = std::mem::replace(&mut failed, true);
                    if !error.is_transient() {
                        tracing::error!(%error, "the commands in {key} cannot be read: event delivery is paused");
                    } else if !was_failed {
                        tracing::warn!(%error, "the commands in {key} cannot be read for now: event delivery is paused");
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
            // The last entry is read again. A store that lost it may have got as many others since, so that neither their number nor their ids
            // tell of the loss.
            let reads_again = read.entry != LastEntry::Missing && read.at > StreamId::ZERO;
            let request = ReadRequest { is_entry: reads_again, ..ReadRequest::with_state(read.at) };
            let page = self.store.read(&self.keys.commands(), request, READ_LIMITS).await?;
            let (state, is_there) = (page.stream.unwrap_or_default(), page.has_after);
            // Trimming removes the oldest entries, so the stream then begins after the position.
            let is_lost = read.entry == LastEntry::Read && !is_there && state.first.is_none_or(|first| first < read.at);
            if state.last < read.at || state.added < read.added || is_lost {
                *read = self.resync(ResyncReason::StoreReset).await?;
                continue;
            }
            if reads_again {
                read.entry = if is_there { LastEntry::Read } else { LastEntry::Missing };
            }
            let last_entry = page.entries.last().map(|(id, _)| *id);
            for (id, body) in page.entries {
                self.handle(id, body, batch);
                // After a long outage there are thousands of commands, and each visits all streams.
                tokio::task::yield_now().await;
                *read = Position { at: id, added: read.added + 1, entry: LastEntry::Read };
            }
            if page.complete {
                if state.added != read.added {
                    *read = self.resync(ResyncReason::Missed).await?;
                    continue;
                }
                let read_to = page.barrier_position.or(last_entry).unwrap_or(read.at);
                if read.at != state.last {
                    *read = Position { at: state.last, entry: LastEntry::Missing, ..*read };
                }
                return Ok(read_to);
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
        let limits = ReadLimits { entries: 0, ..READ_LIMITS };
        let request = ReadRequest::with_state(StreamId::ZERO);
        let state = self.store.read(&self.keys.commands(), request, limits).await?.stream.unwrap_or_default();
        let reason = if reason == ResyncReason::Start && state.added == 0 { ResyncReason::First } else { reason };
        self.handler.resync(reason).await?;
        Ok(Position { at: state.last, added: state.added, entry: LastEntry::Unknown })
    }

    fn handle(&self, id: StreamId, body: Body, batch: &mut Batch) {
        let result = match body.into_event() {
            Some((event, data)) if event == COMMAND_EVENT => self.handler.handle(&data),
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

/// The nodes' replies to a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandReplies {
    /// The replies, by node name.
    pub by_node: BTreeMap<String, Value>,
    /// Subscribed or live nodes that did not reply in time.
    pub missing: usize,
}

/// The names of the live nodes. The report about a command does not fail because they cannot be listed.
async fn live_names(store: &dyn EventStore, keys: &FleetKeys) -> Vec<String> {
    let Some(fleet) = store.fleet(keys) else { return Vec::new() };
    live_nodes(&*fleet).await.unwrap_or_default().into_iter().map(|node| node.name).collect()
}

/// Sends a command, a JSON object with a `kind`, to all nodes. Returns its id.
pub async fn send(store: &dyn EventStore, keys: &FleetKeys, command: &Value) -> Result<StreamId, StoreError> {
    let retention = Retention { max_length: Some(MAX_COMMANDS), expire_seconds: None };
    store.emit(&keys.commands(), &NewEvent::new(COMMAND_EVENT, command), retention).await
}

/// Sends a command, a JSON object with a `kind`, to all nodes, and waits until every node has replied that is subscribed or live, or until the
/// timeout.
pub async fn send_and_wait(
    store: &dyn EventStore,
    keys: &FleetKeys,
    command: &Value,
    timeout: Duration,
) -> Result<CommandReplies, StoreError> {
    // Redis answers to a publish with the number of subscribers; on a Cluster with those of one server, which are some of the live nodes.
    let ping = RestCommand::Publish { key: keys.commands(), message: json!({ "type": "ping" }).to_string() };
    let subscribed = match store.command(&ping).await? {
        Reply::Int(count) => usize::try_from(count).unwrap_or(0),
        _ => 0,
    };
    let live = live_names(store, keys).await;
    let id = send(store, keys, command).await?;
    let key = keys.command_replies(id);
    let until = Instant::now() + timeout;
    let (mut replies, mut after, mut received) = (CommandReplies::default(), StreamId::ZERO, 0);
    let is_complete = |received, replies: &CommandReplies| {
        received >= subscribed && live.iter().all(|name| replies.by_node.contains_key(name))
    };
    while !is_complete(received, &replies) && Instant::now() < until {
        tokio::time::sleep(REPLY_POLL_INTERVAL).await;
        // The command was sent already, so an error of this read must not look like an error of the command.
        let request = ReadRequest::with_state(after);
        let Ok(Ok(page)) = tokio::time::timeout_at(until, store.read(&key, request, READ_LIMITS)).await else {
            continue;
        };
        for (at, body) in page.entries {
            after = at;
            received += 1;
            if let Some((_, data)) = body.into_event()
                && let Ok(CommandReply { node, answer }) = serde_json::from_str(&data)
            {
                // Two nodes may have the same name by mistake.
                let mut names = std::iter::once(node.clone()).chain((2..).map(|n| format!("{node} ({n})")));
                let name = names.find(|name| !replies.by_node.contains_key(name));
                replies.by_node.insert(name.unwrap_or_default(), answer);
            }
        }
    }
    replies.missing = subscribed.saturating_sub(received);
    if !is_complete(received, &replies) {
        // A node that has ended meanwhile is not missed.
        let live = live_names(store, keys).await;
        replies.missing = replies.missing.max(live.iter().filter(|name| !replies.by_node.contains_key(*name)).count());
    }
    Ok(replies)
}

/// Writes the replies to commands, for the senders that wait for them.
async fn reply(store: Arc<dyn EventStore>, keys: FleetKeys, node: String, replies: Vec<(StreamId, Value)>) {
    let retention = Retention { max_length: Some(MAX_REPLIES), expire_seconds: Some(REPLY_EXPIRY_SECONDS) };
    // After a long outage no sender waits for the older replies.
    let old = replies.len().saturating_sub(MAX_REPLIES_PER_BATCH);
    for (id, answer) in replies.into_iter().skip(old) {
        let event = NewEvent::new("answer", &json!(CommandReply { node: node.clone(), answer }));
        if let Err(error) = store.emit(&keys.command_replies(id), &event, retention).await {
            tracing::debug!(%error, "the reply to a command cannot be written");
            return;
        }
    }
}
