//! The store of a fleet: a Redis (7.0 or newer) or a Valkey.
//!
//! A node has five connections, whatever the number of clients: one for notifications; one for look-ups and for the reads that streams
//! wait for; one for replays and emits, so that a long history does not delay live events; one for the histories that clients of `/redis`
//! read, so that they delay neither; and one for components.

mod batching;
mod certificates;
mod cluster;
pub(crate) mod connector;
mod error;
pub(crate) mod fleet;
mod link;
mod node_link;
pub(crate) mod notifications;
pub(crate) mod rights;
mod sentinel;
mod servers;
mod single;
pub(crate) mod subscriptions;
mod tls_faults;
mod validity;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use redis::{Cmd, FromRedisValue, ParsingError, RedisError, Script, Value, cmd, from_redis_value};

use crate::event::{Body, NewEvent, StreamId, notification_head};
use crate::store::command::{Keep, Reply, RestCommand, TEXT_OVERHEAD_BYTES, Trim};
use crate::store::emit;
use crate::store::emit::{Attempt, Emitted, LOOK_BACK_BYTES, LOOK_BACK_ENTRIES, LOOK_BACK_TIME};
use crate::store::fleet::FleetStore;
use crate::store::fleet_keys::FleetKeys;
use crate::store::options::StoreOptions;
use crate::store::redis::error::{command_error, pong};
use crate::store::redis::fleet::RedisFleetStore;
use crate::store::redis::link::Link;
use crate::store::redis::notifications::NotificationSubscriber;
use crate::store::redis::rights::MissingRights;
use crate::store::redis::servers::Servers;
use crate::store::redis::single::MasterWatcher;
use crate::store::revocations::{
    AddedRevocation, MAX_REVOCATION_BYTES, MAX_STORED_REVOCATIONS, NewRevocation, RevocationIds, StoredRevocations,
};
use crate::store::url::StoreUrl;
use crate::store::{
    ChangedStreams, EventStore, KeyLookup, KnownStream, NotificationHandler, Page, ReadLimits, ReadRequest, Retention,
    StoreError, StreamState,
};
use crate::telemetry::metrics::Metrics;
use crate::util::client_key::ClientKey;

/// Reads of at most this many entries use the connection for live events.
pub const MAX_LIVE_ENTRIES: usize = 256;
/// The minimum timeout of a reply with a component, which is large.
const MIN_BLOB_TIMEOUT: Duration = Duration::from_secs(30);

pub struct RedisStore {
    /// For look-ups and for the reads that streams wait for.
    live: Link,
    /// The same connection, for look-ups.
    lookups: Link,
    /// The same, for reads of channels.
    reads: Link,
    /// For replays and emits.
    bulk: Link,
    /// For the ranges of `/redis`.
    ranges: Link,
    /// For components.
    blobs: Link,
    read: Script,
    changed: Script,
    range: Script,
    emit: Script,
    expire: Script,
    subscriber: OnceLock<NotificationSubscriber>,
    barrier_stream: OnceLock<Arc<str>>,
    servers: Servers,
    watcher: Arc<MasterWatcher>,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

impl RedisStore {
    /// Connects when a connection is first used. `None` for `memory:`. `keys` are those of the fleet. An error is a mistake in the
    /// configuration. Needs a runtime.
    pub fn open(options: &StoreOptions, keys: &FleetKeys, metrics: Arc<Metrics>) -> anyhow::Result<Option<Self>> {
        let (StoreUrl::Redis(url), timeout) = (&options.url, options.timeout) else { return Ok(None) };
        let watcher = Arc::<MasterWatcher>::default();
        let servers = Servers::open(url, options, keys, &watcher, &metrics)?;
        let live = servers.link(timeout, timeout, true);
        Ok(Some(Self {
            lookups: live.batching(),
            reads: live.batching(),
            live,
            bulk: servers.link(timeout, timeout, true),
            ranges: servers.link(timeout, timeout, false),
            blobs: servers.link(timeout, timeout.max(MIN_BLOB_TIMEOUT), false),
            read: Script::new(include_str!("read.lua")),
            changed: Script::new(include_str!("changed.lua")),
            range: Script::new(include_str!("range.lua")),
            emit: Script::new(include_str!("emit.lua")),
            expire: Script::new(include_str!("expire.lua")),
            subscriber: OnceLock::new(),
            barrier_stream: OnceLock::new(),
            servers,
            watcher,
            timeout,
            metrics,
        }))
    }

