//! Entries that were read and not delivered yet.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::channel::budget::SequencerBudgets;
use crate::event::{ContentHash, StreamId, UntypedEvent};
use crate::util::allocation::allocation;

/// At this many staged entries, or bytes of them, reads of the channel pause until some were delivered.
const MAX_STAGED_ENTRIES: usize = 2048;
const MAX_STAGED_BYTES: usize = 1 << 20;
/// What a staged entry costs in addition to its content: the item of the queue, and the allocations.
const STAGED_OVERHEAD_BYTES: usize = 160;

/// An entry that was read and not delivered yet, or an item that stands for entries that are not in the stream.
#[derive(Debug)]
pub(super) enum Staged {
    Event {
        id: StreamId,
        content: Option<ContentHash>,
        frame: Bytes,
    },
    /// Until the deadline, the event waits for its notification: the stream does not tell whether a stock emitter added a string or JSON.
    Untyped {
        id: StreamId,
        event: UntypedEvent,
        deadline: Instant,
    },
    /// An entry of another application.
    Skip(StreamId),
    TooLarge(StreamId),
    /// Entries before `end` that were trimmed before they were read.
    Hole(Hole),
}

#[derive(Debug)]
pub(super) struct Hole {
    /// The number of missing entries.
    pub count: u64,
    /// They were added after this position.
    pub from: StreamId,
    /// The first entry after them that was read, or the end of the stream.
    pub end: StreamId,
    /// The ids that the missing entries may have: they are greater than `after`, and at most `last`.
    pub after: StreamId,
    pub last: StreamId,
    /// Notifications that arrive until then supply the entries.
    pub deadline: Instant,
}

impl Hole {
    pub fn may_contain(&self, id: StreamId) -> bool {
        self.after < id && id <= self.last
    }
}

impl Staged {
    pub fn id(&self) -> Option<StreamId> {
        match self {
            Self::Event { id, .. } | Self::Untyped { id, .. } | Self::Skip(id) | Self::TooLarge(id) => Some(*id),
            Self::Hole(_) => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Untyped { deadline, .. } | Self::Hole(Hole { deadline, .. }) => Some(*deadline),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        STAGED_OVERHEAD_BYTES
            + match self {
                Self::Event { frame, .. } => allocation(frame.len()),
                Self::Untyped { event, .. } => event.size(),
                _ => 0,
            }
    }
}

/// The staged entries of one channel, in stream order. Their bytes count in the budget of the node.
#[derive(Debug)]
pub(super) struct StagedQueue {
    budgets: Arc<SequencerBudgets>,
    entries: VecDeque<Staged>,
    bytes: usize,
}

impl StagedQueue {
    pub fn new(budgets: Arc<SequencerBudgets>) -> Self {
        Self { budgets, entries: VecDeque::new(), bytes: 0 }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Staged> {
        self.entries.iter()
    }

    /// Whether the channel has to deliver entries before it reads more: it has many, or all channels together do. A channel without
    /// entries may always read, or the entries of others could stop it.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_STAGED_ENTRIES
            || self.bytes >= MAX_STAGED_BYTES
            || (!self.entries.is_empty() && self.budgets.staged.is_exhausted())
    }

    pub fn push(&mut self, staged: Staged) {
        self.add_bytes(staged.size());
        self.entries.push_back(staged);
    }

    /// Removes the first entry, unless it waits. The deadline is that of the first entry if it waits.
    pub fn pop_ready(&mut self, now: Instant) -> Result<Option<Staged>, Instant> {
        if let Some(deadline) = self.entries.front().and_then(Staged::deadline).filter(|deadline| *deadline > now) {
            return Err(deadline);
        }
        let front = self.entries.pop_front();
        if let Some(front) = &front {
            self.remove_bytes(front.size());
        }
        Ok(front)
    }

    /// Replaces the untyped event with this id, if there is one.
    pub fn resolve(&mut self, id: StreamId, resolve: impl FnOnce(&UntypedEvent) -> Staged) {
        // Ids ascend, but for the items without one.
        let untyped = self.entries.iter_mut().find(|staged| staged.id() == Some(id));
        if let Some(staged) = untyped
            && let Staged::Untyped { event, .. } = staged
        {
            let resolved = resolve(event);
            let (before, after) = (staged.size(), resolved.size());
            *staged = resolved;
            self.remove_bytes(before);
            self.add_bytes(after);
        }
    }

    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.entries.iter().filter_map(|staged| if let Staged::Hole(hole) = staged { Some(hole) } else { None })
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.remove_bytes(self.bytes);
    }

    fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budgets.staged.take(bytes);
    }

    fn remove_bytes(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budgets.staged.release(bytes);
    }
}

impl Drop for StagedQueue {
    fn drop(&mut self) {
        self.clear();
    }
}
