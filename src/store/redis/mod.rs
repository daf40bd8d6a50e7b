//! The store that fleets use: a Redis (7.0 or newer) or a Valkey.
//!
//! Four connections a node, whatever the number of clients: one for notifications, one for the reads that streams wait for and
//! for look-ups, one for replays and emits, so that a long history is never in the way of a live event, and one for components, once
//! one is pushed.

pub(crate) mod fleet;
pub(crate) mod notifications;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, RedisError, Script, Value, cmd};

use crate::event::{Body, NewEvent, StreamId, notification_head};
use crate::store::command::{Command, Keep, Reply};
use crate::store::fleet::FleetStore;
use crate::store::fleet_keys::FleetKeys;
use crate::store::redis::fleet::RedisFleetStore;
use crate::store::redis::notifications::NotificationSubscriber;
use crate::store::{EventStore, KeyLookup, Limits, NotificationHandler, Page, Retention, StoreError, StreamState};
use crate::telemetry::metrics::Metrics;

/// A client of one Redis.
pub struct RedisStore {
    live: ConnectionManager,
    bulk: ConnectionManager,
    /// For components.
    blobs: ConnectionManager,
    read: Script,
    emit: Script,
    expire: Script,
    subscriber: OnceLock<NotificationSubscriber>,
    barrier_stream: OnceLock<Arc<str>>,
    client: Client,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

impl RedisStore {
    /// Prepares connections to the Redis that this client knows; none is made yet. `timeout` bounds connecting and each
    /// answer.
    pub fn new(client: Client, timeout: Duration, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        // No retries in here: a command fails at once while Redis is away, and the next one tries anew.
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout))
            .set_number_of_retries(0);
        let connection = || ConnectionManager::new_lazy_with_config(client.clone(), config.clone());
        let live = connection()?;
        let patient = config.clone().set_response_timeout(Some(timeout.max(BLOBS)));
        let blobs = ConnectionManager::new_lazy_with_config(client.clone(), patient)?;
        Ok(Self {
            live,
            bulk: connection()?,
            blobs,
            read: Script::new(include_str!("read.lua")),
            emit: Script::new(include_str!("emit.lua")),
            expire: Script::new(include_str!("expire.lua")),
            subscriber: OnceLock::new(),
            barrier_stream: OnceLock::new(),
            client,
            timeout,
            metrics,
        })
    }

    /// Checks that the server answers and is one that Tidegate can use.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.ping().await?;
        let info: String = cmd("INFO").arg("server").query_async(&mut self.live.clone()).await.unwrap_or_default();
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        // A server that does not say (some hide INFO) is asked by the first read.
        match version.and_then(|v| v.split('.').next()?.trim().parse::<u32>().ok()) {
            Some(major) if major < 7 => Err(too_old()),
            _ => Ok(()),
        }
    }
}

/// A component is large, and has this long at the least.
const BLOBS: Duration = Duration::from_secs(30);
/// Reads of at most so many entries use the connection for what is live.
pub const LIVE_ENTRIES: usize = 256;

fn too_old() -> StoreError {
    StoreError::Refused(
        "this server is older than Redis 7.0, which Tidegate needs (streams there do not count their entries)".into(),
    )
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        use redis::{ErrorKind, ServerErrorKind as Server};
        match (error.kind(), error.code()) {
            (_, Some("WRONGTYPE")) => Self::WrongType,
            (
                ErrorKind::Server(Server::BusyLoading | Server::ClusterDown | Server::MasterDown | Server::TryAgain),
                _,
            )
            | (ErrorKind::Server(Server::ReadOnly) | ErrorKind::Io, _) => Self::Unavailable(error.to_string()),
            (ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed, _) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

/// An error of an emitter's command. Redis answers `ERR` to a wrong command; every other code (`NOPERM`, `OOM`, `MISCONF`) is a state of the
/// server.
fn command_error(error: RedisError) -> StoreError {
    if error.code() == Some("ERR") { StoreError::InvalidCommand(error.to_string()) } else { error.into() }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn number(value: &Value) -> Option<i64> {
    if let Value::Int(n) = value { Some(*n) } else { None }
}

/// Reads what `read.lua` answers.
fn page(reply: Value) -> Result<Page, StoreError> {
    let strange = || StoreError::Refused("an answer that is not what the read script gives".into());
    let Value::Array(parts) = reply else { return Err(strange()) };
    let id = |value: &Value| text(value).and_then(|text| text.parse::<StreamId>().ok());
    let barrier_position = parts.first().and_then(id).ok_or_else(strange)?;
    if parts.len() == 1 {
        return Ok(Page { complete: true, barrier_position, ..Page::default() });
    }
    let [_, last, added, length, first, max_deleted, complete, needs, Value::Array(entries)] = &parts[..] else {
        return Err(strange());
    };
    let count = |value: &Value| number(value).and_then(|n| u64::try_from(n).ok());
    let Some(added) = count(added) else { return Err(too_old()) };
    let stream = StreamState {
        last: id(last).ok_or_else(strange)?,
        added,
        length: count(length).ok_or_else(strange)?,
        first: id(first),
        max_deleted: id(max_deleted).unwrap_or(StreamId::ZERO),
    };
    let entries = entries.iter().map(|entry| {
        let Value::Array(pair) = entry else { return None };
        match &pair[..] {
            [at, Value::Array(fields)] => {
                let bytes =
                    |value: &'_ Value| if let Value::BulkString(bytes) = value { bytes.clone() } else { Vec::new() };
                let fields: Vec<Vec<u8>> = fields.iter().map(bytes).collect();
                Some((id(at)?, Body::from_fields(fields.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1])))))
            }
            [at, Value::Int(_)] => Some((id(at)?, Body::TooLarge)),
            _ => None,
        }
    });
    Ok(Page {
        entries: entries.collect::<Option<_>>().ok_or_else(strange)?,
        complete: number(complete) == Some(1),
        needs: number(needs).and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
        stream: Some(stream),
        barrier_position,
    })
}

