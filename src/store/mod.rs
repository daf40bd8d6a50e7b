//! The store that holds the channels: a Redis, or the memory of this process. Its operations are traits, so that a test can put a store
//! in between whose connections it cuts.

pub mod command;
pub mod emit;
pub mod fleet;
pub mod fleet_keys;
pub mod memory;
pub mod options;
pub(crate) mod redis;
pub mod revocations;
pub mod slot;
pub(crate) mod url;

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use crate::event::{Body, NewEvent, StreamId};
use crate::store::command::{Reply, RestCommand};
use crate::store::emit::{Attempt, Emitted};
use crate::store::fleet::FleetStore;
use crate::store::fleet_keys::FleetKeys;
use crate::store::revocations::{AddedRevocation, NewRevocation, RevocationIds, StoredRevocations};
use crate::store::slot::KeyScope;
use crate::util::client_key::ClientKey;

/// Why an operation of a store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached, or did not reply in time. The text contains no password.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store replied that it cannot execute the command now: it loads its data, runs a script, or is a replica.
    #[error("the store is not ready: {0}")]
    NotReady(String),
    #[error("the key holds another type of value")]
    WrongType,
    /// The command itself is invalid, such as an `XADD` whose id is not greater than the last one.
    #[error("the store rejected the command: {0}")]
    InvalidCommand(String),
    /// An emit has the token of another event, which has this id.
    #[error("the key of this emit is that of another event, {0}: give each event a key of its own")]
    TokenReused(StreamId),
    /// The entries of an `XRANGE` exceed its `max_bytes`.
    #[error("the answer is larger than {0} bytes: use COUNT, and continue after the last id")]
    AnswerTooLarge(usize),
    /// The store replied that it does not execute the command, because of its own state: a missing right, no memory, a failing disk.
    #[error("the store refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether the same operation may succeed later, without a change by an operator.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::NotReady(_))
    }
}

/// The limits of an [`EventStore::read`].
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Maximum number of entries.
    pub entries: usize,
    /// Maximum bytes of all fields. If the first entry alone is larger, the page has no entries and its size in `needs`.
    pub bytes: usize,
    /// Maximum bytes of one entry. A larger one is [`Body::TooLarge`].
    pub max_event: usize,
}

/// What an [`EventStore::read`] looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// The position to read after.
    pub after: StreamId,
    /// An entry with the id `after` was read. If it is still there, no entry after it was trimmed.
    pub is_entry: bool,
    /// The number of entries after `after` of which notifications arrived.
    pub notified: u32,
    /// Whether the page has the state of the stream in any case.
    pub wants_state: bool,
}

impl ReadRequest {
    /// A read after a position, with the state of the stream.
    pub const fn with_state(after: StreamId) -> Self {
        Self { after, is_entry: false, notified: 0, wants_state: true }
    }
}

/// Entries of a stream at one moment.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The entries after the requested position, oldest first.
    pub entries: Vec<(StreamId, Body)>,
    /// Whether the stream has no entry after the last of `entries`.
    pub complete: bool,
    /// The bytes of the next entry, if it alone exceeds the limit.
    pub needs: Option<usize>,
    /// Whether the key exists.
    pub exists: bool,
    /// The entry with the id [`ReadRequest::after`] is in the stream, if one was read.
    pub has_after: bool,
    /// The state of the stream. `None` if the key does not exist, or if the read was not asked for it and found what it looked for: the
    /// entry with the id [`ReadRequest::after`], all entries after it, and not fewer than were notified.
    pub stream: Option<StreamState>,
    /// The last entry of the stream, if the read was for no entries and this one is within the limits.
    pub last_entry: Option<Body>,
    /// The last entry of the barrier stream ([`EventStore::set_barrier_stream`]) at the same moment; `None` if it cannot be read at the same
    /// moment, because it is on another server: then [`EventStore::barrier_position`] has to be asked.
    pub barrier_position: Option<StreamId>,
}

impl Page {
    /// Removes the entry with this id if it is the first one, as if the page had been read after it. Returns its content.
    pub fn take_entry(&mut self, id: StreamId) -> Option<Body> {
        self.has_after = self.entries.first().is_some_and(|(first, _)| *first == id);
        self.has_after.then(|| self.entries.remove(0).1)
    }

    /// The last id of the stream; `None` if the page has neither its state nor an entry.
    pub fn last(&self) -> Option<StreamId> {
        let last_entry = || self.entries.last().map(|(id, _)| *id);
        self.stream.map(|stream| stream.last).or_else(last_entry)
    }
}

/// The state of a stream, as `XINFO STREAM` reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// The last id that the stream generated.
    pub last: StreamId,
    /// The number of entries ever added, including trimmed ones.
    pub added: u64,
    /// The number of entries.
    pub length: u64,
    /// The id of the oldest entry.
    pub first: Option<StreamId>,
    /// The entry with the id `last` is there: it was neither trimmed nor deleted.
    pub has_last: bool,
    /// The greatest id that `XDEL` deleted; trimming does not count.
    pub max_deleted: StreamId,
}

/// A stream that was read to its end, for [`EventStore::find_changed`].
#[derive(Clone, Debug)]
pub struct KnownStream {
    pub channel: Arc<str>,
    /// The id of its last entry, which was read; `None` if the stream did not exist.
    pub last_entry: Option<StreamId>,
}

