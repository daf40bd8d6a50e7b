//! The embedded store, `memory:`: streams, notifications and seeded look-ups in this process, with Redis' semantics and a bound.

#[cfg(test)]
pub(crate) mod fleet;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};

use crate::event::{Body, NewEvent, StreamId, notification_head};
use crate::store::command::{Command, Keep, NewId, Reply, Trim, bound};
use crate::store::{EventStore, KeyLookup, Limits, NotificationHandler, Page, Retention, StoreError, StreamState};

/// What a value of the seed is; its TOML type tells.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Seed {
    /// A string key.
    Text(String),
    /// A set.
    Set(HashSet<String>),
    /// A hash.
    Hash(BTreeMap<String, String>),
}

/// Milliseconds since 1970; a parameter, so that a test can turn the clock.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// This machine's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    })
}

/// The embedded store.
pub struct MemoryStore {
    state: Mutex<State>,
    seed: HashMap<String, Seed>,
    handler: OnceLock<Weak<dyn NotificationHandler>>,
    barrier_stream: OnceLock<Arc<str>>,
    clock: Clock,
}

/// What a stream and an entry cost beside their texts, roughly; counted so that many small ones are bounded too.
const OVERHEAD: usize = 128;

#[derive(Default)]
struct State {
    streams: HashMap<Arc<str>, Stream>,
    watched: HashSet<Arc<str>>,
    /// Each stream that holds an entry, by its oldest: what goes first when memory is short.
    oldest: BTreeSet<(StreamId, Arc<str>)>,
    expiries: BTreeSet<(u64, Arc<str>)>,
    bytes: usize,
    limit: usize,
    /// Tidegate's own; whoever writes them bounds them.
    hashes: HashMap<String, BTreeMap<String, String>>,
}

#[derive(Default)]
struct Stream {
    entries: VecDeque<(StreamId, Fields)>,
    last: StreamId,
    added: u64,
    expires: Option<u64>,
}

type Fields = Arc<[(String, String)]>;

fn cost(fields: &Fields) -> usize {
    OVERHEAD + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

impl MemoryStore {
    /// An empty store of so many bytes, with keys for look-ups.
    #[must_use]
    pub fn new(limit: usize, seed: HashMap<String, Seed>, clock: Clock) -> Self {
        let state = Mutex::new(State { limit, ..State::default() });
        Self { state, seed, handler: OnceLock::new(), barrier_stream: OnceLock::new(), clock }
    }

    /// The state, with what has expired by now gone.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.expire((self.clock)());
        state
    }

    fn ring(&self, channel: &str, payload: &str) -> bool {
        let watched = self.state().watched.contains(channel);
        if let Some(handler) = self.handler.get().and_then(Weak::upgrade).filter(|_| watched) {
            handler.notified(channel, payload.as_bytes());
        }
        watched
    }
}

