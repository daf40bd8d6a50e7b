//! The allocator of a component: of Rust, and the C functions that QuickJS calls.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size};
use std::cell::UnsafeCell;
use std::ptr;

use crate::heap::Heap;

const WASM_PAGE: usize = 64 << 10;
/// Memory grows by at least this much, because each growth is a call of the system.
const GROWTH: usize = 4 * WASM_PAGE;

struct Memory(UnsafeCell<Option<Heap>>);

// SAFETY: a component has one thread.
unsafe impl Sync for Memory {}

#[global_allocator]
static MEMORY: Memory = Memory(UnsafeCell::new(None));

unsafe extern "C" {
    /// The end of the static data, by the linker.
    static __heap_base: u8;
}

impl Memory {
    fn with<T>(&self, work: impl FnOnce(&mut Heap) -> T) -> T {
        // SAFETY: there is one thread, and a heap does not call back.
        let heap = unsafe { &mut *self.0.get() };
        work(heap.get_or_insert_with(|| Heap::new(&raw const __heap_base as usize, grow)))
    }
}

fn grow(end: usize) -> Option<usize> {
    let size = memory_size(0) * WASM_PAGE;
    if end <= size {
        return Some(size);
    }
    let (missing, usual) = ((end - size).div_ceil(WASM_PAGE), GROWTH / WASM_PAGE);
    let grown = |pages: usize| (memory_grow(0, pages) != usize::MAX).then_some(size + pages * WASM_PAGE);
    // Near the limit of the instance, the requested size may still fit.
    grown(missing.max(usual)).or_else(|| grown(missing))
}

/// Ends the clearing of freed memory, which is for snapshots.
pub fn stop_clearing() {
    MEMORY.with(Heap::stop_clearing);
}

/// Gives free memory at the end back, and returns the end of the heap.
pub fn trim() -> usize {
    MEMORY.with(Heap::trim)
}

/// How many arenas QuickJS allocated.
pub fn arenas() -> usize {
    MEMORY.with(|heap| heap.arenas())
}

// SAFETY: `Heap` keeps the contract of an allocator.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|heap| unsafe {
            match layout.align() {
                0..=8 => heap.alloc(layout.size()),
                align => heap.alloc_aligned(layout.size(), align),
            }
        })
    }

    unsafe fn dealloc(&self, payload: *mut u8, _: Layout) {
        self.with(|heap| unsafe { heap.free(payload) });
    }

    unsafe fn realloc(&self, payload: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe {
            if layout.align() <= 8 {
                return realloc(payload, size);
            }
            let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(payload, moved, layout.size().min(size));
                self.dealloc(payload, layout);
            }
            moved
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut u8 {
    MEMORY.with(|heap| unsafe { heap.alloc(size) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(payload: *mut u8) {
    if !payload.is_null() {
        MEMORY.with(|heap| unsafe { heap.free(payload) });
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut u8 {
    let Some(total) = count.checked_mul(size) else { return ptr::null_mut() };
    unsafe {
        let payload = malloc(total);
        if !payload.is_null() {
            ptr::write_bytes(payload, 0, total);
        }
        payload
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(payload: *mut u8, size: usize) -> *mut u8 {
    unsafe {
        if payload.is_null() {
            return malloc(size);
        }
        let capacity = Heap::capacity(payload);
        if size <= capacity {
            return payload;
        }
        let moved = malloc(size);
        if !moved.is_null() {
            ptr::copy_nonoverlapping(payload, moved, capacity);
            free(payload);
        }
        moved
    }
}
