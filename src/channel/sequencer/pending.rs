//! Notifications that wait for a read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::channel::budget::SequencerBudgets;
use crate::event::{EventNotification, StreamId};

/// What a pending notification costs in addition to its texts: its part of a node of the map, and two allocations.
const PENDING_OVERHEAD_BYTES: usize = 224;

/// A notification that waits for a read.
#[derive(Debug)]
pub(super) struct PendingNotification {
    pub event: EventNotification,
    /// Another notification of the same id has other content, so one of them is forged.
    pub is_disputed: bool,
    /// The number of the last read that began before it arrived. A later one is its check: that read finds the entry if it exists, and has
    /// seen every command that precedes it.
    last_read_before: u64,
}

/// The notifications of one channel that wait for a read, within the budget of the node.
#[derive(Debug)]
pub(super) struct PendingNotifications {
    budgets: Arc<SequencerBudgets>,
    by_id: BTreeMap<StreamId, PendingNotification>,
    /// Reads are numbered from one; at most one is in flight.
    last_begun: u64,
    last_completed: u64,
}

impl PendingNotifications {
    pub fn new(budgets: Arc<SequencerBudgets>) -> Self {
        Self { budgets, by_id: BTreeMap::new(), last_begun: 0, last_completed: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub fn begin_read(&mut self) {
        self.last_begun += 1;
    }

    pub fn complete_read(&mut self) {
        self.last_completed = self.last_begun;
    }

    /// Whether a notification has arrived that no completed read has checked.
    pub fn needs_read(&self) -> bool {
        self.by_id.values().any(|pending| !self.is_checked(pending))
    }

    /// Whether a read that began after the notification arrived has completed.
    pub fn is_checked(&self, pending: &PendingNotification) -> bool {
        pending.last_read_before < self.last_completed
    }

    /// Keeps a notification, unless the budget is used up.
    pub fn add(&mut self, event: EventNotification) {
        let size = size(&event);
        match self.by_id.entry(event.id) {
            Entry::Occupied(mut known) => known.get_mut().is_disputed |= known.get().event != event,
            Entry::Vacant(slot) => {
                if self.budgets.pending.try_take(size) {
                    slot.insert(PendingNotification { event, is_disputed: false, last_read_before: self.last_begun });
                }
            }
        }
    }

    /// Removes the notification of an entry, and returns it unless it is disputed.
    pub fn take(&mut self, id: StreamId) -> Option<EventNotification> {
        let pending = self.by_id.remove(&id)?;
        self.budgets.pending.release(size(&pending.event));
        (!pending.is_disputed).then_some(pending.event)
    }

    pub fn range(&self, ids: RangeInclusive<StreamId>) -> impl Iterator<Item = &PendingNotification> {
        self.by_id.range(ids).map(|(_, pending)| pending)
    }

    /// Removes the notifications for which this is false.
    pub fn retain(&mut self, mut keep: impl FnMut(StreamId, bool) -> bool) {
        let last_completed = self.last_completed;
        self.by_id.retain(|id, pending| {
            let keep = keep(*id, pending.last_read_before < last_completed);
            if !keep {
                self.budgets.pending.release(size(&pending.event));
            }
            keep
        });
    }
}

impl Drop for PendingNotifications {
    fn drop(&mut self) {
        self.retain(|_, _| false);
    }
}

fn size(event: &EventNotification) -> usize {
    PENDING_OVERHEAD_BYTES + event.data.len() + event.event.len()
}
