//! The allocator of a component: of Rust, and the C functions that QuickJS calls.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::heap::Heap;

const WASM_PAGE: usize = 64 << 10;
/// Bytes of a page of the host.
const PAGE: usize = 4096;
/// Memory grows by at least this much, because each growth is a call of the system.
const GROWTH: usize = 4 * WASM_PAGE;

/// Where the memory starts that a build needs for a while: the texts of the app, and what their compilation allocates. An instance of the
/// policy does not have it, so its own memory has no holes.
const TEMPORARY: usize = 256 << 20;

struct Memory(UnsafeCell<Heaps>);

struct Heaps {
    heap: Option<Heap>,
    temporary: Heap,
    /// Whether new blocks are temporary.
    allocates_temporary: bool,
    /// Temporary blocks that were not freed.
    temporary_blocks: usize,
}

/// What the memory is used for.
static PHASE: AtomicU8 = AtomicU8::new(BUILD);
/// A build, before its snapshot.
const BUILD: u8 = 0;
/// An instance of a snapshot that was not called yet.
const NEW: u8 = 1;
/// An instance that was called.
const STARTED: u8 = 2;

fn is_build() -> bool {
    PHASE.load(Ordering::Relaxed) == BUILD
}

/// Bytes of the stack that the first parameter of an instance may use, if its elements have 8 bytes: that of `restore`, which is called with nearly
/// the whole stack free. In the heap it would overwrite itself.
pub const MAX_PARAMETER: usize = 320 << 10;
/// The address of this parameter. Null is none.
const PARAMETER: usize = 1024;

// SAFETY: a component has one thread.
unsafe impl Sync for Memory {}

#[global_allocator]
static MEMORY: Memory = Memory(UnsafeCell::new(Heaps {
    heap: None,
    temporary: Heap::new(TEMPORARY, grow),
    allocates_temporary: false,
    temporary_blocks: 0,
}));

unsafe extern "C" {
    /// The end of the static data, by the linker.
    static __heap_base: u8;
    /// The start of the static data, after the stack.
    static __global_base: u8;
}

impl Memory {
    fn with<T>(&self, work: impl FnOnce(&mut Heaps) -> T) -> T {
        // SAFETY: there is one thread, and a heap does not call back.
        work(unsafe { &mut *self.0.get() })
    }
}

impl Heaps {
    fn heap(&mut self) -> &mut Heap {
        self.heap.get_or_insert_with(|| Heap::new(&raw const __heap_base as usize, grow_permanent))
    }

    fn alloc(&mut self, size: usize, align: usize) -> *mut u8 {
        let allocate = |heap: &mut Heap| unsafe {
            match align {
                0..=8 => heap.alloc(size),
                align => heap.alloc_aligned(size, align),
            }
        };
        if !self.allocates_temporary {
            return allocate(self.heap());
        }
        self.temporary_blocks += 1;
        allocate(&mut self.temporary)
    }

    /// A block in the heap of another one, which grows.
    fn alloc_next_to(&mut self, payload: *mut u8, size: usize) -> *mut u8 {
        let is_temporary = self.is_temporary(payload);
        let allocates_temporary = std::mem::replace(&mut self.allocates_temporary, is_temporary);
        let moved = self.alloc(size, 0);
        self.allocates_temporary = allocates_temporary;
        moved
    }

    unsafe fn free(&mut self, payload: *mut u8) {
        // A parameter in the stack, or a result that is not of the heap.
        let address = payload as usize;
        if address < after_stack() || address >= END.load(Ordering::Relaxed) {
            return;
        }
        if self.is_temporary(payload) {
            self.temporary_blocks -= 1;
            unsafe { self.temporary.free(payload) };
        } else {
            unsafe { self.heap().free(payload) };
        }
    }

    fn is_temporary(&self, payload: *mut u8) -> bool {
        is_build() && payload as usize >= TEMPORARY
    }
}

/// Where the heap ends at the latest. Later blocks are not the heap's.
static END: AtomicUsize = AtomicUsize::new(usize::MAX);

/// During a build the memory of an instance ends before the temporary memory.
fn grow_permanent(end: usize) -> Option<usize> {
    match END.load(Ordering::Relaxed) {
        usize::MAX if !is_build() => grow(end),
        usize::MAX if end > TEMPORARY => None,
        usize::MAX => grow(end).map(|size| size.min(TEMPORARY)),
        last => (end <= last).then_some(last),
    }
}

/// Bytes of the memory.
fn size() -> usize {
    memory_size(0) * WASM_PAGE
}