    /// Checks that the servers reply, are of the kind that the URL says, and are not too old.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.servers.check(&self.live, self.timeout).await.map_err(explain)
    }

    /// Finds out which rights the user of the store lacks, without changing anything.
    pub async fn missing_rights(&self, keys: &FleetKeys) -> Result<MissingRights, StoreError> {
        let key = keys.probe();
        MissingRights::find(&mut self.live.to(&key), &key, &keys.pattern()).await
    }

    /// The numbers of the server's other databases that hold keys. Their publishers and subscribers are those of this database, too.
    pub async fn other_databases(&self) -> Result<Vec<i64>, StoreError> {
        if !self.servers.share_one_node() {
            // A cluster has one database.
            return Ok(Vec::new());
        }
        let keyspace: String = cmd("INFO").arg("keyspace").query_async(&mut self.live.to_any()).await?;
        let own = self.servers.database();
        Ok(databases(&keyspace).filter(|database| *database != own).collect())
    }
}

impl RedisStore {
    /// Sends a command that reads this key, with those that are sent at the same time.
    async fn look_up<T: FromRedisValue, const N: usize>(&self, key: &str, words: [&str; N]) -> Result<T, StoreError> {
        let mut command = Cmd::with_capacity(N, words.iter().map(|word| word.len()).sum());
        for word in words {
            command.arg(word);
        }
        let reply = self.lookups.send(key, command).await?.extract_error()?;
        Ok(from_redis_value(reply).map_err(RedisError::from)?)
    }

    /// Runs `changed.lua` on streams of one node, that of `key`. Returns the last entry of the barrier stream, and the indices of the streams
    /// that have changed.
    async fn run_changed(
        &self,
        streams: &[KnownStream],
        barrier: Option<&Arc<str>>,
        key: &str,
    ) -> Result<(StreamId, Vec<usize>), StoreError> {
        let mut changed = self.changed.prepare_invoke();
        for stream in streams {
            changed.key(&*stream.channel);
            changed.arg(stream.last_entry.map_or_else(String::new, |last| last.to_string()));
        }
        if let Some(barrier) = barrier {
            changed.key(&**barrier);
        }
        let (barrier, numbers): (StreamId, Vec<usize>) = changed.invoke_async(&mut self.live.to(key)).await?;
        Ok((barrier, numbers.into_iter().filter_map(|number| number.checked_sub(1)).collect()))
    }

    /// Runs `emit.lua`. Without an attempt the entry gets no token.
    async fn run_emit(
        &self,
        channel: &str,
        event: &NewEvent,
        retention: Retention,
        attempt: Option<Attempt<'_>>,
    ) -> Result<Emitted, StoreError> {
        let option = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
        let looks_up = attempt.is_some_and(|attempt| attempt.is_repeated);
        let (id, outcome): (StreamId, String) = self
            .emit
            .key(channel)
            .arg(&event.text)
            .arg(&event.event)
            .arg(event.encoding)
            .arg(notification_head(channel, event))
            .arg(option(retention.max_length))
            .arg(option(retention.expire_seconds))
            .arg(attempt.map_or("", |attempt| attempt.token.as_str()))
            .arg(if looks_up { "1" } else { "" })
            .arg(LOOK_BACK_ENTRIES)
            .arg(LOOK_BACK_TIME.as_secs() * 1_000)
            .arg(LOOK_BACK_BYTES)
            .invoke_async(&mut self.bulk.to(channel))
            .await?;
        match &*outcome {
            "conflict" => Err(emit::conflict(id)),
            outcome => Ok(Emitted { id, is_uncertain: outcome == "uncertain" }),
        }
    }
}