impl State {
    fn expire(&mut self, now: u64) {
        while let Some((at, key)) = self.expiries.first().cloned().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, Arc::clone(&key)));
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Arc<str>) {
        let Some(stream) = self.streams.remove(key) else { return };
        self.bytes -= OVERHEAD + key.len() + stream.entries.iter().map(|(_, fields)| cost(fields)).sum::<usize>();
        if let Some((first, _)) = stream.entries.front() {
            self.oldest.remove(&(*first, Arc::clone(key)));
        }
        if let Some(at) = stream.expires {
            self.expiries.remove(&(at, Arc::clone(key)));
        }
    }

    fn add(&mut self, key: &str, id: NewId, now: u64, fields: Fields) -> Result<StreamId, StoreError> {
        let key: Arc<str> = key.into();
        let last = self.streams.get(&key).map_or(StreamId::ZERO, |s| s.last);
        let id = next_id(last, id, now).ok_or_else(|| {
            StoreError::InvalidCommand(
                "ERR The ID specified in XADD is equal or smaller than the target stream top item".into(),
            )
        })?;
        let size = cost(&fields);
        if size + OVERHEAD + key.len() > self.limit {
            return Err(StoreError::InvalidCommand(format!(
                "ERR an entry of {size} bytes is more than memory-store.max-size"
            )));
        }
        let stream = self.streams.entry(Arc::clone(&key)).or_insert_with(|| {
            self.bytes += OVERHEAD + key.len();
            Stream::default()
        });
        if stream.entries.is_empty() {
            self.oldest.insert((id, key));
        }
        stream.entries.push_back((id, fields));
        stream.last = id;
        stream.added += 1;
        self.bytes += size;
        Ok(id)
    }

    /// Drops a stream's oldest entry.
    fn pop(&mut self, key: &Arc<str>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some((first, fields)) = stream.entries.pop_front() else { return };
        self.bytes -= cost(&fields);
        self.oldest.remove(&(first, Arc::clone(key)));
        if let Some((next, _)) = stream.entries.front() {
            self.oldest.insert((*next, Arc::clone(key)));
        }
    }

    fn trim(&mut self, key: &str, keep: &Keep) {
        let key: Arc<str> = key.into();
        let excess = |stream: &Stream| match keep {
            Keep::MaxLen(max) => stream.entries.len() as u64 > *max,
            Keep::MinId(min) => stream.entries.front().is_some_and(|(id, _)| id < min),
        };
        while self.streams.get(&key).is_some_and(excess) {
            self.pop(&key);
        }
    }

    /// Keeps the bound: removes the oldest entries of all streams, and streams that are left empty. Entries of the lead stream go last:
    /// it is small, and its reader would take their absence for commands that it missed.
    fn shrink(&mut self, kept: Option<&Arc<str>>) {
        while self.bytes > self.limit {
            let mut oldest = self.oldest.iter();
            let oldest = oldest.find(|(_, key)| Some(key) != kept).or_else(|| self.oldest.first());
            let Some((_, key)) = oldest.cloned() else { break };
            self.pop(&key);
            if self.streams.get(&key).is_some_and(|s| s.entries.is_empty()) {
                self.remove(&key);
            }
        }
        if self.bytes > self.limit {
            // What is left are streams that a trim to nothing has emptied.
            self.streams.clear();
            self.expiries.clear();
            self.bytes = 0;
        }
    }

    fn set_expiry(&mut self, key: &str, at: u64) -> bool {
        let Some((key, stream)) = self.streams.get_key_value(key).map(|(k, _)| Arc::clone(k)).and_then(|key| {
            let stream = self.streams.get_mut(&key)?;
            Some((key, stream))
        }) else {
            return false;
        };
        if let Some(old) = stream.expires.replace(at) {
            self.expiries.remove(&(old, Arc::clone(&key)));
        }
        self.expiries.insert((at, key));
        true
    }
}

