//! The fleet's commands: entries of one stream of the store. Every node reads the stream to its end before any channel delivers
//! events, so a node that lost its link executes the commands that it missed before it delivers anything.

pub(crate) mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::hub::Hub;
use crate::event::{Body, NewEvent, StreamId};
use crate::store::command::{Command, Reply};
use crate::store::fleet_keys::FleetKeys;
use crate::store::{EventStore, Limits, Retention, StoreError};

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
const READ_LIMITS: Limits = Limits { entries: MAX_READ_ENTRIES, bytes: MAX_READ_BYTES, max_event: MAX_COMMAND_BYTES };

/// Why the handlers have to resynchronize.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncReason {
    /// The node has started, and no command was ever sent.
    First,
    /// The node has started, and does not read the commands before that.
    Start,
    /// Commands were trimmed before this node read them.
    Missed,
    /// The store lost its latest commands, or all of them.
    StoreReset,
}

/// Executes commands.
#[async_trait]
pub trait CommandHandler: Send + Sync {
    /// Executes a command, a JSON object. No channel delivers events before this returns, so it must neither block nor wait. The value is
    /// the reply to the sender; an error says what is wrong with the command.
    fn handle(&self, command: &str) -> Result<Value, String>;

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
    #[must_use]
    pub fn new(hub: &Hub, keys: FleetKeys, node: String, handler: Arc<dyn CommandHandler>) -> Self {
        let barrier = hub.add_barrier(&keys.commands());
        Self { store: Arc::clone(hub.store()), barrier, keys, node, handler }
    }

    #[must_use]
    pub const fn keys(&self) -> &FleetKeys {
        &self.keys
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether this node has processed all commands, as far as it knows while its link is up.
    #[must_use]
    pub fn are_synced(&self) -> bool {
        self.barrier.is_synced()
    }

    /// Waits until this node has processed all commands.
    pub async fn wait_synced(&self) {
        self.barrier.wait_synced().await;
    }
}

/// The nodes' replies to a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandReplies {
    /// The replies, by node name.
    pub by_node: BTreeMap<String, Value>,
    /// Subscribed nodes that did not reply in time.
    pub missing: usize,
}

/// Sends a command, a JSON object with a `kind`, to all nodes, and waits until every subscribed node has replied, or until the timeout.
pub async fn send_and_wait(
    store: &dyn EventStore,
    keys: &FleetKeys,
    command: &Value,
    timeout: Duration,
) -> Result<CommandReplies, StoreError> {
    // Redis answers to a publish with the number of subscribers.
    let ping = Command::Publish { key: keys.commands(), message: json!({ "type": "ping" }).to_string() };
    let subscribed = match store.command(&ping).await? {
        Reply::Int(count) => usize::try_from(count).unwrap_or(0),
        _ => 0,
    };
    let retention = Retention { max_length: Some(MAX_COMMANDS), expire_seconds: None };
    let id = store.emit(&keys.commands(), &NewEvent::new(COMMAND_EVENT, command), retention).await?;
    let key = keys.command_replies(id);
    let until = Instant::now() + timeout;
    let (mut replies, mut after, mut received) = (CommandReplies::default(), StreamId::ZERO, 0);
    while received < subscribed && Instant::now() < until {
        tokio::time::sleep(REPLY_POLL_INTERVAL).await;
        // The command was sent already, so an error of this read must not look like an error of the command.
        let Ok(Ok(page)) = tokio::time::timeout_at(until, store.read(&key, after, READ_LIMITS)).await else { continue };
        for (at, body) in page.entries {
            after = at;
            received += 1;
            if let Some((node, reply)) = parse_reply(&body) {
                let name = (2..).map(|n| format!("{node} ({n})"));
                // Two nodes may have the same name by mistake.
                let name = std::iter::once(node.clone()).chain(name).find(|name| !replies.by_node.contains_key(name));
                replies.by_node.insert(name.unwrap_or(node), reply);
            }
        }
    }
    replies.missing = subscribed.saturating_sub(received);
    Ok(replies)
}

fn parse_reply(body: &Body) -> Option<(String, Value)> {
    let Body::Event { data, .. } = body else { return None };
    let mut reply: Map<String, Value> = serde_json::from_str(data).ok()?;
    Some((reply.get("node")?.as_str()?.to_owned(), reply.remove("answer")?))
}