/// The databases in the reply to `INFO keyspace`, each on a line such as `db3:keys=1,expires=0`.
fn databases(keyspace: &str) -> impl Iterator<Item = i64> {
    keyspace.lines().filter_map(|line| line.strip_prefix("db")?.split_once(':')?.0.parse().ok())
}

/// Adds what an operator can do to the error of the first command.
fn explain(error: StoreError) -> StoreError {
    let StoreError::Refused(text) = error else { return error };
    let remedy = match text.split(' ').next().unwrap_or_default() {
        "NOAUTH" => "give the URL a password, as in redis://user:password@host",
        "WRONGPASS" => "correct user and password in the URL, which are those of the servers that hold the data",
        "NOPERM" if text.contains("'role'") => {
            "add +role: only the master is asked, and this command proves that a server is one"
        }
        "NOPERM" => "the documentation lists the rights that a gateway needs",
        _ => return StoreError::Refused(text),
    };
    StoreError::Refused(format!("{text}: {remedy}"))
}

fn too_old() -> StoreError {
    StoreError::Refused(
        "the server is older than Redis 7.0, whose streams do not count their entries: update it".into(),
    )
}

impl FromRedisValue for StreamId {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let text: String = from_redis_value(value)?;
        text.parse().map_err(|error| format!("{text:?}: {error}").into())
    }
}

/// The entries of a stream and perhaps its state, as `read.lua` returns them.
type StreamReply = (bool, bool, Option<usize>, Vec<(StreamId, Option<Fields>)>, Option<StateReply>);
type StateReply = (StreamId, Option<u64>, u64, Option<StreamId>, Option<StreamId>, StreamId, Option<Fields>);
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Parses the reply of `read.lua`.
fn parse_page(has_barrier: bool, reply: Value) -> Result<Page, StoreError> {
    let invalid = |error| StoreError::Refused(format!("the read script returned an invalid reply: {error}"));
    let (barrier_position, stream): (StreamId, Option<StreamReply>) = from_redis_value(reply).map_err(invalid)?;
    let barrier_position = has_barrier.then_some(barrier_position);
    let Some((has_after, complete, needs, entries, state)) = stream else {
        return Ok(Page { complete: true, barrier_position, ..Page::default() });
    };
    let decode = |fields: Fields| Body::from_fields(fields.iter().map(|(name, value)| (&**name, &**value)));
    let entries: Vec<_> = entries.into_iter().map(|(id, fields)| (id, fields.map_or(Body::TooLarge, decode))).collect();
    let (stream, last_entry) = match state {
        Some((last, added, length, first, last_id, max_deleted, last_fields)) => {
            let (added, has_last) = (added.ok_or_else(too_old)?, last_id == Some(last));
            (Some(StreamState { last, added, length, first, has_last, max_deleted }), last_fields.map(decode))
        }
        None => (None, None),
    };
    Ok(Page { entries, complete, needs, exists: true, has_after, stream, last_entry, barrier_position })
}

#[async_trait]
impl EventStore for RedisStore {
    fn start(&self, handler: Weak<dyn NotificationHandler>) {
        self.watcher.set(Weak::clone(&handler));
        self.subscriber.get_or_init(|| {
            let source = self.servers.notifications(self.timeout);
            NotificationSubscriber::start(source, self.timeout, handler, Arc::clone(&self.metrics))
        });
    }

    fn subscribe(&self, channel: &Arc<str>, client: &Arc<ClientKey>) {
        if let Some(subscriber) = self.subscriber.get() {
            subscriber.subscribe(channel, client);
        }
    }

    fn unsubscribe(&self, channel: &str) {
        if let Some(subscriber) = self.subscriber.get() {
            subscriber.unsubscribe(channel);
        }
    }

    fn set_barrier_stream(&self, key: &Arc<str>) {
        let _ = self.barrier_stream.set(Arc::clone(key));
    }

