//! The store of a fleet: a Redis (7.0 or newer) or a Valkey.
//!
//! A node has five connections, whatever the number of clients: one for notifications; one for look-ups and for the reads that streams
//! wait for; one for replays and emits, so that a long history does not delay live events; one for the histories that clients of `/redis`
//! read, so that they delay neither; and one for components.

mod certificates;
pub(crate) mod connector;
mod error;
pub(crate) mod fleet;
mod link;
mod node_link;
pub(crate) mod notifications;
pub(crate) mod rights;
mod sentinel;
mod single;
pub(crate) mod subscriptions;
mod tls_faults;
mod validity;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use redis::{FromRedisValue, ParsingError, RedisError, Script, Value, cmd, from_redis_value};

use crate::event::{Body, NewEvent, StreamId, notification_head};
use crate::store::command::{Keep, Reply, RestCommand, TEXT_OVERHEAD_BYTES, Trim};
use crate::store::fleet::FleetStore;
use crate::store::fleet_keys::FleetKeys;
use crate::store::options::StoreOptions;
use crate::store::redis::connector::Connector;
use crate::store::redis::error::command_error;
use crate::store::redis::fleet::RedisFleetStore;
use crate::store::redis::link::Link;
use crate::store::redis::node_link::{NodeLink, NodeSource};
use crate::store::redis::notifications::NotificationSubscriber;
use crate::store::redis::rights::MissingRights;
use crate::store::redis::sentinel::SentinelMaster;
use crate::store::redis::single::{MasterWatcher, SingleNode};
use crate::store::revocations::{
    AddedRevocation, MAX_REVOCATION_BYTES, MAX_STORED_REVOCATIONS, NewRevocation, RevocationIds, StoredRevocations,
};
use crate::store::url::{StoreUrl, Topology};
use crate::store::{EventStore, KeyLookup, NotificationHandler, Page, ReadLimits, Retention, StoreError, StreamState};
use crate::telemetry::metrics::Metrics;
use crate::util::client_key::ClientKey;

/// Reads of at most this many entries use the connection for live events.
pub const MAX_LIVE_ENTRIES: usize = 256;
/// The minimum timeout of a reply with a component, which is large.
const MIN_BLOB_TIMEOUT: Duration = Duration::from_secs(30);

pub struct RedisStore {
    /// For look-ups and for the reads that streams wait for.
    live: Link,
    /// For replays and emits.
    bulk: Link,
    /// For the ranges of `/redis`.
    ranges: Link,
    /// For components.
    blobs: Link,
    read: Script,
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

/// The servers of a store, in one of its topologies.
enum Servers {
    Single(Arc<SingleNode>),
    Sentinel(Arc<SentinelMaster>),
}

impl Servers {
    /// The node that has all keys.
    fn node(&self) -> Arc<dyn NodeSource> {
        match self {
            Self::Single(node) => Arc::clone(node) as Arc<dyn NodeSource>,
            Self::Sentinel(master) => Arc::clone(master) as Arc<dyn NodeSource>,
        }
    }
}

impl RedisStore {
    /// Connects when a connection is first used. `None` for `memory:`. An error is a mistake in the configuration. Needs a runtime.
    pub fn open(options: &StoreOptions, metrics: Arc<Metrics>) -> anyhow::Result<Option<Self>> {
        let StoreUrl::Redis(url) = &options.url else { return Ok(None) };
        let (connector, watcher) = (Connector::open(url, options, &metrics)?, Arc::<MasterWatcher>::default());
        let servers = match &url.topology {
            Topology::Single(address) => {
                let (connector, watcher) = (Arc::clone(&connector), Arc::clone(&watcher));
                Servers::Single(Arc::new(SingleNode { connector, address: address.clone(), watcher }))
            }
            Topology::Sentinel { sentinels, master } => {
                let (connector, watcher) = (Arc::clone(&connector), Arc::clone(&watcher));
                let group = (&**sentinels, &**master);
                Servers::Sentinel(SentinelMaster::start(
                    connector,
                    group,
                    options.timeout,
                    watcher,
                    Arc::clone(&metrics),
                ))
            }
            Topology::Cluster(_) => anyhow::bail!("{url}: not supported yet"),
        };
        Ok(Some(Self::new(servers, watcher, options.timeout, metrics)))
    }

    fn new(servers: Servers, watcher: Arc<MasterWatcher>, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        let link = |reply_timeout| Link::Node(NodeLink::new(servers.node(), timeout, reply_timeout));
        Self {
            live: link(timeout),
            bulk: link(timeout),
            ranges: link(timeout),
            blobs: link(timeout.max(MIN_BLOB_TIMEOUT)),
            read: Script::new(include_str!("read.lua")),
            range: Script::new(include_str!("range.lua")),
            emit: Script::new(include_str!("emit.lua")),
            expire: Script::new(include_str!("expire.lua")),
            subscriber: OnceLock::new(),
            barrier_stream: OnceLock::new(),
            servers,
            watcher,
            timeout,
            metrics,
        }
    }

