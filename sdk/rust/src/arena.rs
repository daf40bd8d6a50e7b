//! The allocator of a policy: an arena that is never swept, since an instance lives for one decision.
//!
//! It begins within the memory that an instance starts with. Growing a memory, and taking that back from the next instance, costs a
//! gateway more than the rest of a small decision does.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::memory_grow;
use std::cell::{Cell, UnsafeCell};

/// What nearly every decision does with: a request of some KiB, a session, an answer.
const ROOM: usize = 64 << 10;
const PAGE: usize = 64 << 10;

#[repr(align(16))]
struct Room(UnsafeCell<[u8; ROOM]>);

struct Arena {
    room: Room,
    /// Where the next allocation begins; 0 before the first.
    next: Cell<usize>,
    /// Where the arena ends as it is now.
    end: Cell<usize>,
}

// SAFETY: a policy has one thread.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena = Arena { room: Room(UnsafeCell::new([0; ROOM])), next: Cell::new(0), end: Cell::new(0) };

impl Arena {
    /// Where an allocation would begin, and end, if it came next.
    fn place(&self, layout: Layout) -> Option<(usize, usize)> {
        let start = self.next.get().checked_next_multiple_of(layout.align())?;
        Some((start, start.checked_add(layout.size())?))
    }

    /// Gets room for an allocation that does not fit.
    fn grow(&self, layout: Layout) -> Option<()> {
        if self.end.get() == 0 {
            let room = self.room.0.get() as usize;
            self.next.set(room);
            self.end.set(room + ROOM);
            return Some(());
        }
        let pages = layout.size().checked_add(layout.align())?.div_ceil(PAGE);
        let before = memory_grow(0, pages);
        if before == usize::MAX {
            return None;
        }
        // What is left of the room before is lost, unless the new one follows it.
        if before * PAGE != self.end.get() {
            self.next.set(before * PAGE);
        }
        self.end.set((before + pages) * PAGE);
        Some(())
    }
}

// SAFETY: what lies between `next` and `end` was given to nobody, and every allocation is taken from there, aligned and whole.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        loop {
            let Some((start, end)) = self.place(layout) else { return std::ptr::null_mut() };
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
        // Only the last allocation can be taken back.
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
        // SAFETY: the caller vouches for the size with this alignment.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: the old one has that many bytes, the new one more, and they do not overlap, for the old one is not given back.
            unsafe { std::ptr::copy_nonoverlapping(pointer, new, layout.size()) };
        }
        new
    }
}