    async fn barrier_position(&self) -> Result<StreamId, StoreError> {
        let Some(key) = self.barrier_stream.get() else { return Ok(StreamId::ZERO) };
        let mut last = cmd("XREVRANGE");
        last.arg(&**key).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<(StreamId, Value)> = last.query_async(&mut self.live.to(key)).await?;
        Ok(last.first().map_or(StreamId::ZERO, |(id, _)| *id))
    }

    async fn read(&self, channel: &str, request: ReadRequest, limits: ReadLimits) -> Result<Page, StoreError> {
        // A read of the state or of a few live entries must not wait for a replay.
        let link = if limits.entries <= MAX_LIVE_ENTRIES { &self.reads } else { &self.bulk };
        let mut connection = link.to(channel);
        let mut read = self.read.key(channel);
        if let Some(key) = self.barrier_stream.get().filter(|_| self.servers.share_one_node()) {
            read.key(&**key);
        }
        let reply: Value = read
            .arg(request.after.to_string())
            .arg(limits.entries)
            .arg(limits.bytes)
            .arg(limits.max_event)
            .arg(u8::from(request.is_entry))
            .arg(request.notified)
            .arg(u8::from(request.wants_state))
            .invoke_async(&mut connection)
            .await?;
        parse_page(self.servers.share_one_node(), reply)
    }

    async fn find_changed(&self, streams: &[KnownStream]) -> Result<ChangedStreams, StoreError> {
        let Some(first) = streams.first() else { return Ok(ChangedStreams::default()) };
        if self.servers.share_one_node() {
            let (barrier_position, indices) =
                self.run_changed(streams, self.barrier_stream.get(), &first.channel).await?;
            return Ok(ChangedStreams { indices, barrier_position: Some(barrier_position) });
        }
        // No script reads keys of two slots. The connection to each node sends what waits for it together.
        let checks = streams.iter().map(|stream| self.run_changed(std::slice::from_ref(stream), None, &stream.channel));
        let changed = futures_util::future::try_join_all(checks).await?;
        let indices = changed.iter().enumerate().filter(|(_, (_, changed))| !changed.is_empty());
        Ok(ChangedStreams { indices: indices.map(|(index, _)| index).collect(), barrier_position: None })
    }

    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError> {
        Ok(self.run_emit(channel, event, retention, None).await?.id)
    }

    async fn emit_once(
        &self,
        channel: &str,
        event: &NewEvent,
        retention: Retention,
        attempt: Attempt<'_>,
    ) -> Result<Emitted, StoreError> {
        self.run_emit(channel, event, retention, Some(attempt)).await
    }

    async fn revocations(&self, key: &str, ids: RevocationIds<'_>) -> Result<StoredRevocations, StoreError> {
        let mut connection = self.live.to(key);
        let script = Script::new(include_str!("revocations.lua"));
        let mut read = script.key(key);
        read.arg(MAX_STORED_REVOCATIONS).arg(MAX_REVOCATION_BYTES);
        match ids {
            RevocationIds::All => read.arg("all"),
            RevocationIds::Some(ids) => read.arg("ids").arg(ids),
        };
        let read: Result<(u64, Vec<(String, Vec<u8>)>), RedisError> = read.invoke_async(&mut connection).await;
        match (read, ids) {
            // A user who may only read may not run scripts, or not ask for the time in one.
            (Err(error), RevocationIds::All) if matches!(error.code(), Some("NOPERM" | "ERR")) => {
                let time: Result<(u64, u64), RedisError> = cmd("TIME").query_async(&mut connection).await;
                let now =
                    time.ok().map(|(seconds, micros)| seconds.saturating_mul(1_000).saturating_add(micros / 1_000));
                Ok(StoredRevocations { now, entries: cmd("HGETALL").arg(key).query_async(&mut connection).await? })
            }
            (read, _) => read.map(|(now, entries)| StoredRevocations { now: Some(now), entries }).map_err(Into::into),
        }
    }

