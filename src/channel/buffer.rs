//! A channel's recent events, encoded once and shared by all its streams.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::channel::sequencer::SequencedFrame;
use crate::event::StreamId;

/// What an item costs beside its bytes.
const OVERHEAD: usize = 64;

/// The bound on the logs of a node. Each channel may hold an equal share, so that a loud one cannot push the others out.
#[derive(Debug)]
pub struct BufferBudget {
    limit: usize,
    used: AtomicUsize,
    logs: AtomicUsize,
}

impl BufferBudget {
    /// So many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), logs: AtomicUsize::new(0) }
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn share(&self) -> usize {
        self.limit / self.logs.load(Ordering::Relaxed).max(1)
    }
}

/// The items after `floor`, oldest first, each with a number that never changes.
#[derive(Debug)]
pub struct EventBuffer {
    budget: Arc<BufferBudget>,
    items: VecDeque<SequencedFrame>,
    bytes: usize,
    /// The number of the first item.
    base: u64,
    /// Everything after this position is here.
    floor: StreamId,
}

impl EventBuffer {
    /// An empty log.
    #[must_use]
    pub fn new(budget: Arc<BufferBudget>) -> Self {
        budget.logs.fetch_add(1, Ordering::Relaxed);
        Self { budget, items: VecDeque::new(), bytes: 0, base: 0, floor: StreamId::ZERO }
    }

    /// Everything after this position is here.
    #[must_use]
    pub fn floor(&self) -> StreamId {
        self.floor
    }

    /// The number behind the last item.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.base + self.items.len() as u64
    }

    /// The number of the first item behind a position; `None` if that is no longer here.
    #[must_use]
    pub fn after(&self, at: StreamId) -> Option<u64> {
        (at >= self.floor).then(|| self.base + self.items.partition_point(|item| item.at <= at) as u64)
    }

    /// The items from a number on; `None` if it is no longer here.
    pub fn from(&self, number: u64) -> Option<impl Iterator<Item = &SequencedFrame>> {
        let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
        Some(self.items.range(index.min(self.items.len())..))
    }

    /// Adds an item and keeps the bounds. The newest may be the one to go: whoever needs it reads it from the store.
    pub fn push(&mut self, item: SequencedFrame) {
        let size = item.frame.len() + OVERHEAD;
        self.bytes += size;
        self.budget.used.fetch_add(size, Ordering::Relaxed);
        self.items.push_back(item);
        self.trim();
    }

    /// Keeps the bounds, which shrink as channels come.
    pub fn trim(&mut self) {
        while !self.items.is_empty() && (self.bytes > self.budget.share() || self.budget.used() > self.budget.limit) {
            self.pop();
        }
    }

    /// Forgets everything; the log begins anew behind this position.
    pub fn restart(&mut self, floor: StreamId) {
        while !self.items.is_empty() {
            self.pop();
        }
        self.floor = floor;
    }

    fn pop(&mut self) {
        if let Some(item) = self.items.pop_front() {
            let size = item.frame.len() + OVERHEAD;
            self.bytes -= size;
            self.budget.used.fetch_sub(size, Ordering::Relaxed);
            self.base += 1;
            self.floor = item.at;
        }
    }
}

impl Drop for EventBuffer {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.logs.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(n: u64, size: usize) -> SequencedFrame {
        SequencedFrame { at: StreamId::new(n, 0), frame: vec![b'x'; size].into(), gap: None }
    }

    #[test]
    fn numbers_and_positions() {
        let mut log = EventBuffer::new(Arc::new(BufferBudget::new(10_000)));
        log.restart(StreamId::new(5, 0));
        (6..9).for_each(|n| log.push(item(n, 10)));
        assert_eq!(log.after(StreamId::new(4, 0)), None);
        assert_eq!(log.after(StreamId::new(5, 0)), Some(0));
        assert_eq!(log.after(StreamId::new(7, 0)), Some(2));
        assert_eq!(log.after(StreamId::new(99, 0)), Some(3));
        assert_eq!(log.from(1).map(Iterator::count), Some(2));
        assert_eq!(log.from(3).map(Iterator::count), Some(0));
    }

    #[test]
    fn bounded_by_share_and_by_all() {
        let budget = Arc::new(BufferBudget::new(4 * (100 + OVERHEAD)));
        let mut a = EventBuffer::new(Arc::clone(&budget));
        (1..=6).for_each(|n| a.push(item(n, 100)));
        assert_eq!((a.items.len(), a.floor(), a.end()), (4, StreamId::new(2, 0), 6));
        assert!(a.from(1).is_none() && a.from(2).is_some());
        let mut b = EventBuffer::new(Arc::clone(&budget));
        a.trim();
        assert_eq!(a.items.len(), 2);
        b.push(item(1, 5_000));
        assert_eq!((b.items.len(), b.floor()), (0, StreamId::new(1, 0)), "too large for the log, not for the store");
        drop((a, b));
        assert_eq!((budget.used(), budget.logs.load(Ordering::Relaxed)), (0, 0));
    }
}
