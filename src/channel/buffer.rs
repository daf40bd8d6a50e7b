//! The event buffer of a channel: its recent events, encoded once and shared by all its streams.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::channel::budget::ByteBudget;
use crate::channel::frame::SequencedFrame;
use crate::event::{ContentHash, StreamId};
use crate::util::allocation::allocation;

/// The cost of a buffered frame in addition to its bytes: the struct and the allocation.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// The memory limit of all event buffers of a node. Each channel that had an event may use an equal share, so that a busy channel
/// cannot evict the events of others, and many channels without events leave them their memory.
#[derive(Debug)]
pub struct BufferBudget {
    bytes: ByteBudget,
    /// Buffers that had an event.
    buffers: AtomicUsize,
}

impl BufferBudget {
    pub fn new(limit_bytes: usize) -> Self {
        Self { bytes: ByteBudget::new(limit_bytes), buffers: AtomicUsize::new(0) }
    }

    pub fn used_bytes(&self) -> usize {
        self.bytes.used()
    }

    /// Whether more than half is used: buffers over their share have to be trimmed.
    pub fn is_scarce(&self) -> bool {
        self.used_bytes() > self.bytes.limit() / 2
    }
}

/// The frames after `floor`, oldest first. Each frame has an index that never changes, also when older frames are evicted:
/// cursors keep indexes, so that a pull needs no search.
#[derive(Debug)]
pub struct EventBuffer {
    budget: Arc<BufferBudget>,
    frames: VecDeque<SequencedFrame>,
    bytes: usize,
    /// The index of the oldest frame.
    first_index: u64,
    /// The buffer has every frame after this position.
    floor: StreamId,
    /// It had an event, so it counts in the budget.
    is_counted: bool,
}

impl EventBuffer {
    pub fn new(budget: Arc<BufferBudget>) -> Self {
        Self { budget, frames: VecDeque::new(), bytes: 0, first_index: 0, floor: StreamId::ZERO, is_counted: false }
    }

    pub fn floor(&self) -> StreamId {
        self.floor
    }

    /// Whether this is the position of a frame, or the floor.
    pub fn has_position(&self, position: StreamId) -> bool {
        position == self.floor || self.frames.binary_search_by_key(&position, |frame| frame.position).is_ok()
    }

    /// The index of the oldest frame.
    pub fn first_index(&self) -> u64 {
        self.first_index
    }

    /// The content of the entry at this position, if it is buffered.
    pub fn content(&self, position: StreamId) -> Option<ContentHash> {
        let index = self.frames.binary_search_by_key(&position, |frame| frame.position).ok()?;
        self.frames.get(index)?.content
    }

    /// The index that the next frame will get.
    pub fn end_index(&self) -> u64 {
        self.first_index + self.frames.len() as u64
    }

    /// The index of the first frame after a position; `None` if frames between were evicted.
    pub fn index_after(&self, position: StreamId) -> Option<u64> {
        let offset = || self.frames.partition_point(|frame| frame.position <= position) as u64;
        (position >= self.floor).then(|| self.first_index + offset())
    }

    /// The frames from an index on; `None` if that frame was evicted.
    pub fn frames_from(&self, index: u64) -> Option<impl Iterator<Item = &SequencedFrame>> {
        let offset = usize::try_from(index.checked_sub(self.first_index)?).ok()?;
        Some(self.frames.range(offset.min(self.frames.len())..))
    }

    /// Adds a frame and evicts until the limits hold. A frame over the limit is evicted at once; streams then read it from
    /// the store.
    pub fn push(&mut self, frame: SequencedFrame) {
        let size = cost(&frame.bytes);
        self.bytes += size;
        self.budget.bytes.take(size);
        self.frames.push_back(frame);
        if !std::mem::replace(&mut self.is_counted, true) {
            self.budget.buffers.fetch_add(1, Ordering::Relaxed);
        }
        self.trim();
    }

    /// Evicts until the limits hold. The share of a buffer shrinks when channels are added, so this also runs periodically.
    pub fn trim(&mut self) {
        let share = self.budget.bytes.limit() / self.budget.buffers.load(Ordering::Relaxed).max(1);
        while !self.frames.is_empty() && (self.bytes > share || self.budget.bytes.is_exceeded()) {
            self.pop();
        }
    }

    /// Evicts everything; the buffer starts again after this position.
    pub fn restart(&mut self, floor: StreamId) {
        while !self.frames.is_empty() {
            self.pop();
        }
        self.floor = floor;
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            let size = cost(&frame.bytes);
            self.bytes -= size;
            self.budget.bytes.release(size);
            self.first_index += 1;
            self.floor = frame.position;
        }
    }
}

fn cost(frame: &Bytes) -> usize {
    allocation(frame.len()) + FRAME_OVERHEAD_BYTES
}

impl Drop for EventBuffer {
    fn drop(&mut self) {
        self.budget.bytes.release(self.bytes);
        self.budget.buffers.fetch_sub(self.is_counted.into(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: u64, size: usize) -> SequencedFrame {
        SequencedFrame { position: StreamId::new(n, 0), content: None, bytes: vec![b'x'; size].into(), gap: None }
    }

    #[test]
    fn index_after_position_is_that_of_the_next_frame() {
        let mut buffer = EventBuffer::new(Arc::new(BufferBudget::new(10_000)));
        buffer.restart(StreamId::new(5, 0));
        (6..9).for_each(|n| buffer.push(frame(n, 10)));
        assert_eq!(buffer.index_after(StreamId::new(4, 0)), None);
        assert_eq!(buffer.index_after(StreamId::new(5, 0)), Some(0));
        assert_eq!(buffer.index_after(StreamId::new(7, 0)), Some(2));
        assert_eq!(buffer.index_after(StreamId::new(99, 0)), Some(3));
        assert_eq!(buffer.frames_from(1).map(Iterator::count), Some(2));
        assert_eq!(buffer.frames_from(3).map(Iterator::count), Some(0));
    }

    #[test]
    fn buffers_are_bounded_by_their_share_and_by_the_total() {
        let budget = Arc::new(BufferBudget::new(4 * (allocation(100) + FRAME_OVERHEAD_BYTES)));
        let mut a = EventBuffer::new(Arc::clone(&budget));
        (1..=6).for_each(|n| a.push(frame(n, 100)));
        assert_eq!((a.frames.len(), a.floor(), a.end_index()), (4, StreamId::new(2, 0), 6));
        assert!(a.frames_from(1).is_none() && a.frames_from(2).is_some());
        let mut b = EventBuffer::new(Arc::clone(&budget));
        a.trim();
        assert_eq!(a.frames.len(), 4, "a buffer without events leaves its share to others");
        b.push(frame(1, 5_000));
        assert_eq!(
            (b.frames.len(), b.floor()),
            (0, StreamId::new(1, 0)),
            "too large for the buffer, not for the store"
        );
        a.trim();
        assert_eq!(a.frames.len(), 2);
        drop((a, b));
        assert_eq!((budget.used_bytes(), budget.buffers.load(Ordering::Relaxed)), (0, 0));
    }
}
