//! The large frames that streams are sending. A stream does not copy them, so a client that stops reading would keep a whole event in
//! memory after all buffers have evicted it. There is one limit for all streams; the stream that has held its frame longest gives way.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// A frame is sent in copies of this size, so that the buffers of connections do not refer to the frame.
const PIECE_BYTES: usize = 16 << 10;
/// References to frames that were sent are removed when the list is full and at least this long.
const MIN_PURGED_SLOTS: usize = 64;

/// The limit on the frames of all streams. A frame that several streams send counts once.
pub struct LargeFrames {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: usize,
    /// By the address of a frame: the number of streams that hold it.
    holders: HashMap<usize, usize>,
    /// The frames that streams hold, oldest first.
    slots: VecDeque<Weak<Slot>>,
}

/// A frame until it is sent; `None` once it was reclaimed.
type Slot = Mutex<Option<Bytes>>;

/// The part of a frame that a stream has not sent yet.
pub struct HeldFrame {
    frames: Arc<LargeFrames>,
    slot: Arc<Slot>,
    sent: usize,
}

/// The frame was reclaimed: the stream has to end within it.
#[derive(Debug, PartialEq, Eq)]
pub struct Reclaimed;

impl LargeFrames {
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default() }
    }

    /// Holds a frame for a stream. If all held frames exceed the limit, those that are held longest are reclaimed, but not this one.
    pub fn hold(self: &Arc<Self>, frame: Bytes) -> HeldFrame {
        let slot = Arc::new(Mutex::new(Some(frame.clone())));
        let mut state = self.state.lock();
        let holders = state.holders.entry(address(&frame)).or_default();
        *holders += 1;
        if *holders == 1 {
            state.total += frame.len();
        }
        while state.total > self.limit
            && let Some(oldest) = state.slots.pop_front()
        {
            if let Some(reclaimed) = oldest.upgrade().and_then(|slot| slot.lock().take()) {
                state.release(&reclaimed);
            }
        }
        if state.slots.len() >= MIN_PURGED_SLOTS && state.slots.len() == state.slots.capacity() {
            state.slots.retain(|slot| slot.strong_count() > 0);
        }
        state.slots.push_back(Arc::downgrade(&slot));
        drop(state);
        HeldFrame { frames: Arc::clone(self), slot, sent: 0 }
    }
}

impl State {
    fn release(&mut self, frame: &Bytes) {
        let address = address(frame);
        let Some(holders) = self.holders.get_mut(&address) else { return };
        *holders -= 1;
        if *holders == 0 {
            self.holders.remove(&address);
            self.total -= frame.len();
        }
    }
}

/// Identifies a frame as long as a stream holds it.
fn address(frame: &Bytes) -> usize {
    frame.as_ptr() as usize
}

impl HeldFrame {
    /// The next piece, and whether it is the last one.
    pub fn next_piece(&mut self) -> Result<(Bytes, bool), Reclaimed> {
        let slot = self.slot.lock();
        let rest = &slot.as_ref().ok_or(Reclaimed)?[self.sent..];
        let piece = &rest[..rest.len().min(PIECE_BYTES)];
        self.sent += piece.len();
        Ok((Bytes::copy_from_slice(piece), piece.len() == rest.len()))
    }
}

impl Drop for HeldFrame {
    fn drop(&mut self) {
        // In a statement of its own: the lock of a slot is released before that of all frames is taken.
        let frame = self.slot.lock().take();
        if let Some(frame) = frame {
            self.frames.state.lock().release(&frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(size: usize) -> Bytes {
        vec![b'x'; size].into()
    }

    fn total(frames: &LargeFrames) -> usize {
        frames.state.lock().total
    }

    #[test]
    fn frame_is_sent_in_copies_and_then_released() {
        let frames = Arc::new(LargeFrames::new(1 << 20));
        let whole = frame(2 * PIECE_BYTES + 1);
        let mut held = frames.hold(whole.clone());
        let mut piece = || held.next_piece().expect("it is not reclaimed");
        let (first, is_last) = piece();
        assert_ne!(first.as_ptr(), whole.as_ptr(), "a copy");
        assert_eq!((first.len(), is_last, piece().1), (PIECE_BYTES, false, false));
        assert_eq!((piece(), total(&frames)), ((frame(1), true), whole.len()));
        drop(held);
        assert_eq!((total(&frames), frames.state.lock().holders.len()), (0, 0));
    }

    #[test]
    fn frame_that_is_held_longest_is_reclaimed() {
        let frames = Arc::new(LargeFrames::new(250));
        let shared = frame(100);
        // Two streams of one channel hold one frame.
        let (mut first, mut second) = (frames.hold(shared.clone()), frames.hold(shared));
        let mut third = frames.hold(frame(100));
        assert_eq!((total(&frames), first.next_piece().is_ok()), (200, true));
        let mut large = frames.hold(frame(240));
        assert_eq!(
            [first.next_piece(), second.next_piece(), third.next_piece()],
            [Err(Reclaimed), Err(Reclaimed), Err(Reclaimed)]
        );
        assert_eq!((total(&frames), large.next_piece().is_ok()), (240, true));
        let mut larger = frames.hold(frame(1_000));
        assert!(large.next_piece().is_err() && larger.next_piece().is_ok(), "the newest is never reclaimed");
        drop((first, second, third, large, larger));
        assert_eq!(total(&frames), 0);
    }
}