/// The answer of [`EventStore::find_changed`].
#[derive(Clone, Debug, Default)]
pub struct ChangedStreams {
    /// The indices of the streams that have to be read.
    pub indices: Vec<usize>,
    /// As in a [`Page`].
    pub barrier_position: Option<StreamId>,
}

/// How much of a stream an emitter keeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// Maximum number of entries to keep.
    pub max_length: Option<u64>,
    /// Seconds after this event until the whole stream expires.
    pub expire_seconds: Option<u64>,
}

/// Receives the notifications of subscribed channels. The store calls it from its own tasks, so it must not block.
pub trait NotificationHandler: Send + Sync {
    /// The subscription to this channel is confirmed: every message that is published from now on is passed to `notified`.
    fn subscribed(&self, channel: &str);
    /// The store refuses to subscribe to this channel. It tries again until `unsubscribe`.
    fn refused(&self, channel: &str);
    /// A message was published on the channel.
    fn notified(&self, channel: &str, payload: &[u8]);
    /// The connection failed: no channel is subscribed until `subscribed` is called for it again.
    fn lost(&self, reason: &str);
    /// The master of these keys is another one than before, or it restarted, or a connection to it was opened again: entries that were
    /// read before may not exist any more. Called before the first read over the new connection.
    fn master_changed(&self, keys: &KeyScope);
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

/// A store of channels. Every method may be called at any time from any task.
#[async_trait]
pub trait EventStore: KeyLookup {
    /// Passes notifications to this handler from now on. Called once.
    fn start(&self, handler: Weak<dyn NotificationHandler>);
    /// Subscribes to a channel's notifications until `unsubscribe`, also after reconnects; clients are served in turns. While it is not
    /// confirmed, it may be called for further clients that wait. Neither method calls the handler itself, because the hub calls both
    /// under its lock.
    fn subscribe(&self, channel: &Arc<str>, client: &Arc<ClientKey>);
    fn unsubscribe(&self, channel: &str);
    /// Sets the stream whose last id each page reports from now on, at the moment of the read, where that is possible. Called at most once.
    fn set_barrier_stream(&self, key: &Arc<str>);
    /// The last entry of the barrier stream, `0-0` without one, of the master: the reply to a request that was sent after the call.
    async fn barrier_position(&self) -> Result<StreamId, StoreError>;
    /// Reads the entries after a position, and the stream's state where they do not prove that none is missing, atomically.
    async fn read(&self, channel: &str, request: ReadRequest, limits: ReadLimits) -> Result<Page, StoreError>;
    /// Finds the streams that have another last entry than the one that was read, or have lost that one. A stream that is not named is one
    /// of which a read would find nothing. The default names all of them.
    async fn find_changed(&self, streams: &[KnownStream]) -> Result<ChangedStreams, StoreError> {
        Ok(ChangedStreams { indices: (0..streams.len()).collect(), barrier_position: None })
    }
    /// Adds an event and publishes its notification, atomically.
    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError>;
    /// The same for an event that may be emitted several times, as [`emit::emit`] does: a repeated attempt that finds the entry of an earlier
    /// one adds nothing, and publishes the notification again. An entry with this token and other content is an invalid command.
    async fn emit_once(
        &self,
        channel: &str,
        event: &NewEvent,
        retention: Retention,
        attempt: Attempt<'_>,
    ) -> Result<Emitted, StoreError>;
    /// Reads revocations and the store's time. Writes nothing.
    async fn revocations(&self, key: &str, ids: RevocationIds<'_>) -> Result<StoredRevocations, StoreError>;
    /// Adds a revocation, whose end the store computes by its own clock, and removes those that have ended.
    async fn add_revocation(&self, key: &str, new: NewRevocation<'_>) -> Result<AddedRevocation, StoreError>;
    /// Writes a revocation that the store has lost, with its end. False if the store has one of this id.
    async fn restore_revocation(&self, key: &str, id: &str, value: &str) -> Result<bool, StoreError>;
    /// Removes a revocation. False if there is none of this id.
    async fn remove_revocation(&self, key: &str, id: &str) -> Result<bool, StoreError>;
    /// Executes a command of the REST protocol.
    async fn command(&self, command: &RestCommand) -> Result<Reply, StoreError>;
    /// The state of the fleet with these keys; `None` for a store that only one node can use.
    fn fleet(&self, _keys: &FleetKeys) -> Option<Arc<dyn FleetStore>> {
        None
    }
    /// Asks whether this node reads from the current master of the fleet's keys: the reply is one to a request that was sent after the call.
    /// False if others name another master, or too few of them answer. A store that is one server needs no proof.
    async fn prove_master(&self) -> Result<bool, StoreError> {
        Ok(true)
    }
    /// Whether events may be delivered only while [`prove_master`](Self::prove_master) succeeds: another server may take over.
    fn needs_proof(&self) -> bool {
        false
    }
    /// Whether the master itself answers [`prove_master`](Self::prove_master): after a time without an answer it may not know yet that another
    /// one has taken over.
    fn is_proof_by_master(&self) -> bool {
        false
    }
    /// Checks that the store replies.
    async fn ping(&self) -> Result<(), StoreError>;
}
