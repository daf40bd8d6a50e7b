//! The embedded store, `memory:`: streams, notifications and seeded look-ups in this process. It behaves as Redis does, and its size is
//! bounded.

mod state;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};

use crate::event::{Body, NewEvent, StreamId, notification_head};
use crate::store::command::{Keep, NewId, Reply, RestCommand, TEXT_OVERHEAD_BYTES, bound};
use crate::store::emit;
use crate::store::emit::{Attempt, Emitted, TOKEN_FIELD};
use crate::store::memory::state::{EntryFields, LookUp, MemoryState, text_bytes};
use crate::store::revocations::{AddedRevocation, NewRevocation, RevocationIds, StoredRevocations};
use crate::store::{
    ChangedStreams, EventStore, KeyLookup, KnownStream, NotificationHandler, Page, ReadLimits, ReadRequest, Retention,
    StoreError, StreamState, revocations,
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

pub struct MemoryStore {
    state: Mutex<MemoryState>,
    seed: HashMap<String, Seed>,
    handler: OnceLock<Weak<dyn NotificationHandler>>,
    barrier_stream: OnceLock<Arc<str>>,
    clock: Clock,
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

    fn barrier_position_in(&self, state: &MemoryState) -> StreamId {
        let stream = self.barrier_stream.get().and_then(|key| state.streams.get(key));
        stream.map_or(StreamId::ZERO, |stream| stream.last)
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

impl MemoryStore {
    /// Adds an event, unless an earlier attempt has added it, and publishes its notification.
    fn emit_event(
        &self,
        channel: &str,
        event: &NewEvent,
        retention: Retention,
        attempt: Option<Attempt<'_>>,
    ) -> Result<Emitted, StoreError> {
        self.check_is_stream(channel)?;
        let mut fields =
            vec![("data", &*event.text), ("event", &*event.event), ("channel", channel), ("type", event.encoding)];
        fields.extend(attempt.map(|attempt| (TOKEN_FIELD, attempt.token.as_str())));
        let fields: EntryFields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let now = (self.clock)();
        let emitted = {
            let mut state = self.state();
            let attempt = attempt.filter(|attempt| attempt.is_repeated);
            let earlier =
                attempt.map_or(LookUp::Absent, |attempt| state.look_up(channel, attempt.token.as_str(), &fields));
            match earlier {
                LookUp::Found(id) => Emitted { id, is_uncertain: false },
                LookUp::Conflict(id) => return Err(emit::conflict(id)),
                LookUp::Absent | LookUp::Unknown => {
                    let id = state.add(channel, NewId::Auto, now, fields)?;
                    if let Some(max) = retention.max_length {
                        state.trim(channel, &Keep::MaxLen(max));
                    }
                    if let Some(seconds) = retention.expire_seconds {
                        state.set_expiry(channel, now.saturating_add(seconds.saturating_mul(1000)));
                    }
                    state.evict(self.barrier_stream.get());
                    Emitted { id, is_uncertain: matches!(earlier, LookUp::Unknown) }
                }
            }
        };
        self.publish(channel, &format!(r#"{},"id":"{}"}}"#, notification_head(channel, event), emitted.id));
        Ok(emitted)
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

    async fn barrier_position(&self) -> Result<StreamId, StoreError> {
        Ok(self.barrier_position_in(&self.state()))
    }

    async fn read(&self, channel: &str, request: ReadRequest, limits: ReadLimits) -> Result<Page, StoreError> {
        self.check_is_stream(channel)?;
        let state = self.state();
        let barrier_position = Some(self.barrier_position_in(&state));
        let mut page = Page { complete: true, barrier_position, ..Page::default() };
        let Some(stream) = state.streams.get(channel) else { return Ok(page) };
        page.exists = true;
        let mut used = 0;
        let from = stream.entries.partition_point(|(id, _)| *id <= request.after);
        let at = from.checked_sub(1).and_then(|at| stream.entries.get(at));
        page.has_after = request.is_entry && at.is_some_and(|(id, _)| *id == request.after);
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
                decode(fields)
            };
            page.entries.push((*id, body));
        }
        if limits.entries == 0 {
            let is_within = |fields: &&EntryFields| text_bytes(fields) <= limits.bytes.min(limits.max_event);
            let last = stream.entries.back().map(|(_, fields)| fields).filter(is_within);
            page.last_entry = last.map(|fields| decode(fields));
        }
        let is_proven = page.has_after && page.complete && page.entries.len() >= request.notified as usize;
        page.stream = (request.wants_state || !is_proven).then(|| StreamState {
            last: stream.last,
            added: stream.added,
            length: stream.entries.len() as u64,
            first: stream.entries.front().map(|(id, _)| *id),
            has_last: stream.entries.back().is_some_and(|(id, _)| *id == stream.last),
            max_deleted: StreamId::ZERO,
        });
        Ok(page)
    }

    async fn find_changed(&self, streams: &[KnownStream]) -> Result<ChangedStreams, StoreError> {
        let state = self.state();
        let is_changed = |known: &KnownStream| {
            let last = state.streams.get(&*known.channel).map(|stream| stream.entries.back().map(|(id, _)| *id));
            self.seed.contains_key(&*known.channel) || last != known.last_entry.map(Some)
        };
        let indices = (0..streams.len()).filter(|index| is_changed(&streams[*index])).collect();
        Ok(ChangedStreams { indices, barrier_position: Some(self.barrier_position_in(&state)) })
    }

    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError> {
        Ok(self.emit_event(channel, event, retention, None)?.id)
    }

    async fn emit_once(
        &self,
        channel: &str,
        event: &NewEvent,
        retention: Retention,
        attempt: Attempt<'_>,
    ) -> Result<Emitted, StoreError> {
        self.emit_event(channel, event, retention, Some(attempt))
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

    async fn restore_revocation(&self, key: &str, id: &str, value: &str) -> Result<bool, StoreError> {
        let mut state = self.state();
        let stored = state.revocations.entry(key.into()).or_default();
        let is_missing = !stored.contains_key(id);
        stored.entry(id.into()).or_insert_with(|| value.into());
        Ok(is_missing)
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

fn decode(fields: &[(String, String)]) -> Body {
    Body::from_fields(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

#[cfg(test)]
mod tests;