    async fn add_revocation(&self, key: &str, new: NewRevocation<'_>) -> Result<AddedRevocation, StoreError> {
        let duration = u64::try_from(new.duration.as_millis()).unwrap_or(u64::MAX);
        let script = Script::new(include_str!("add_revocation.lua"));
        let mut add = script.key(key);
        add.arg(new.id).arg(new.value).arg(duration).arg(new.max_active);
        let (now, until) = add.invoke_async(&mut self.bulk.to(key)).await?;
        Ok(AddedRevocation { now, until })
    }

    async fn restore_revocation(&self, key: &str, id: &str, value: &str) -> Result<bool, StoreError> {
        Ok(cmd("HSETNX").arg(key).arg(id).arg(value).query_async(&mut self.bulk.to(key)).await?)
    }

    async fn remove_revocation(&self, key: &str, id: &str) -> Result<bool, StoreError> {
        Ok(cmd("HDEL").arg(key).arg(id).query_async(&mut self.bulk.to(key)).await?)
    }

    async fn command(&self, command: &RestCommand) -> Result<Reply, StoreError> {
        let mut connection = self.bulk.to(command.key());
        let value: Value = match command {
            RestCommand::Add { key, no_create, trim, id, fields } => {
                let mut add = cmd("XADD");
                add.arg(key);
                if *no_create {
                    add.arg("NOMKSTREAM");
                }
                if let Some(Trim { approximate, keep }) = trim {
                    let (option, threshold) = match keep {
                        Keep::MaxLen(max) => ("MAXLEN", max.to_string()),
                        Keep::MinId(min) => ("MINID", min.to_string()),
                    };
                    add.arg(option).arg(if *approximate { "~" } else { "=" }).arg(threshold);
                }
                add.arg(id.to_string()).arg(fields).query_async(&mut connection).await.map_err(command_error)?
            }
            RestCommand::Range { key, start, end, count, max_bytes } => {
                let mut range = self.range.key(key);
                range.arg(start).arg(end).arg(count.map_or_else(String::new, |count| count.to_string()));
                range.arg(*max_bytes).arg(TEXT_OVERHEAD_BYTES);
                match range.invoke_async(&mut self.ranges.to(key)).await? {
                    Value::Nil => return Err(StoreError::AnswerTooLarge(*max_bytes)),
                    entries => entries,
                }
            }
            RestCommand::Publish { key, message } => {
                cmd("PUBLISH").arg(key).arg(message).query_async(&mut connection).await.map_err(command_error)?
            }
            RestCommand::Expire { key, seconds } => {
                self.expire.key(key).arg(*seconds).invoke_async(&mut connection).await?
            }
        };
        Ok(to_reply(value))
    }

    fn fleet(&self, keys: &FleetKeys) -> Option<Arc<dyn FleetStore>> {
        Some(Arc::new(RedisFleetStore { quick: self.live.clone(), bulk: self.blobs.clone(), keys: keys.clone() }))
    }

    fn needs_proof(&self) -> bool {
        self.servers.need_proof()
    }

    fn is_proof_by_master(&self) -> bool {
        !self.servers.share_one_node()
    }

    async fn prove_master(&self) -> Result<bool, StoreError> {
        self.servers.prove_master(&self.live).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(pong(cmd("PING").exec_async(&mut self.live.to_any()).await)?)
    }
}

#[async_trait]
impl KeyLookup for RedisStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.look_up(key, ["GET", key]).await
    }

    async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.look_up(key, ["HGET", key, field]).await
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, StoreError> {
        self.look_up(key, ["SISMEMBER", key, member]).await
    }
}

fn to_reply(value: Value) -> Reply {
    match value {
        Value::Int(n) => Reply::Int(n),
        Value::BulkString(bytes) => Reply::Text(bytes),
        Value::SimpleString(text) => Reply::Text(text.into_bytes()),
        Value::Okay => Reply::Text(b"OK".to_vec()),
        Value::Array(items) => Reply::List(items.into_iter().map(to_reply).collect()),
        _ => Reply::Nil,
    }
}
