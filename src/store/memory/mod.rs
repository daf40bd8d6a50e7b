//! The embedded store, `memory:`: streams, notifications and seeded look-ups in this process. It behaves as Redis does, and its size is
//! bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};

use crate::event::{Body, NewEvent, StreamId, notification_head};
use crate::store::command::{Keep, NewId, Reply, RestCommand, TEXT_OVERHEAD_BYTES, bound};
use crate::store::revocations::{AddedRevocation, NewRevocation, RevocationIds, StoredRevocations};
use crate::store::{
    EventStore, KeyLookup, NotificationHandler, Page, ReadLimits, Retention, StoreError, StreamState, revocations,
};
use crate::util::client_key::ClientKey;
use crate::util::clock::Clock;

/// The value of a seeded key; its TOML type selects the variant.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "expected a string, a list of strings (a set) or a table of strings (a hash)")]
pub enum Seed {
    /// A string key.
    Text(String),
    Set(HashSet<String>),
    Hash(BTreeMap<String, String>),
}

/// Shows no value: a session may be a secret.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// What a stream costs in addition to its name and its entries, in the maps of streams.
const STREAM_BYTES: usize = 384;
/// What an entry costs in its stream in addition to its fields: two slots, because the queue doubles when it grows.
const ENTRY_BYTES: usize = 2 * size_of::<(StreamId, EntryFields)>();

pub struct MemoryStore {
    state: Mutex<MemoryState>,
    seed: HashMap<String, Seed>,
    handler: OnceLock<Weak<dyn NotificationHandler>>,
    barrier_stream: OnceLock<Arc<str>>,
    clock: Clock,
}

#[derive(Default)]
struct MemoryState {
    streams: HashMap<Arc<str>, Stream>,
    subscribed: HashSet<Arc<str>>,
    /// Each stream that has entries, by the id of its oldest: the order of eviction.
    oldest: BTreeSet<(StreamId, Arc<str>)>,
    /// Each stream that expires, by the time in ms since the Unix epoch.
    expiries: BTreeSet<(u64, Arc<str>)>,
    /// The size of all streams.
    bytes: usize,
    /// The maximum of `bytes`.
    limit: usize,
    /// The revocations of each fleet, by id. They do not count in `bytes`, because their number and size are bounded.
    revocations: HashMap<String, BTreeMap<String, String>>,
}

#[derive(Default)]
struct Stream {
    entries: VecDeque<(StreamId, EntryFields)>,
    last: StreamId,
    added: u64,
    /// In ms since the Unix epoch.
    expires: Option<u64>,
}

type EntryFields = Vec<(String, String)>;

/// The memory of an entry.
fn cost(fields: &[(String, String)]) -> usize {
    let texts = fields.iter().map(|(name, value)| allocation(name.len()) + allocation(value.len()));
    ENTRY_BYTES + allocation(size_of_val(fields)) + texts.sum::<usize>()
}

/// What an allocator takes for this many bytes: it rounds up to a quarter of a power of two.
const fn allocation(bytes: usize) -> usize {
    let step = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(if step < 16 { 16 } else { step })
}

/// The bytes of the texts of an entry.
fn text_bytes(fields: &[(String, String)]) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}

impl MemoryStore {
    /// A store of at most `limit` bytes without streams. `seed` has the keys for look-ups.
    pub fn new(limit: usize, seed: HashMap<String, Seed>, clock: Clock) -> Self {
        let state = Mutex::new(MemoryState { limit, ..MemoryState::default() });
        Self { state, seed, handler: OnceLock::new(), barrier_stream: OnceLock::new(), clock }
    }

    /// The state, without expired streams.
    fn state(&self) -> MutexGuard<'_, MemoryState> {
        let mut state = self.state.lock();
        state.expire((self.clock)());
        state
    }

    /// Only a seed can have a type other than a stream.
    fn check_is_stream(&self, key: &str) -> Result<(), StoreError> {
        if self.seed.contains_key(key) { Err(StoreError::WrongType) } else { Ok(()) }
    }

    /// Returns whether the channel is subscribed.
    fn publish(&self, channel: &str, payload: &str) -> bool {
        let is_subscribed = self.state().subscribed.contains(channel);
        if let Some(handler) = self.handler.get().and_then(Weak::upgrade).filter(|_| is_subscribed) {
            handler.notified(channel, payload.as_bytes());
        }
        is_subscribed
    }
}