fn next_id(last: StreamId, id: NewId, now: u64) -> Option<StreamId> {
    let in_ms = |ms: u64| match ms.cmp(&last.ms) {
        std::cmp::Ordering::Greater => Some(StreamId::new(ms, 0)),
        std::cmp::Ordering::Equal => last.seq.checked_add(1).map(|seq| StreamId::new(ms, seq)),
        std::cmp::Ordering::Less => None,
    };
    match id {
        NewId::Auto => in_ms(now.max(last.ms)).or_else(|| Some(StreamId::new(last.ms.checked_add(1)?, 0))),
        NewId::AutoSeq(0) if last == StreamId::ZERO => Some(StreamId::new(0, 1)),
        NewId::AutoSeq(ms) => in_ms(ms),
        NewId::Exact(id) => (id > last).then_some(id),
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    fn start(&self, handler: Weak<dyn NotificationHandler>) {
        // A second handler would be a bug of the caller, and would never ring.
        let _ = self.handler.set(handler);
    }

    fn subscribe(&self, channel: &Arc<str>) {
        self.state().watched.insert(Arc::clone(channel));
        let (handler, channel) = (self.handler.get().cloned(), Arc::clone(channel));
        tokio::spawn(async move {
            if let Some(handler) = handler.and_then(|handler| handler.upgrade()) {
                handler.subscribed(&channel);
            }
        });
    }

    fn unsubscribe(&self, channel: &str) {
        self.state().watched.remove(channel);
    }

    fn set_barrier_stream(&self, key: &Arc<str>) {
        let _ = self.barrier_stream.set(Arc::clone(key));
    }

    async fn read(&self, channel: &str, after: StreamId, limits: Limits) -> Result<Page, StoreError> {
        if self.seed.contains_key(channel) {
            return Err(StoreError::WrongType);
        }
        let state = self.state();
        let barrier_position = self
            .barrier_stream
            .get()
            .and_then(|key| state.streams.get(&**key))
            .map_or(StreamId::ZERO, |stream| stream.last);
        let Some(stream) = state.streams.get(channel) else {
            return Ok(Page { complete: true, barrier_position, ..Page::default() });
        };
        let mut page = Page {
            complete: true,
            barrier_position,
            stream: Some(StreamState {
                last: stream.last,
                added: stream.added,
                length: stream.entries.len() as u64,
                first: stream.entries.front().map(|(id, _)| *id),
                max_deleted: StreamId::ZERO,
            }),
            ..Page::default()
        };
        let mut used = 0;
        let from = stream.entries.partition_point(|(id, _)| *id <= after);
        for (id, fields) in stream.entries.range(from..) {
            let size = cost(fields) - OVERHEAD;
            let body = if size > limits.max_event {
                Body::TooLarge
            } else if page.entries.len() == limits.entries || used + size > limits.bytes {
                page.complete = false;
                page.needs = (page.entries.is_empty() && limits.entries > 0).then_some(size);
                break;
            } else {
                used += size;
                Body::from_fields(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
            };
            page.entries.push((*id, body));
        }
        Ok(page)
    }

    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError> {
        if self.seed.contains_key(channel) {
            return Err(StoreError::WrongType);
        }
        let fields = [("data", &*event.text), ("event", &*event.event), ("channel", channel), ("type", event.encoding)];
        let fields: Fields = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let now = (self.clock)();
        let (id, prev) = {
            let mut state = self.state();
            let prev = state.streams.get(channel).map_or(StreamId::ZERO, |s| s.last);
            let id = state.add(channel, NewId::Auto, now, fields)?;
            if let Some(max) = retention.max_length {
                state.trim(channel, &Keep::MaxLen(max));
            }
            if let Some(seconds) = retention.expire_seconds {
                state.set_expiry(channel, now.saturating_add(seconds.saturating_mul(1000)));
            }
            state.shrink(self.barrier_stream.get());
            (id, prev)
        };
        self.ring(channel, &format!(r#"{},"id":"{id}","prev":"{prev}"}}"#, notification_head(channel, event)));
        Ok(id)
    }

    async fn hash_all(&self, key: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let state = self.state();
        let fields = state.hashes.get(key).into_iter().flatten();
        Ok(fields.map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect())
    }

    async fn hash_set(&self, key: &str, field: &str, value: Option<&str>) -> Result<(), StoreError> {
        let mut state = self.state();
        let fields = state.hashes.entry(key.into()).or_default();
        match value {
            Some(value) => fields.insert(field.into(), value.into()),
            None => fields.remove(field),
        };
        Ok(())
    }

    async fn command(&self, command: &Command) -> Result<Reply, StoreError> {
        let now = (self.clock)();
        if self.seed.contains_key(command.key()) && !matches!(command, Command::Publish { .. }) {
            return Err(StoreError::WrongType);
        }
        match command {
            Command::Add { key, no_create, trim, id, fields } => {
                let mut state = self.state();
                if *no_create && !state.streams.contains_key(&**key) {
                    return Ok(Reply::Nil);
                }
                let id = state.add(key, *id, now, fields.clone().into())?;
                if let Some(Trim { keep, .. }) = trim {
                    state.trim(key, keep);
                }
                state.shrink(self.barrier_stream.get());
                Ok(Reply::Text(id.to_string().into_bytes()))
            }
            Command::Range { key, start, end, count } => {
                let empty = Ok(Reply::List(Vec::new()));
                let (Some(start), Some(end)) = (bound(start, true), bound(end, false)) else { return empty };
                let state = self.state();
                let Some(stream) = state.streams.get(&**key) else { return empty };
                let from = stream.entries.partition_point(|(id, _)| *id < start);
                let count = count.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
                let text = |text: &str| Reply::Text(text.as_bytes().to_vec());
                let rows = stream.entries.range(from..).take_while(|(id, _)| *id <= end).take(count);
                let rows = rows.map(|(id, fields)| {
                    let fields = fields.iter().flat_map(|(name, value)| [text(name), text(value)]).collect();
                    Reply::List(vec![text(&id.to_string()), Reply::List(fields)])
                });
                Ok(Reply::List(rows.collect()))
            }
            Command::Publish { key, message } => Ok(Reply::Int(self.ring(key, message).into())),
            Command::Expire { key, seconds } => {
                let after = u64::try_from(seconds.saturating_mul(1000)).unwrap_or(0);
                let found = self.state().set_expiry(key, now.saturating_add(after));
                Ok(Reply::Int(found.into()))
            }
        }
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl KeyLookup for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.seed.get(key) {
            None => Ok(None),
            Some(Seed::Text(text)) => Ok(Some(text.clone().into_bytes())),
            Some(_) => Err(StoreError::WrongType),
        }
    }

    async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.seed.get(key) {
            None => Ok(None),
            Some(Seed::Hash(hash)) => Ok(hash.get(field).map(|value| value.clone().into_bytes())),
            Some(_) => Err(StoreError::WrongType),
        }
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, StoreError> {
        match self.seed.get(key) {
            None => Ok(false),
            Some(Seed::Set(set)) => Ok(set.contains(member)),
            Some(_) => Err(StoreError::WrongType),
        }
    }
}

#[cfg(test)]
mod tests;
