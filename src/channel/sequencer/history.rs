//! The last entries that were read, by which a channel finds out which entries the store has lost.

use std::collections::VecDeque;

use crate::event::{Body, StreamId};

/// More entries than a store that falls back loses as a rule.
pub(super) const MAX_ENTRIES: usize = 64;

/// The id of an entry and [`Body::content_hash`]: an emitter may use an id again after a reset.
pub type EntryKey = (StreamId, u64);

/// What the entries of a history take.
#[cfg(test)]
pub(crate) const MAX_HISTORY_BYTES: usize = MAX_ENTRIES * size_of::<EntryKey>();

#[derive(Debug, Default)]
pub(super) struct ReadHistory {
    /// The history has every entry that was read after this position.
    after: StreamId,
    /// An entry had the id `after`.
    is_entry: bool,
    /// In the order of ids.
    entries: VecDeque<EntryKey>,
}

impl ReadHistory {
    /// Begins after this position.
    pub fn restart(&mut self, position: StreamId, is_entry: bool) {
        (self.after, self.is_entry) = (position, is_entry);
        self.entries.clear();
    }

    pub fn push(&mut self, id: StreamId, body: &Body) {
        if self.entries.len() == MAX_ENTRIES
            && let Some((evicted, _)) = self.entries.pop_front()
        {
            (self.after, self.is_entry) = (evicted, true);
        }
        self.entries.push_back((id, body.content_hash()));
    }

    pub fn after(&self) -> StreamId {
        self.after
    }

    /// The last position before all that is remembered.
    pub fn before(&self) -> StreamId {
        if self.is_entry { self.after.before() } else { self.after }
    }

    /// Whether an entry had the id [`Self::after`].
    pub fn starts_at_entry(&self) -> bool {
        self.is_entry
    }

    /// Whether an entry with this id was read.
    pub fn has_id(&self, id: StreamId) -> bool {
        (self.is_entry && id == self.after) || self.entries.binary_search_by_key(&id, |(id, _)| *id).is_ok()
    }

    /// The hash of the content of the entry with this id, if it is remembered.
    pub fn content(&self, id: StreamId) -> Option<u64> {
        let index = self.entries.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.entries.get(index).map(|(_, content)| *content)
    }

    /// The entries after a position.
    pub fn entries_after(&self, position: StreamId) -> impl Iterator<Item = EntryKey> {
        self.entries.range(self.index_after(position)..).copied()
    }

    /// Forgets the entries after a position, and returns them. Without it the history begins there.
    pub fn split_off(&mut self, position: StreamId, is_entry: bool) -> Vec<EntryKey> {
        let split = self.entries.split_off(self.index_after(position)).into();
        if position < self.after {
            self.restart(position, is_entry);
        }
        split
    }

    fn index_after(&self, position: StreamId) -> usize {
        self.entries.partition_point(|(id, _)| *id <= position)
    }
}
