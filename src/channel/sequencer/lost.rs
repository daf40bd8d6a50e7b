//! The entries that the store lost in its last reset. Some may return: one that was delivered before is not delivered again.

use std::sync::Arc;

use crate::channel::sequencer::history::EntryKey;
use crate::event::{Body, StreamId};

#[derive(Debug, Default)]
pub(super) struct LostEntries {
    /// In the order of ids.
    entries: Arc<[EntryKey]>,
    /// Those that were read again since, with the same content.
    returned: Vec<StreamId>,
}

impl LostEntries {
    /// `None` without entries.
    pub fn new(entries: Vec<EntryKey>) -> Option<Box<Self>> {
        (!entries.is_empty()).then(|| Box::new(Self { entries: entries.into(), returned: Vec::new() }))
    }

    pub fn has(&self, id: StreamId, body: &Body) -> bool {
        has(&self.entries, id, body)
    }

    pub fn entries(&self) -> &Arc<[EntryKey]> {
        &self.entries
    }

    /// Takes note of an entry that was read.
    pub fn read(&mut self, id: StreamId, body: &Body) {
        if self.has(id, body) {
            self.returned.push(id);
        }
    }

    /// Whether the entry with this id is one of those that were lost.
    pub fn has_returned(&self, id: StreamId) -> bool {
        self.returned.binary_search(&id).is_ok()
    }
}

/// Whether these entries, in the order of ids, have this one.
pub fn has(entries: &[EntryKey], id: StreamId, body: &Body) -> bool {
    let found = entries.binary_search_by_key(&id, |(id, _)| *id);
    found.is_ok_and(|index| entries.get(index).is_some_and(|(_, content)| *content == body.content_hash()))
}
