//! The fleet's commands: entries of one stream of the store, which every node reads to its end before any channel goes on. So a
//! node that was cut off does what it missed before it delivers anything.

pub(crate) mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::hub::Hub;
use crate::event::{Body, NewEvent, StreamId};
use crate::store::command::{Command, Reply};
use crate::store::fleet_keys::FleetKeys;
use crate::store::{Limits, Retention, Store, StoreError};

/// The name of the events that commands are.
const EVENT: &str = "command";
/// Commands that are kept. Who misses more of them at a time begins anew.
const KEPT: u64 = 10_000;
/// Replies to one command: how many are kept, and for how many seconds.
const REPLIES: (u64, u64) = (1_000, 60);
/// Who waits for answers looks for them this often.
const LOOK: Duration = Duration::from_millis(10);
/// One read, in bytes; and one command at the most.
const READ: (usize, usize) = (256 << 10, 64 << 10);

/// Why a listener has to begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncReason {
    /// The node has started, and nothing was ever said.
    First,
    /// The node has started: what was said before is not read.
    Start,
    /// Commands were trimmed before this node read them.
    Missed,
    /// The store holds less than it did: it lost its end, or all of it.
    WentBack,
}

/// A command as it was heard.
#[derive(Debug)]
pub struct ReceivedCommand<'a> {
    /// The entry's id.
    pub id: StreamId,
    /// What it says, its kind among it.
    pub fields: &'a Map<String, Value>,
}

/// Whoever does what commands say.
#[async_trait]
pub trait CommandHandler: Send + Sync {
    /// Does it. No channel goes on before this returns, so that it neither blocks nor waits. What it answers goes to who sent the
    /// command; an error says what is wrong with it.
    fn hear(&self, heard: &ReceivedCommand<'_>) -> Result<Option<Value>, String>;

    /// Learns in another way what commands would have said. No channel goes on before it succeeds.
    async fn begin(&self, why: ResyncReason) -> Result<(), StoreError>;
}

/// This node's ear.
pub struct Commands {
    store: Arc<dyn Store>,
    lead: Arc<CommandBarrier>,
    keys: FleetKeys,
    node: String,
    listeners: Mutex<Vec<Handlers>>,
}

/// Who listens to which kinds.
type Handlers = (&'static [&'static str], Arc<dyn CommandHandler>);

impl Commands {
    /// One for a node of this name in the fleet with these keys, on the hub's store. Until [`Self::run`] has read them to their end, the hub's channels wait.
    #[must_use]
    pub fn new(hub: &Hub, keys: FleetKeys, node: String) -> Self {
        let lead = hub.add_barrier(&keys.commands());
        Self { store: Arc::clone(hub.store()), lead, keys, node, listeners: Mutex::default() }
    }

    /// Tells this one of commands of these kinds. Before [`Self::run`].
    pub fn listen(&self, kinds: &'static [&'static str], listener: Arc<dyn CommandHandler>) {
        self.listeners.lock().push((kinds, listener));
    }

    /// The names of the fleet's keys.
    #[must_use]
    pub const fn keys(&self) -> &FleetKeys {
        &self.keys
    }

    /// This node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether everything that was said is known here, as far as the link tells.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.lead.is_synced()
    }

    /// Waits until it is.
    pub async fn known(&self) {
        self.lead.wait_synced().await;
    }

    fn listeners(&self) -> Vec<Handlers> {
        self.listeners.lock().clone()
    }
}

/// Sends a command to all nodes. It is an object with a `kind`.
pub async fn send(store: &dyn Store, keys: &FleetKeys, command: &Value) -> Result<StreamId, StoreError> {
    let retention = Retention { max_length: Some(KEPT), expire_seconds: None };
    store.emit(&keys.commands(), &NewEvent::new(EVENT, command), retention).await
}

/// What the nodes say to a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommandReplies {
    /// By the names of the nodes.
    pub by_node: BTreeMap<String, Value>,
    /// Nodes that listen and did not answer in time.
    pub missing: usize,
}

/// Sends a command to all nodes, and waits for the answers of those that listen: at the most so long.
pub async fn ask(
    store: &dyn Store,
    keys: &FleetKeys,
    command: &Value,
    patience: Duration,
) -> Result<CommandReplies, StoreError> {
    // What is published to nobody is known to have reached so many.
    let nobody = Command::Publish { key: keys.commands(), message: json!({ "type": "ping" }).to_string() };
    let listening = match store.command(&nobody).await? {
        Reply::Int(count) => usize::try_from(count).unwrap_or(0),
        _ => 0,
    };
    let id = send(store, keys, command).await?;
    let key = keys.command_replies(id);
    let until = Instant::now() + patience;
    let (mut answers, mut after, mut came) = (CommandReplies::default(), StreamId::ZERO, 0);
    while came < listening && Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        let limits = Limits { entries: 256, bytes: READ.0, max_event: READ.1 };
        // The command was sent: what became of it may not be told as an error.
        let Ok(Ok(page)) = tokio::time::timeout_at(until, store.read(&key, after, limits)).await else { continue };
        for (at, body) in page.entries {
            after = at;
            came += 1;
            if let Some((node, answer)) = answer(&body) {
                let name = (2..).map(|n| format!("{node} ({n})"));
                // Two nodes may have the same name.
                let name = std::iter::once(node.clone()).chain(name).find(|name| !answers.by_node.contains_key(name));
                answers.by_node.insert(name.unwrap_or(node), answer);
            }
        }
    }
    answers.missing = listening.saturating_sub(came);
    Ok(answers)
}

fn answer(body: &Body) -> Option<(String, Value)> {
    let Body::Event { data, .. } = body else { return None };
    let mut answer: Map<String, Value> = serde_json::from_str(data).ok()?;
    Some((answer.get("node")?.as_str()?.to_owned(), answer.remove("answer")?))
}
