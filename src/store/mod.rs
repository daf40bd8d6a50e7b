//! Where events live: a Redis, or the memory of this process. What a store must do is one trait, so that a test can stand
//! between and cut the link.

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
    /// It could not be reached, or not in time. The text names no password.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The key holds something that is not a stream (or, for a look-up, not what was asked for).
    #[error("the key holds another type of value")]
    WrongType,
    /// The command itself is wrong, such as an id that is not greater than the last one.
    #[error("the store rejected the command: {0}")]
    InvalidCommand(String),
    /// The store answered, and refused for a reason of its own: a missing right, no memory, a failing disk.
    #[error("the store refused: {0}")]
    Refused(String),
}

/// What a [`EventStore::read`] may bring.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries at the most.
    pub entries: usize,
    /// Bytes of fields at the most. A first entry larger than that is not brought: the page says its size in `needs`.
    pub bytes: usize,
    /// An entry larger than that is [`Body::TooLarge`].
    pub max_event: usize,
}

/// A part of a stream, with the state of the whole at the same moment.
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
    /// The last entry of the stream that goes before all others ([`EventStore::lead`]), at the same moment.
    pub barrier_position: StreamId,
}

/// What a stream says about itself.
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

/// How long an emitter wants the stream to be kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Maximum number of entries to keep.
    pub max_length: Option<u64>,
    /// Seconds after this event until the whole stream expires.
    pub expire_seconds: Option<u64>,
}

/// Receives the notifications of subscribed channels. The store calls it from its own tasks: it must neither block nor wait.
pub trait NotificationHandler: Send + Sync {
    /// The subscription to this channel is confirmed: everything that is published from now on is reported.
    fn subscribed(&self, channel: &str);
    /// A message was published on the channel.
    fn notified(&self, channel: &str, payload: &[u8]);
    /// All subscriptions are lost, until `subscribed` is called again.
    fn lost(&self, why: &str);
}

/// The reads that a policy can make.
#[async_trait]
pub trait KeyLookup: Send + Sync + 'static {
    /// The value of a string key.
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// The value of a field in a hash.
    async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Whether a set contains a member.
    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, StoreError>;
}

/// A store of channels. It is cheap to share, and every method may be called at any time from any task.
#[async_trait]
pub trait EventStore: KeyLookup {
    /// Reports notifications to this handler from now on. Called once.
    fn start(&self, handler: Weak<dyn NotificationHandler>);
    /// Subscribes to a channel's notifications, again after a lost connection, until `unsubscribe`. Neither calls the handler itself: the hub
    /// calls both under its lock.
    fn subscribe(&self, channel: &Arc<str>);
    /// Ends a subscription.
    fn unsubscribe(&self, channel: &str);
    /// Each page reports from now on the last id of this stream, at the moment of the read. Called at most once.
    fn set_barrier_stream(&self, key: &Arc<str>);
    /// The entries after a position, with the stream's state, at one moment.
    async fn read(&self, channel: &str, after: StreamId, limits: Limits) -> Result<Page, StoreError>;
    /// Adds an event and publishes its notification, atomically.
    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError>;
    /// All fields of a hash of Tidegate's own.
    async fn hash_all(&self, key: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
    /// Sets a field of such a hash, or removes it.
    async fn hash_set(&self, key: &str, field: &str, value: Option<&str>) -> Result<(), StoreError>;
    /// One command of the REST protocol.
    async fn command(&self, command: &Command) -> Result<Reply, StoreError>;
    /// The state of the fleet with these keys; `None` for a store that only one node can use.
    fn fleet(&self, _keys: &FleetKeys) -> Option<Arc<dyn FleetStore>> {
        None
    }
    /// Checks that the store answers.
    async fn ping(&self) -> Result<(), StoreError>;
}
