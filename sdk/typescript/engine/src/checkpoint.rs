//! The state of an instance after its preparation, as the changes of its memory, which other instances get.

use std::hint::black_box;
use std::ptr;

use crate::memory;

/// What a preparation may allocate. A larger one is not shared.
const MAX_GROWTH: usize = 8 << 20;
/// The longest state, as the interface says.
const MAX_STATE: usize = 1 << 20;
/// Bytes that are compared at once. Between changes as far apart there is not another head.
const WORD: usize = 8;
/// The address and the length of a change.
const HEAD: usize = 8;
/// What a second preparation may need in addition to the first, which starts with another free block.
const SLACK: usize = 8 << 10;

unsafe extern "C" {
    /// The end of the stack, by the linker: before the data and the heap.
    static __global_base: u8;
}

/// Prepares this instance by `prepare`, and returns the changes. `None` if `prepare` returns false, or the changes are too large. The instance has no
/// use afterwards.
///
/// [`restore`] finds the changes in a block of the heap that it restores, so the block has to be part of that state. Its length is known after a
/// first preparation, which is then undone.
pub fn save(prepare: impl Fn() -> bool) -> Option<Vec<u8>> {
    let before = Copy::new()?;
    if !prepare() {
        return None;
    }
    let length = before.changes()?.length + SLACK;
    before.undo();
    // The block that `restore` gets.
    let block: Vec<u8> = black_box(Vec::with_capacity(length));
    std::mem::forget(block);
    if !prepare() {
        return None;
    }
    let mut state = before.changes()?;
    let rest = length.checked_sub(state.length)?;
    state.push_zeros(rest)?;
    Some(state.into_vec())
}

/// Brings this instance into the state that another one saved.
pub fn restore(state: &[u8]) {
    let word = |at: usize| {
        state.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes) as usize
    };
    if memory::grow(word(0)).is_none() {
        return;
    }
    let mut at = 4;
    loop {
        let (address, length) = (word(at), word(at + 4));
        let Some(bytes) = state.get(at + HEAD..at + HEAD + length).filter(|bytes| !bytes.is_empty()) else { return };
        // SAFETY: the memory has this address in the instance that saved it, and no value of this function is there.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, length) };
        at += HEAD + length;
    }
}

/// The memory of an instance, except its stack, at the start.
struct Copy {
    /// Where the memory starts, and its size then.
    start: usize,
    end: usize,
    /// Where the copy is.
    at: usize,
}

impl Copy {
    fn new() -> Option<Self> {
        let (start, end) = (&raw const __global_base as usize, memory::size_at_start());
        let at = end + MAX_GROWTH;
        memory::set_aside(end, at);
        memory::grow(at + end - start)?;
        // SAFETY: both exist, and the heap does not use the second.
        unsafe { ptr::copy_nonoverlapping(start as *const u8, at as *mut u8, end - start) };
        Some(Self { start, end, at })
    }

    /// Makes the memory what it was.
    fn undo(&self) {
        let top = memory::top();
        // SAFETY: the copy has all values but those of the stack. After it was nothing.
        unsafe {
            ptr::copy_nonoverlapping(self.at as *const u8, self.start as *mut u8, self.end - self.start);
            ptr::write_bytes(self.end as *mut u8, 0, top.saturating_sub(self.end));
        }
    }

    /// The state: the end of the memory that it needs, then the changes, each with a head.
    fn changes(&self) -> Option<State> {
        let (top, end) = (memory::top(), memory::end());
        let mut state = State { start: self.at + self.end - self.start, length: 0 };
        state.push_word(end)?;
        let mut at = self.start;
        while at < top {
            let first = at;
            while at < top && (self.is_changed(at) || (at > first && self.is_changed(at + WORD))) {
                at += WORD;
            }
            if at > first {
                state.push_word(first)?;
                state.push_word(at - first)?;
                state.push(first as *const u8, at - first)?;
            }
            at += WORD;
        }
        Some(state)
    }

    fn is_changed(&self, at: usize) -> bool {
        // SAFETY: memory up to the end of the copy exists.
        unsafe {
            let before = if at < self.end { read(self.at + at - self.start) } else { 0 };
            read(at) != before
        }
    }
}

unsafe fn read(address: usize) -> u64 {
    unsafe { (address as *const u64).read() }
}

/// A state that is written, after the copy.
struct State {
    start: usize,
    length: usize,
}

impl State {
    /// Adds bytes from `source`.
    fn push(&mut self, source: *const u8, length: usize) -> Option<()> {
        let at = self.reserve(length)?;
        // SAFETY: the memory exists, and nothing else uses it.
        unsafe { ptr::copy_nonoverlapping(source, at, length) };
        Some(())
    }

    fn push_word(&mut self, word: usize) -> Option<()> {
        self.push(u32::try_from(word).ok()?.to_le_bytes().as_ptr(), 4)
    }

    fn push_zeros(&mut self, length: usize) -> Option<()> {
        let at = self.reserve(length)?;
        // SAFETY: as in `push`.
        unsafe { at.write_bytes(0, length) };
        Some(())
    }

    fn reserve(&mut self, length: usize) -> Option<*mut u8> {
        let at = self.start + self.length;
        self.length = self.length.checked_add(length).filter(|length| *length <= MAX_STATE)?;
        memory::grow(at + length)?;
        Some(at as *mut u8)
    }

    /// The bytes, which are not of the heap: to free them does nothing.
    fn into_vec(self) -> Vec<u8> {
        // SAFETY: the bytes were written, and nothing else uses them.
        unsafe { Vec::from_raw_parts(self.start as *mut u8, self.length, self.length) }
    }
}
