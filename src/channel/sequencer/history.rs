//! The last entries that were read, by which a channel finds out after a store reset which entries it has delivered.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::event::{Body, StreamId};

/// More entries than a store that falls back loses as a rule.
const MAX_ENTRIES: usize = 32;

#[derive(Debug, Default)]
pub(super) struct ReadHistory {
    /// The history has every entry that was read after this position.
    after: StreamId,
    /// Ids in ascending order, and hashes of the content: an emitter may use an id again after a reset.
    entries: VecDeque<(StreamId, u64)>,
}

impl ReadHistory {
    /// Begins after this position.
    pub fn restart(&mut self, position: StreamId) {
        self.after = position;
        self.entries.clear();
    }

    pub fn push(&mut self, id: StreamId, body: &Body) {
        if self.entries.len() == MAX_ENTRIES
            && let Some((evicted, _)) = self.entries.pop_front()
        {
            self.after = evicted;
        }
        self.entries.push_back((id, hash(body)));
    }

    pub fn after(&self) -> StreamId {
        self.after
    }

    /// Whether an entry with this id was read.
    pub fn has_id(&self, id: StreamId) -> bool {
        self.find(id).is_some()
    }

    /// Whether this entry was read.
    pub fn has(&self, id: StreamId, body: &Body) -> bool {
        self.find(id).is_some_and(|known| known == hash(body))
    }

    /// The hash of the content of the entry with this id.
    fn find(&self, id: StreamId) -> Option<u64> {
        let index = self.entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.entries.get(index).map(|(_, hash)| *hash)
    }
}

fn hash(body: &Body) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}