    /// Checks that the server replies and is not too old.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.ping().await.map_err(explain)?;
        let info: String = cmd("INFO").arg("server").query_async(&mut self.live.to_any()).await.unwrap_or_default();
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        // If the server hides its version, the first read finds out.
        match version.and_then(|v| v.split('.').next()?.trim().parse::<u32>().ok()) {
            Some(major) if major < 7 => Err(too_old()),
            _ => Ok(()),
        }
    }

    /// Finds out which rights the user of the store lacks, without changing anything.
    pub async fn missing_rights(&self, keys: &FleetKeys) -> Result<MissingRights, StoreError> {
        let key = keys.probe();
        MissingRights::find(&mut self.live.to(&key), &key, &keys.pattern()).await
    }

    /// The numbers of the server's other databases that hold keys. Their publishers and subscribers are those of this database, too.
    pub async fn other_databases(&self) -> Result<Vec<i64>, StoreError> {
        let keyspace: String = cmd("INFO").arg("keyspace").query_async(&mut self.live.to_any()).await?;
        let own = self.servers.node().database();
        Ok(databases(&keyspace).filter(|database| *database != own).collect())
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

/// The state and the entries of a stream, as `read.lua` returns them.
type StreamReply =
    (StreamId, Option<u64>, u64, Option<StreamId>, StreamId, bool, Option<usize>, Vec<(StreamId, Option<Fields>)>);
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Parses the reply of `read.lua`.
fn parse_page(reply: Value) -> Result<Page, StoreError> {
    let invalid = |error| StoreError::Refused(format!("the read script returned an invalid reply: {error}"));
    let (barrier_position, stream): (StreamId, Option<StreamReply>) = from_redis_value(reply).map_err(invalid)?;
    let Some((last, added, length, first, max_deleted, complete, needs, entries)) = stream else {
        return Ok(Page { complete: true, barrier_position, ..Page::default() });
    };
    let body = |fields: Option<Fields>| match fields {
        Some(fields) => Body::from_fields(fields.iter().map(|(name, value)| (&**name, &**value))),
        None => Body::TooLarge,
    };
    Ok(Page {
        entries: entries.into_iter().map(|(id, fields)| (id, body(fields))).collect(),
        complete,
        needs,
        stream: Some(StreamState { last, added: added.ok_or_else(too_old)?, length, first, max_deleted }),
        barrier_position,
    })
}

#[async_trait]
impl EventStore for RedisStore {
    fn start(&self, handler: Weak<dyn NotificationHandler>) {
        self.watcher.set(Weak::clone(&handler));
        self.subscriber.get_or_init(|| {
            NotificationSubscriber::start(self.servers.node(), self.timeout, handler, Arc::clone(&self.metrics))
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

    async fn read(&self, channel: &str, after: StreamId, limits: ReadLimits) -> Result<Page, StoreError> {
        // A read of the state or of a few live entries must not wait for a replay.
        let link = if limits.entries <= MAX_LIVE_ENTRIES { &self.live } else { &self.bulk };
        let mut connection = link.to(channel);
        let mut read = self.read.key(channel);
        if let Some(key) = self.barrier_stream.get() {
            read.key(&**key);
        }
        let reply: Value = read
            .arg(after.to_string())
            .arg(limits.entries)
            .arg(limits.bytes)
            .arg(limits.max_event)
            .invoke_async(&mut connection)
            .await?;
        parse_page(reply)
    }

    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError> {
        let option = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
        let id = self
            .emit
            .key(channel)
            .arg(&event.text)
            .arg(&event.event)
            .arg(event.encoding)
            .arg(notification_head(channel, event))
            .arg(option(retention.max_length))
            .arg(option(retention.expire_seconds))
            .invoke_async(&mut self.bulk.to(channel))
            .await?;
        Ok(id)
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

    async fn restore_revocation(&self, key: &str, id: &str, value: &str) -> Result<(), StoreError> {
        Ok(cmd("HSET").arg(key).arg(id).arg(value).exec_async(&mut self.bulk.to(key)).await?)
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

    async fn prove_master(&self) -> Result<bool, StoreError> {
        match &self.servers {
            Servers::Single(_) => Ok(true),
            Servers::Sentinel(master) => Ok(master.prove().await),
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(cmd("PING").exec_async(&mut self.live.to_any()).await?)
    }
}

#[async_trait]
impl KeyLookup for RedisStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(cmd("GET").arg(key).query_async(&mut self.live.to(key)).await?)
    }

    async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(cmd("HGET").arg(key).arg(field).query_async(&mut self.live.to(key)).await?)
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, StoreError> {
        Ok(cmd("SISMEMBER").arg(key).arg(member).query_async(&mut self.live.to(key)).await?)
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