/// Makes memory up to `end` exist, and returns the end of the memory.
pub fn grow(end: usize) -> Option<usize> {
    let size = size();
    if end <= size {
        return Some(size);
    }
    let (missing, usual) = ((end - size).div_ceil(WASM_PAGE), GROWTH / WASM_PAGE);
    let grown = |pages: usize| (memory_grow(0, pages) != usize::MAX).then_some(size + pages * WASM_PAGE);
    // Near the limit of the instance, the requested size may still fit.
    grown(missing.max(usual)).or_else(|| grown(missing))
}

/// The memory of an instance that was not called yet. In a build, which has more, it is that of the snapshot.
pub fn size_at_start() -> usize {
    match size() {
        size if size > TEMPORARY => top().next_multiple_of(WASM_PAGE),
        size => size,
    }
}

/// Sets the memory after `end`, which exists, aside for something else.
pub fn set_aside(end: usize) {
    END.store(end, Ordering::Relaxed);
}

/// The end of the stack.
pub fn after_stack() -> usize {
    &raw const __global_base as usize
}

/// The end of the memory that the heap used.
pub fn top() -> usize {
    MEMORY.with(|heaps| heaps.heap().top())
}

/// Calls `work`, which leaves nothing that it allocated but its result. That has to be freed before the end of the build.
pub fn temporarily<T>(work: impl FnOnce() -> T) -> T {
    let outer = MEMORY.with(|heaps| std::mem::replace(&mut heaps.allocates_temporary, is_build()));
    let result = work();
    MEMORY.with(|heaps| heaps.allocates_temporary = outer);
    result
}

/// Ranges of pages that an instance writes to at its start. wasmtime keeps 32 ranges mapped, and an instance has some of its own.
pub const MAX_RANGES: usize = 18;

/// Ranges of pages: the first page and the end of each. The driver of a build writes those that a decision writes to.
pub type Ranges = [[u32; 2]; MAX_RANGES];

struct WrittenPages(UnsafeCell<Ranges>);

// SAFETY: a component has one thread.
unsafe impl Sync for WrittenPages {}

static WRITTEN_PAGES: WrittenPages = WrittenPages(UnsafeCell::new([[0; 2]; MAX_RANGES]));

/// Where the driver writes the ranges.
pub fn written_pages() -> *const Ranges {
    WRITTEN_PAGES.0.get()
}

/// Ends the build. Its memory is that of a new instance then.
pub fn end_build() {
    PHASE.store(NEW, Ordering::Relaxed);
}

/// Starts an instance: freed memory is no longer cleared.
///
/// The pages that a decision writes to are written to first, with those between them. The gateway keeps pages that an instance wrote to for the next
/// one, if they form at most 32 ranges of addresses (a bound of wasmtime): then they cost a copy. Of more ranges, most would be unmapped and cost a fault
/// for each page in each decision.
pub fn start_decisions() {
    if PHASE.swap(STARTED, Ordering::Relaxed) == STARTED {
        return;
    }
    MEMORY.with(|heaps| heaps.heap().stop_clearing());
    // SAFETY: only the driver writes to it, in a snapshot.
    let ranges = unsafe { WRITTEN_PAGES.0.get().read_volatile() };
    for page in ranges.into_iter().flat_map(|[start, end]| start..end) {
        // SAFETY: the snapshot has this page, which keeps its contents.
        unsafe {
            let byte = (page as usize * PAGE) as *mut u8;
            byte.write_volatile(byte.read_volatile());
        }
    }
}

/// Blocks of temporary memory that are in use.
pub fn temporary_blocks() -> usize {
    MEMORY.with(|heaps| heaps.temporary_blocks)
}

/// Gives free memory at the end back, and returns the end of the heap.
pub fn trim() -> usize {
    MEMORY.with(|heaps| heaps.heap().trim())
}

/// How many arenas QuickJS allocated.
pub fn arenas() -> usize {
    MEMORY.with(|heaps| heaps.heap().arenas())
}

// SAFETY: `Heap` keeps the contract of an allocator.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if PHASE.load(Ordering::Relaxed) == NEW && layout.align() == 8 && layout.size() <= MAX_PARAMETER {
            return PARAMETER as *mut u8;
        }
        self.with(|heaps| heaps.alloc(layout.size(), layout.align()))
    }

    unsafe fn dealloc(&self, payload: *mut u8, _: Layout) {
        self.with(|heaps| unsafe { heaps.free(payload) });
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
    MEMORY.with(|heaps| heaps.alloc(size, 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(payload: *mut u8) {
    if !payload.is_null() {
        MEMORY.with(|heaps| unsafe { heaps.free(payload) });
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
        let moved = MEMORY.with(|heaps| heaps.alloc_next_to(payload, size));
        if !moved.is_null() {
            ptr::copy_nonoverlapping(payload, moved, capacity);
            free(payload);
        }
        moved
    }
}