#[async_trait]
impl EventStore for RedisStore {
    fn start(&self, handler: Weak<dyn NotificationHandler>) {
        self.subscriber.get_or_init(|| {
            NotificationSubscriber::start(self.client.clone(), self.timeout, handler, Arc::clone(&self.metrics))
        });
    }

    fn subscribe(&self, channel: &Arc<str>) {
        if let Some(subscriber) = self.subscriber.get() {
            subscriber.want(channel);
        }
    }

    fn unsubscribe(&self, channel: &str) {
        if let Some(subscriber) = self.subscriber.get() {
            subscriber.unwant(channel);
        }
    }

    fn set_barrier_stream(&self, key: &Arc<str>) {
        let _ = self.barrier_stream.set(Arc::clone(key));
    }

    async fn read(&self, channel: &str, after: StreamId, limits: Limits) -> Result<Page, StoreError> {
        // A read of states alone, and one of a few live entries, must not wait behind a replay's.
        let mut connection = if limits.entries <= LIVE_ENTRIES { self.live.clone() } else { self.bulk.clone() };
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
        page(reply)
    }

    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError> {
        let option = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
        let id: String = self
            .emit
            .key(channel)
            .arg(&event.text)
            .arg(&event.event)
            .arg(event.encoding)
            .arg(notification_head(channel, event))
            .arg(option(retention.max_length))
            .arg(option(retention.expire_seconds))
            .invoke_async(&mut self.bulk.clone())
            .await?;
        id.parse().map_err(|_| StoreError::Refused(format!("an id that is none: {id}")))
    }

    async fn hash_all(&self, key: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(cmd("HGETALL").arg(key).query_async(&mut self.live.clone()).await?)
    }

    async fn hash_set(&self, key: &str, field: &str, value: Option<&str>) -> Result<(), StoreError> {
        let mut connection = self.bulk.clone();
        let _changed: i64 = match value {
            Some(value) => cmd("HSET").arg(key).arg(field).arg(value).query_async(&mut connection).await?,
            None => cmd("HDEL").arg(key).arg(field).query_async(&mut connection).await?,
        };
        Ok(())
    }

    async fn command(&self, command: &Command) -> Result<Reply, StoreError> {
        let mut connection = self.bulk.clone();
        let value: Result<Value, RedisError> = match command {
            Command::Add { key, no_create, trim, id, fields } => {
                let mut add = cmd("XADD");
                add.arg(key);
                if *no_create {
                    add.arg("NOMKSTREAM");
                }
                if let Some(trim) = trim {
                    match &trim.keep {
                        Keep::MaxLen(n) => add.arg("MAXLEN").arg(if trim.approximate { "~" } else { "=" }).arg(*n),
                        Keep::MinId(id) => {
                            add.arg("MINID").arg(if trim.approximate { "~" } else { "=" }).arg(id.to_string())
                        }
                    };
                }
                add.arg(id.to_string());
                for (name, value) in fields {
                    add.arg(name).arg(value);
                }
                add.query_async(&mut connection).await
            }
            Command::Range { key, start, end, count } => {
                let mut range = cmd("XRANGE");
                range.arg(key).arg(start).arg(end);
                if let Some(count) = count {
                    range.arg("COUNT").arg(*count);
                }
                range.query_async(&mut connection).await
            }
            Command::Publish { key, message } => {
                cmd("PUBLISH").arg(key).arg(message).query_async(&mut connection).await
            }
            Command::Expire { key, seconds } => self.expire.key(key).arg(*seconds).invoke_async(&mut connection).await,
        };
        Ok(reply(value.map_err(command_error)?))
    }

    fn fleet(&self, keys: &FleetKeys) -> Option<Arc<dyn FleetStore>> {
        Some(Arc::new(RedisFleetStore::new(self.live.clone(), self.blobs.clone(), keys.clone())))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let _pong: Value = cmd("PING").query_async(&mut self.live.clone()).await?;
        Ok(())
    }
}

#[async_trait]
impl KeyLookup for RedisStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(cmd("GET").arg(key).query_async(&mut self.live.clone()).await?)
    }

    async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(cmd("HGET").arg(key).arg(field).query_async(&mut self.live.clone()).await?)
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, StoreError> {
        Ok(cmd("SISMEMBER").arg(key).arg(member).query_async(&mut self.live.clone()).await?)
    }
}

fn reply(value: Value) -> Reply {
    match value {
        Value::Int(n) => Reply::Int(n),
        Value::BulkString(bytes) => Reply::Text(bytes),
        Value::SimpleString(text) => Reply::Text(text.into_bytes()),
        Value::Okay => Reply::Text(b"OK".to_vec()),
        Value::Array(items) => Reply::List(items.into_iter().map(reply).collect()),
        _ => Reply::Nil,
    }
}
