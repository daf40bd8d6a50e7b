//! The streams of the embedded store, within their limit of memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::event::StreamId;
use crate::store::StoreError;
use crate::store::command::{Keep, NewId};
use crate::store::emit::{LOOK_BACK_ENTRIES, LOOK_BACK_TIME, TOKEN_FIELD};
use crate::util::allocation::allocation;

/// What a stream costs in addition to its name and its entries, in the maps of streams.
const STREAM_BYTES: usize = 384;
/// What an entry costs in its stream in addition to its fields: two slots, because the queue doubles when it grows.
const ENTRY_BYTES: usize = 2 * size_of::<(StreamId, EntryFields)>();

#[derive(Default)]
pub(super) struct MemoryState {
    pub streams: HashMap<Arc<str>, Stream>,
    pub subscribed: HashSet<Arc<str>>,
    /// Each stream that has entries, by the id of its oldest: the order of eviction.
    pub oldest: BTreeSet<(StreamId, Arc<str>)>,
    /// Each stream that expires, by the time in ms since the Unix epoch.
    pub expiries: BTreeSet<(u64, Arc<str>)>,
    /// The size of all streams.
    pub bytes: usize,
    /// The maximum of `bytes`.
    pub limit: usize,
    /// The revocations of each fleet, by id. They do not count in `bytes`, because their number and size are bounded.
    pub revocations: HashMap<String, BTreeMap<String, String>>,
}

#[derive(Default)]
pub(super) struct Stream {
    pub entries: VecDeque<(StreamId, EntryFields)>,
    pub last: StreamId,
    pub added: u64,
    /// In ms since the Unix epoch.
    pub expires: Option<u64>,
}

pub(super) type EntryFields = Vec<(String, String)>;

/// The memory of an entry.
fn cost(fields: &[(String, String)]) -> usize {
    let texts = fields.iter().map(|(name, value)| allocation(name.len()) + allocation(value.len()));
    ENTRY_BYTES + allocation(size_of_val(fields)) + texts.sum::<usize>()
}

/// The bytes of the texts of an entry.
pub(super) fn text_bytes(fields: &[(String, String)]) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Whether a stream has the entry of an earlier attempt to emit an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookUp {
    Found(StreamId),
    /// The entry with this token has other fields.
    Conflict(StreamId),
    Absent,
    /// It is not there, and may have been.
    Unknown,
}

impl MemoryState {
    /// Looks for the entry with this token among the latest ones.
    pub fn look_up(&self, key: &str, token: &str, fields: &[(String, String)]) -> LookUp {
        let Some(stream) = self.streams.get(key) else { return LookUp::Absent };
        let oldest = stream.last.ms.saturating_sub(u64::try_from(LOOK_BACK_TIME.as_millis()).unwrap_or(u64::MAX));
        let latest = stream.entries.iter().rev();
        let mut looked_at = 0;
        for (id, entry) in latest.take_while(|(id, _)| id.ms >= oldest).take(LOOK_BACK_ENTRIES) {
            if entry.iter().any(|(name, value)| name == TOKEN_FIELD && value == token) {
                return if entry == fields { LookUp::Found(*id) } else { LookUp::Conflict(*id) };
            }
            looked_at += 1;
        }
        let has_older = stream.entries.front().is_some_and(|(first, _)| first.ms < oldest);
        let is_whole = stream.added == stream.entries.len() as u64;
        if looked_at < LOOK_BACK_ENTRIES && (has_older || is_whole) { LookUp::Absent } else { LookUp::Unknown }
    }

    pub fn expire(&mut self, now: u64) {
        while let Some((at, key)) = self.expiries.first().cloned().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, Arc::clone(&key)));
            self.remove(&key);
        }
    }

    pub fn remove(&mut self, key: &Arc<str>) {
        let Some(stream) = self.streams.remove(key) else { return };
        self.bytes -= STREAM_BYTES + key.len() + stream.entries.iter().map(|(_, fields)| cost(fields)).sum::<usize>();
        if let Some((first, _)) = stream.entries.front() {
            self.oldest.remove(&(*first, Arc::clone(key)));
        }
        if let Some(at) = stream.expires {
            self.expiries.remove(&(at, Arc::clone(key)));
        }
    }

    pub fn add(&mut self, key: &str, id: NewId, now: u64, mut fields: EntryFields) -> Result<StreamId, StoreError> {
        let key: Arc<str> = key.into();
        let last = self.streams.get(&key).map_or(StreamId::ZERO, |s| s.last);
        let id = next_id(last, id, now).map_err(|reason| StoreError::InvalidCommand(reason.into()))?;
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
    pub fn pop(&mut self, key: &Arc<str>) {
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

    pub fn trim(&mut self, key: &str, keep: &Keep) {
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
    pub fn evict(&mut self, barrier_stream: Option<&Arc<str>>) {
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
    pub fn set_expiry(&mut self, key: &str, at: u64) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let key: Arc<str> = key.into();
        if let Some(old) = stream.expires.replace(at) {
            self.expiries.remove(&(old, Arc::clone(&key)));
        }
        self.expiries.insert((at, key));
        true
    }
}

/// The id of a new entry. The errors are those of Redis.
fn next_id(last: StreamId, id: NewId, now: u64) -> Result<StreamId, &'static str> {
    const TOO_SMALL: &str = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
    let in_ms = |ms: u64| match ms.cmp(&last.ms) {
        std::cmp::Ordering::Greater => Some(StreamId::new(ms, 0)),
        std::cmp::Ordering::Equal => last.seq.checked_add(1).map(|seq| StreamId::new(ms, seq)),
        std::cmp::Ordering::Less => None,
    };
    match id {
        NewId::Auto => in_ms(now.max(last.ms))
            .or_else(|| Some(StreamId::new(last.ms.checked_add(1)?, 0)))
            .ok_or("ERR The stream has exhausted the last possible ID, unable to add more items"),
        NewId::AutoSeq(0) if last == StreamId::ZERO => Ok(StreamId::new(0, 1)),
        NewId::AutoSeq(ms) => in_ms(ms).ok_or(TOO_SMALL),
        NewId::Exact(StreamId::ZERO) => Err("ERR The ID specified in XADD must be greater than 0-0"),
        NewId::Exact(id) => {
            if id > last {
                Ok(id)
            } else {
                Err(TOO_SMALL)
            }
        }
    }
}
