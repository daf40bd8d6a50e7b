//! The state of an instance after its preparation, as the changes of its memory, which other instances get.
//!
//! A state is the end of the memory that it needs, then changes: a word with the address and the number of words, and the words.

use std::ptr;

use crate::memory;

/// What a preparation may allocate. A larger one is not shared.
const MAX_GROWTH: usize = 8 << 20;
/// Bytes of a word. Between changes as far apart there is not another head.
const WORD: usize = 8;

/// Prepares this instance by `prepare`, and returns the changes. `None` if `prepare` returns false, or the changes are too large. The instance has no
/// use afterwards.
pub fn save(prepare: impl FnOnce() -> bool) -> Option<Vec<u64>> {
    let before = Copy::new()?;
    if prepare() { before.changes() } else { None }
}

/// Brings this instance into the state that another one saved. Does nothing if there is too little memory: then the instance prepares by itself.
/// The state is in the stack, because it replaces everything else.
pub fn restore(state: &[u64]) {
    let Some((top, mut changes)) = state.split_first() else { return };
    if memory::grow(*top as usize).is_none() {
        return;
    }
    while let Some((head, rest)) = changes.split_first() {
        let (address, length) = (*head as u32 as usize, (*head >> 32) as usize);
        let Some((words, rest)) = rest.split_at_checked(length) else { return };
        // SAFETY: the memory has this address in the instance that saved it, and no value of this function is there.
        unsafe { ptr::copy_nonoverlapping(words.as_ptr(), address as *mut u64, length) };
        changes = rest;
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
        let (start, end) = (memory::after_stack(), memory::size_at_start());
        let at = end + MAX_GROWTH;
        memory::set_aside(at);
        memory::grow(at + end - start)?;
        // SAFETY: both exist, and the heap does not use the second.
        unsafe { ptr::copy_nonoverlapping(start as *const u8, at as *mut u8, end - start) };
        Some(Self { start, end, at })
    }

    /// The state that the memory has now.
    fn changes(&self) -> Option<Vec<u64>> {
        // Without memory that only the preparation needed.
        let top = memory::trim();
        let mut state = State { start: self.at + self.end - self.start, words: 0 };
        state.push(top as u64)?;
        let mut at = self.start;
        while at < top {
            let first = at;
            while at < top && (self.is_changed(at) || (at > first && self.is_changed(at + WORD))) {
                at += WORD;
            }
            if at > first {
                state.push(first as u64 | ((((at - first) / WORD) as u64) << 32))?;
                for address in (first..at).step_by(WORD) {
                    // SAFETY: the memory up to the end of the copy exists.
                    state.push(unsafe { read(address) })?;
                }
            }
            at += WORD;
        }
        Some(state.into_vec())
    }

    fn is_changed(&self, at: usize) -> bool {
        // SAFETY: as in `changes`.
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
    words: usize,
}

impl State {
    fn push(&mut self, word: u64) -> Option<()> {
        let at = self.start + self.words * WORD;
        self.words += 1;
        if self.words * WORD > memory::MAX_PARAMETER {
            return None;
        }
        memory::grow(at + WORD)?;
        // SAFETY: the memory exists, and nothing else uses it.
        unsafe { (at as *mut u64).write(word) };
        Some(())
    }

    /// The words, which are not of the heap: to free them does nothing.
    fn into_vec(self) -> Vec<u64> {
        // SAFETY: the words were written, and nothing else uses them.
        unsafe { Vec::from_raw_parts(self.start as *mut u64, self.words, self.words) }
    }
}
