//! The store of events, look-up keys and fleet state: a Redis, or the memory of this process. Its traits let a test stand between the
//! gateway and the store, and cut the link.

pub mod command;
pub mod fleet;
pub mod fleet_keys;
pub mod memory;
pub(crate) mod redis;
pub(crate) mod url;

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use crate::event::{Body, NewEvent, StreamId};
use crate::store::command::{Command, Reply};
use crate::store::fleet::FleetStore;
use crate::store::fleet_keys::FleetKeys;

/// Why a store did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer in time, or not at all. The text has no password.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The key has a value of another type than the call needs.
    #[error("the key holds another type of value")]
    WrongType,
    /// The command is not valid, for example because its id is not greater than the last one.
    #[error("the store rejected the command: {0}")]
    InvalidCommand(String),
    /// The store answered with an error of its own: a missing right, no memory, a failing disk.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// The limits of one [`Store::read`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of entries.
    pub entries: usize,
    /// The maximum bytes of all fields. If the first entry is larger, the page has no entry and gives the size in `needs`.
    pub bytes: usize,
    /// The maximum bytes of one entry; a larger one is [`Body::TooLarge`].
    pub max_event: usize,
}

/// A part of a stream, with the state of the whole stream, read atomically.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The entries after the position asked for, oldest first.
    pub entries: Vec<(StreamId, Body)>,
    /// There was nothing after the last of `entries`.
    pub complete: bool,
    /// The bytes that the next entry needs, when it alone was over the limit.
    pub needs: Option<usize>,
    /// The stream; `None` if there is no such key.
    pub stream: Option<StreamState>,
    /// The last entry of the barrier stream ([`Store::lead`]), read atomically with the rest.
    pub lead: StreamId,
}

/// The state of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// The last id that it generated.
    pub last: StreamId,
    /// Entries ever added, including trimmed ones.
    pub added: u64,
    /// Entries that it holds.
    pub length: u64,
    /// The oldest entry that it holds.
    pub first: Option<StreamId>,
    /// The greatest id that was deleted one by one; trimming does not count.
    pub max_deleted: StreamId,
}

impl Page {
    /// The last id that the stream generated, `0-0` for a key that does not exist.
    #[must_use]
    pub fn last(&self) -> StreamId {
        self.stream.map_or(StreamId::ZERO, |s| s.last)
    }
}

/// How long the store keeps a stream's events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// The maximum number of entries.
    pub max_length: Option<u64>,
    /// Seconds from this event until the whole stream expires.
    pub expire_seconds: Option<u64>,
}

/// Receives the notifications of a store. Called from the store's own tasks, so it must neither block nor wait.
pub trait NotificationHandler: Send + Sync {
    /// The subscription to this channel is confirmed: every later message arrives.
    fn watching(&self, channel: &str);
    /// A message was published on the channel.
    fn rang(&self, channel: &str, payload: &[u8]);
    /// All subscriptions are lost. `watching` confirms each again.
    fn lost(&self, why: &str);
}

/// A store. Cheap to share; every method may be called at any time from any task.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Rings this bell from now on. Called once.
    fn start(&self, bell: Weak<dyn NotificationHandler>);
    /// Subscribes to a channel's doorbell, again after a lost link, until `unwatch`. Neither calls the bell itself.
    fn watch(&self, channel: &Arc<str>);
    /// Ends a subscription.
    fn unwatch(&self, channel: &str);
    /// From now on each page says how far this stream has come. Called once, if at all.
    fn lead(&self, key: &Arc<str>);
    /// The entries after a position, with the stream's state, at one moment.
    async fn read(&self, channel: &str, after: StreamId, limits: Limits) -> Result<Page, StoreError>;
    /// Adds an event and rings its doorbell, at one moment.
    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError>;
    /// A string key's value.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// A field of a hash.
    async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// All fields of a hash of Tidegate's own.
    async fn hash_all(&self, key: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
    /// Sets a field of such a hash, or removes it.
    async fn hash_set(&self, key: &str, field: &str, value: Option<&str>) -> Result<(), StoreError>;
    /// Whether a set holds a member.
    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, StoreError>;
    /// One command of the REST protocol.
    async fn command(&self, command: &Command) -> Result<Reply, StoreError>;
    /// The state of the fleet with these keys; `None` for a store that only one node can use.
    fn fleet(&self, _keys: &FleetKeys) -> Option<Arc<dyn FleetStore>> {
        None
    }
    /// Asks for a sign of life.
    async fn ping(&self) -> Result<(), StoreError>;
}
