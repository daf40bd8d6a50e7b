//! The allocator of a policy: an arena that frees nothing, since an instance lives for one decision.
//!
//! The arena starts inside the initial memory of the instance. Growing the memory, and shrinking it again for the next instance, costs
//! the gateway more than the rest of a small decision.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::memory_grow;
use std::cell::{Cell, UnsafeCell};

/// Enough for nearly every decision: a request of a few KiB, a session, an answer.
const INITIAL_BYTES: usize = 64 << 10;
const PAGE_BYTES: usize = 64 << 10;

#[repr(align(16))]
struct InitialBlock(UnsafeCell<[u8; INITIAL_BYTES]>);

struct Arena {
    initial: InitialBlock,
    /// Address of the next allocation; 0 before the first.
    next: Cell<usize>,
    /// Address of the end of the arena.
    end: Cell<usize>,
}

// SAFETY: a policy has one thread.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena =
    Arena { initial: InitialBlock(UnsafeCell::new([0; INITIAL_BYTES])), next: Cell::new(0), end: Cell::new(0) };

impl Arena {
    /// Start and end of the next allocation.
    fn bounds(&self, layout: Layout) -> Option<(usize, usize)> {
        let start = self.next.get().checked_next_multiple_of(layout.align())?;
        Some((start, start.checked_add(layout.size())?))
    }

    /// Extends the arena for an allocation that does not fit.
    fn grow(&self, layout: Layout) -> Option<()> {
        if self.end.get() == 0 {
            let start = self.initial.0.get() as usize;
            self.next.set(start);
            self.end.set(start + INITIAL_BYTES);
            return Some(());
        }
        let pages = layout.size().checked_add(layout.align())?.div_ceil(PAGE_BYTES);
        let before = memory_grow(0, pages);
        if before == usize::MAX {
            return None;
        }
        // The rest of the previous block is lost, unless the new block is adjacent.
        if before * PAGE_BYTES != self.end.get() {
            self.next.set(before * PAGE_BYTES);
        }
        self.end.set((before + pages) * PAGE_BYTES);
        Some(())
    }
}

// SAFETY: the memory between `next` and `end` is unused, and every allocation is taken from there, aligned and in one piece.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        loop {
            let Some((start, end)) = self.bounds(layout) else { return std::ptr::null_mut() };
            if start != 0 && end <= self.end.get() {
                self.next.set(end);
                return start as *mut u8;
            }
            if self.grow(layout).is_none() {
                return std::ptr::null_mut();
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // Only the last allocation can be freed.
        if pointer as usize + layout.size() == self.next.get() {
            self.next.set(pointer as usize);
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let start = pointer as usize;
        let is_last = start + layout.size() == self.next.get();
        if is_last && start.checked_add(size).is_some_and(|end| end <= self.end.get()) {
            self.next.set(start + size);
            return pointer;
        }
        if size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller guarantees that the size is valid for this alignment.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both allocations have at least `layout.size()` bytes, and they do not overlap because the old one is not freed.
            unsafe { std::ptr::copy_nonoverlapping(pointer, new, layout.size()) };
        }
        new
    }
}