impl MemoryState {
    fn expire(&mut self, now: u64) {
        while let Some((at, key)) = self.expiries.first().cloned().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, Arc::clone(&key)));
            self.remove(&key);
        }
    }

    fn remove(&mut self, key: &Arc<str>) {
        let Some(stream) = self.streams.remove(key) else { return };
        self.bytes -= STREAM_BYTES + key.len() + stream.entries.iter().map(|(_, fields)| cost(fields)).sum::<usize>();
        if let Some((first, _)) = stream.entries.front() {
            self.oldest.remove(&(*first, Arc::clone(key)));
        }
        if let Some(at) = stream.expires {
            self.expiries.remove(&(at, Arc::clone(key)));
        }
    }

    fn add(&mut self, key: &str, id: NewId, now: u64, mut fields: EntryFields) -> Result<StreamId, StoreError> {
        let key: Arc<str> = key.into();
        let last = self.streams.get(&key).map_or(StreamId::ZERO, |s| s.last);
        let id = next_id(last, id, now).ok_or_else(|| {
            StoreError::InvalidCommand(
                "ERR The ID specified in XADD is equal or smaller than the target stream top item".into(),
            )
        })?;
        fields.iter_mut().for_each(|(name, value)| {
            name.shrink_to_fit();
            value.shrink_to_fit();
        });
        fields.shrink_to_fit();
        let size = cost(&fields);
        if size + STREAM_BYTES + key.len() > self.limit {
            return Err(StoreError::InvalidCommand(format!(
                "ERR an entry of {size} bytes is more than memory-store.max-size"
            )));
        }
        let stream = self.streams.entry(Arc::clone(&key)).or_insert_with(|| {
            self.bytes += STREAM_BYTES + key.len();
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

    /// Removes a stream's oldest entry.
    fn pop(&mut self, key: &Arc<str>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some((first, fields)) = stream.entries.pop_front() else { return };
        self.bytes -= cost(&fields);
        // A queue that was longer once keeps no more slots than are counted.
        if stream.entries.capacity() > 2 * stream.entries.len() + 8 {
            stream.entries.shrink_to(stream.entries.len() + stream.entries.len() / 2);
        }
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

    /// Removes the oldest entries of all streams, and streams that have none left, until the size is within the limit. Entries of the
    /// barrier stream are removed last: it is small, and its reader would count removed entries as missed commands.
    fn evict(&mut self, barrier_stream: Option<&Arc<str>>) {
        while self.bytes > self.limit {
            let mut oldest = self.oldest.iter();
            let oldest = oldest.find(|(_, key)| Some(key) != barrier_stream).or_else(|| self.oldest.first());
            let Some((_, key)) = oldest.cloned() else { break };
            self.pop(&key);
            if self.streams.get(&key).is_some_and(|s| s.entries.is_empty()) {
                self.remove(&key);
            }
        }
        if self.bytes > self.limit {
            // Only streams whose entries were all trimmed are left.
            self.streams.clear();
            self.expiries.clear();
            self.bytes = 0;
        }
    }

    /// Returns whether the stream exists.
    fn set_expiry(&mut self, key: &str, at: u64) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let key: Arc<str> = key.into();
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
        // The trait allows one call, so a second handler is a bug of the caller.
        let _ = self.handler.set(handler);
    }

    fn subscribe(&self, channel: &Arc<str>, _client: &Arc<ClientKey>) {
        self.state().subscribed.insert(Arc::clone(channel));
        let (handler, channel) = (self.handler.get().cloned(), Arc::clone(channel));
        tokio::spawn(async move {
            if let Some(handler) = handler.and_then(|handler| handler.upgrade()) {
                handler.subscribed(&channel);
            }
        });
    }

    fn unsubscribe(&self, channel: &str) {
        self.state().subscribed.remove(channel);
    }

    fn set_barrier_stream(&self, key: &Arc<str>) {
        let _ = self.barrier_stream.set(Arc::clone(key));
    }

    async fn read(&self, channel: &str, after: StreamId, limits: ReadLimits) -> Result<Page, StoreError> {
        self.check_is_stream(channel)?;
        let state = self.state();
        let barrier_stream = self.barrier_stream.get().and_then(|key| state.streams.get(key));
        let barrier_position = barrier_stream.map_or(StreamId::ZERO, |stream| stream.last);
        let mut page = Page { complete: true, barrier_position, ..Page::default() };
        let Some(stream) = state.streams.get(channel) else { return Ok(page) };
        page.stream = Some(StreamState {
            last: stream.last,
            added: stream.added,
            length: stream.entries.len() as u64,
            first: stream.entries.front().map(|(id, _)| *id),
            max_deleted: StreamId::ZERO,
        });
        let mut used = 0;
        let from = stream.entries.partition_point(|(id, _)| *id <= after);
        for (id, fields) in stream.entries.range(from..) {
            let size = text_bytes(fields);
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
        self.check_is_stream(channel)?;
        let fields = [("data", &*event.text), ("event", &*event.event), ("channel", channel), ("type", event.encoding)];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let now = (self.clock)();
        let id = {
            let mut state = self.state();
            let id = state.add(channel, NewId::Auto, now, fields)?;
            if let Some(max) = retention.max_length {
                state.trim(channel, &Keep::MaxLen(max));
            }
            if let Some(seconds) = retention.expire_seconds {
                state.set_expiry(channel, now.saturating_add(seconds.saturating_mul(1000)));
            }
            state.evict(self.barrier_stream.get());
            id
        };
        self.publish(channel, &format!(r#"{},"id":"{id}"}}"#, notification_head(channel, event)));
        Ok(id)
    }

    async fn revocations(&self, key: &str, ids: RevocationIds<'_>) -> Result<StoredRevocations, StoreError> {
        let (now, state) = ((self.clock)(), self.state());
        let is_read = |id: &str| match ids {
            RevocationIds::All => true,
            RevocationIds::Some(ids) => ids.contains(&id),
        };
        let entries = state.revocations.get(key).into_iter().flatten().filter(|(id, _)| is_read(id));
        let entries = entries.map(|(id, value)| (id.clone(), value.clone().into_bytes())).collect();
        Ok(StoredRevocations { now: Some(now), entries })
    }

    async fn add_revocation(&self, key: &str, new: NewRevocation<'_>) -> Result<AddedRevocation, StoreError> {
        let (now, mut state) = ((self.clock)(), self.state());
        let stored = state.revocations.entry(key.into()).or_default();
        stored.retain(|_, value| revocations::end_of(value).is_none_or(|end| end > now));
        if stored.len() >= new.max_active {
            return Ok(AddedRevocation { now, until: None });
        }
        let until = now.saturating_add(u64::try_from(new.duration.as_millis()).unwrap_or(u64::MAX));
        let value = new.value.strip_suffix('}').unwrap_or(new.value);
        stored.insert(new.id.into(), format!(r#"{value},"until":{until}}}"#));
        Ok(AddedRevocation { now, until: Some(until) })
    }

    async fn restore_revocation(&self, key: &str, id: &str, value: &str) -> Result<(), StoreError> {
        self.state().revocations.entry(key.into()).or_default().insert(id.into(), value.into());
        Ok(())
    }

    async fn remove_revocation(&self, key: &str, id: &str) -> Result<bool, StoreError> {
        Ok(self.state().revocations.get_mut(key).is_some_and(|stored| stored.remove(id).is_some()))
    }

    async fn command(&self, command: &RestCommand) -> Result<Reply, StoreError> {
        let now = (self.clock)();
        if !matches!(command, RestCommand::Publish { .. }) {
            self.check_is_stream(command.key())?;
        }
        match command {
            RestCommand::Add { key, no_create, trim, id, fields } => {
                let mut state = self.state();
                if *no_create && !state.streams.contains_key(&**key) {
                    return Ok(Reply::Nil);
                }
                let id = state.add(key, *id, now, fields.clone())?;
                if let Some(trim) = trim {
                    state.trim(key, &trim.keep);
                }
                state.evict(self.barrier_stream.get());
                Ok(Reply::Text(id.to_string().into_bytes()))
            }
            RestCommand::Range { key, start, end, count, max_bytes } => {
                let empty = Ok(Reply::List(Vec::new()));
                let (Some(start), Some(end)) = (bound(start, true), bound(end, false)) else { return empty };
                let state = self.state();
                let Some(stream) = state.streams.get(&**key) else { return empty };
                let from = stream.entries.partition_point(|(id, _)| *id < start);
                let count = count.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
                let text = |text: &str| Reply::Text(text.as_bytes().to_vec());
                let rows = || stream.entries.range(from..).take_while(|(id, _)| *id <= end).take(count);
                let size = |text: &str| text.len() + TEXT_OVERHEAD_BYTES;
                let fields = |fields: &[(String, String)]| {
                    fields.iter().map(|(name, value)| size(name) + size(value)).sum::<usize>()
                };
                let ids = |id: StreamId| size(&id.to_string()) + TEXT_OVERHEAD_BYTES;
                if rows().map(|(id, all)| ids(*id) + fields(all)).sum::<usize>() > *max_bytes {
                    return Err(StoreError::AnswerTooLarge(*max_bytes));
                }
                let rows = rows().map(|(id, fields)| {
                    let fields = fields.iter().flat_map(|(name, value)| [text(name), text(value)]).collect();
                    Reply::List(vec![text(&id.to_string()), Reply::List(fields)])
                });
                Ok(Reply::List(rows.collect()))
            }
            RestCommand::Publish { key, message } => Ok(Reply::Int(self.publish(key, message).into())),
            RestCommand::Expire { key, seconds } => {
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
