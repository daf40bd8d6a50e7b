//! The allocator of a component, for QuickJS and for Rust.
//!
//! What a decision costs is the number of pages that it touches, so blocks are packed, and nothing is written at their neighbours when one
//! is freed. Memory that is freed while a program is built is cleared: a snapshot does not contain zeros.

use std::ptr;

/// Bytes of a page, which the host copies when an instance first writes to it.
const PAGE: usize = 4096;
/// QuickJS keeps small objects in arenas of nearly this size. Each gets a page of its own.
const MIN_ARENA: usize = 3500;
/// The largest block with a list of its own size.
const MAX_SMALL: usize = 1024;
/// The largest block.
const MAX_LARGE: usize = 1 << 29;
/// Bytes that small blocks are cut from.
const CHUNK: usize = 16 << 10;
/// Bytes that pages are cut from; at least one, wherever it starts.
const RUN: usize = 16 * PAGE;
/// Classes of large blocks: four for each power of two.
const CLASSES: usize = 32 * 4;
/// Every block: its size, then its payload at a multiple of 8.
const HEADER: usize = 4;
/// A mark in the header of an aligned payload, whose other bits are the distance to the block's own payload.
const ALIGNED: u32 = 1;

/// A heap in linear memory.
pub struct Heap {
    /// The end of the used memory.
    top: usize,
    /// The end of the memory that exists.
    end: usize,
    /// The chunk that small blocks are cut from.
    chunk: (usize, usize),
    /// Free blocks by size in units of 8 bytes; each has the address of the next.
    small: [usize; MAX_SMALL / 8 + 1],
    /// Free blocks by the class of their size.
    large: [usize; CLASSES],
    pages: usize,
    /// Memory that pages are cut from.
    run: (usize, usize),
    /// Pages that were allocated.
    arenas: usize,
    /// Whether freed memory is cleared.
    clears: bool,
    /// Makes memory up to this address exist, and returns its end.
    grow: fn(usize) -> Option<usize>,
}

impl Heap {
    /// A heap that starts at `start` and gets its memory by `grow`.
    pub const fn new(start: usize, grow: fn(usize) -> Option<usize>) -> Self {
        let (small, large) = ([0; MAX_SMALL / 8 + 1], [0; CLASSES]);
        Self { top: start, end: 0, chunk: (0, 0), small, large, pages: 0, run: (0, 0), arenas: 0, clears: true, grow }
    }

    /// Gives free blocks at the end back, and returns the end.
    pub fn trim(&mut self) -> usize {
        // SAFETY: the lists have free blocks only.
        unsafe { while self.trim_block() {} }
        // The memory of an instance ends there, earlier than that of the build.
        self.end = 0;
        self.top
    }

    unsafe fn trim_block(&mut self) -> bool {
        unsafe {
            for class in 0..self.large.len() {
                let mut link: *mut usize = &mut self.large[class];
                while *link != 0 {
                    let found = *link;
                    if found - HEADER + size_of_block(found) == self.top {
                        *link = read(found);
                        write(found, 0);
                        set_size(found, 0);
                        self.top = found - HEADER;
                        return true;
                    }
                    link = found as *mut usize;
                }
            }
            false
        }
    }

    /// The end of the used memory.
    pub fn top(&self) -> usize {
        self.top
    }

    /// How many arenas were allocated.
    pub fn arenas(&self) -> usize {
        self.arenas
    }

    /// Ends the clearing of freed memory.
    pub fn stop_clearing(&mut self) {
        self.clears = false;
    }

    /// A payload of at least `size` bytes; null if there is no memory.
    ///
    /// # Safety
    /// The memory that `grow` reports belongs to this heap alone.
    pub unsafe fn alloc(&mut self, size: usize) -> *mut u8 {
        unsafe { self.try_alloc(size) }.map_or(ptr::null_mut(), |address| address as *mut u8)
    }

    unsafe fn try_alloc(&mut self, size: usize) -> Option<usize> {
        if (MIN_ARENA..=PAGE).contains(&size) {
            return unsafe { self.alloc_page() };
        }
        let total = block_size(size)?;
        if total <= MAX_SMALL {
            let list = self.small[total / 8];
            if list != 0 {
                self.small[total / 8] = unsafe { read(list) };
                return Some(list);
            }
            return unsafe { self.cut_small(total) };
        }
        // Classes of larger blocks do not exist.
        if total > MAX_LARGE {
            return None;
        }
        let total = class_size(class(total - 1) + 1);
        let list = self.large[class(total)];
        if list != 0 {
            self.large[class(total)] = unsafe { read(list) };
            return Some(list);
        }
        // Not from a block of nearly the size, because such splits leave ever smaller blocks.
        if let Some(found) = unsafe { self.find_large(total.checked_mul(4)?) } {
            unsafe { self.split(found, total) };
            return Some(found);
        }
        unsafe { self.extend(total) }
    }

    /// Frees a payload.
    ///
    /// # Safety
    /// It comes from this heap and is not used afterwards.
    pub unsafe fn free(&mut self, payload: *mut u8) {
        unsafe {
            let payload = payload as usize;
            if payload.is_multiple_of(PAGE) {
                self.clear(payload, PAGE);
                write(payload, self.pages);
                self.pages = payload;
                return;
            }
            match size_of_block(payload) {
                header if header & ALIGNED as usize != 0 => {
                    self.free((payload - (header - ALIGNED as usize)) as *mut u8)
                }
                total => self.release(payload, total),
            }
        }
    }

    /// The bytes that a payload has room for.
    ///
    /// # Safety
    /// It comes from this heap.
    pub unsafe fn capacity(payload: *mut u8) -> usize {
        let payload = payload as usize;
        if payload.is_multiple_of(PAGE) {
            return PAGE;
        }
        let size = unsafe { size_of_block(payload) };
        match size & ALIGNED as usize {
            0 => size - HEADER,
            // The payload is within its block: not more than Rust asked for, which it knows.
            _ => 0,
        }
    }

    /// A payload at a multiple of `align`.
    ///
    /// # Safety
    /// As `alloc`; `align` is a power of two.
    pub unsafe fn alloc_aligned(&mut self, size: usize, align: usize) -> *mut u8 {
        unsafe {
            let payload = self.alloc(size + 2 * align + 8);
            if payload.is_null() {
                return payload;
            }
            let mut aligned = (payload as usize + 8).next_multiple_of(align);
            if aligned.is_multiple_of(PAGE) {
                // There a payload would be taken for a page, unless it is one.
                if align >= PAGE {
                    return ptr::null_mut();
                }
                aligned += align;
            }
            ptr::write((aligned - HEADER) as *mut u32, (aligned - payload as usize) as u32 | ALIGNED);
            aligned as *mut u8
        }
    }

    /// Takes a free block of at least this size.
    unsafe fn find_large(&mut self, total: usize) -> Option<usize> {
        let first = class(total - 1) + 1;
        let list = self.large.get_mut(first..)?.iter_mut().find(|list| **list != 0)?;
        let found = *list;
        *list = unsafe { read(found) };
        Some(found)
    }

    unsafe fn alloc_page(&mut self) -> Option<usize> {
        self.arenas += 1;
        if self.pages != 0 {
            let page = self.pages;
            self.pages = unsafe { read(page) };
            return Some(page);
        }
        if self.run.1 - self.run.0 < PAGE {
            let (start, end) = unsafe { self.region(RUN)? };
            let aligned = start.next_multiple_of(PAGE);
            // The rest before the pages is cut into small blocks, if it is larger than the rest of their chunk.
            if aligned - start > self.chunk.1 - self.chunk.0 {
                self.chunk = (start, aligned);
            }
            self.run = (aligned, end & !(PAGE - 1));
        }
        let start = self.run.0;
        self.run.0 += PAGE;
        Some(start)
    }

    /// Memory of at least this many bytes: a free block, such as that of a state that was restored, or the end of the heap.
    unsafe fn region(&mut self, bytes: usize) -> Option<(usize, usize)> {
        if let Some(found) = unsafe { self.find_large(bytes + HEADER) } {
            unsafe {
                self.split(found, (bytes + HEADER).next_multiple_of(8));
                let total = size_of_block(found);
                set_size(found, 0);
                write(found, 0);
                return Some((found, found - HEADER + total));
            }
        }
        let start = self.top;
        self.reserve(start + bytes)?;
        self.top = start + bytes;
        Some((start, start + bytes))
    }

    /// Cuts a small block from the chunk.
    unsafe fn cut_small(&mut self, total: usize) -> Option<usize> {
        loop {
            // Headers lie before multiples of 8.
            let mut payload = (self.chunk.0 + HEADER).next_multiple_of(8);
            if payload.is_multiple_of(PAGE) {
                payload += 8;
            }
            let end = payload - HEADER + total;
            if end <= self.chunk.1 {
                self.chunk.0 = end;
                unsafe { set_size(payload, total) };
                return Some(payload);
            }
            self.chunk = unsafe { self.region(CHUNK)? };
        }
    }

    /// Cuts a large block from the end.
    unsafe fn extend(&mut self, total: usize) -> Option<usize> {
        let mut payload = (self.top + HEADER).next_multiple_of(8);
        if payload.is_multiple_of(PAGE) {
            payload += 8;
        }
        let end = (payload - HEADER).checked_add(total)?;
        self.reserve(end)?;
        self.top = end;
        unsafe { set_size(payload, total) };
        Some(payload)
    }

    /// Keeps the first `total` bytes of a free block and frees the rest.
    unsafe fn split(&mut self, payload: usize, total: usize) {
        unsafe {
            let rest = size_of_block(payload) - total;
            // The next payload must not look like a page.
            let next = payload + total;
            if rest > MAX_SMALL && !next.is_multiple_of(PAGE) {
                set_size(payload, total);
                set_size(next, rest);
                self.release(next, rest);
            }
        }
    }

    unsafe fn release(&mut self, payload: usize, total: usize) {
        unsafe {
            self.clear(payload, total - HEADER);
            if payload - HEADER + total == self.top && total > MAX_SMALL {
                self.top = payload - HEADER;
                write(payload - HEADER, 0);
                return;
            }
            let list = match total <= MAX_SMALL {
                true => &mut self.small[total / 8],
                false => &mut self.large[class(total)],
            };
            write(payload, *list);
            *list = payload;
        }
    }

    unsafe fn clear(&self, start: usize, length: usize) {
        if self.clears {
            unsafe { ptr::write_bytes(start as *mut u8, 0, length) };
        }
    }

    fn reserve(&mut self, end: usize) -> Option<()> {
        if end > self.end {
            self.end = (self.grow)(end)?;
        }
        Some(())
    }
}

fn block_size(size: usize) -> Option<usize> {
    Some(size.checked_add(HEADER + 7)? & !7).map(|total| total.max(16))
}

/// The class of a size: that of the largest class size that is not larger.
fn class(total: usize) -> usize {
    let power = total.ilog2();
    (power as usize - 2) * 4 + ((total >> (power - 2)) & 3)
}

/// The smallest size of a class; a multiple of 8 for large blocks.
fn class_size(class: usize) -> usize {
    (4 + class % 4) << (class / 4)
}

unsafe fn read(address: usize) -> usize {
    unsafe { ptr::read(address as *const usize) }
}

unsafe fn write(address: usize, value: usize) {
    unsafe { ptr::write(address as *mut usize, value) };
}

unsafe fn size_of_block(payload: usize) -> usize {
    unsafe { ptr::read((payload - HEADER) as *const u32) as usize }
}

unsafe fn set_size(payload: usize, total: usize) {
    unsafe { ptr::write((payload - HEADER) as *mut u32, total as u32) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The memory of the heap, at an address that does not move.
    fn memory() -> usize {
        let memory: &'static mut [u64] = Box::leak(vec![0; (16 << 20) / 8].into_boxed_slice());
        memory.as_mut_ptr() as usize
    }

    /// A number from a sequence that is the same in each run.
    fn next(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize
    }

    #[test]
    fn blocks_do_not_overlap_and_keep_their_bytes() {
        let mut heap = Heap::new(memory(), |_| Some(usize::MAX));
        let mut state = 1;
        let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
        for step in 0..200_000_usize {
            if live.len() > 300 || (step % 3 == 2 && !live.is_empty()) {
                let (start, size, mark) = live.swap_remove(next(&mut state) % live.len());
                // SAFETY: the payload is live.
                unsafe {
                    assert!(std::slice::from_raw_parts(start, size).iter().all(|byte| *byte == mark), "step {step}");
                    heap.free(start);
                }
                continue;
            }
            let size = match next(&mut state) % 8 {
                0 => MIN_ARENA + next(&mut state) % 600,
                1 => next(&mut state) % 20_000,
                _ => next(&mut state) % 200,
            };
            let mark = (step % 251) as u8;
            // SAFETY: the memory is this test's.
            unsafe {
                let start = if step % 50 == 0 { heap.alloc_aligned(size, 64) } else { heap.alloc(size) };
                assert!(!start.is_null() && (start as usize).is_multiple_of(if step % 50 == 0 { 64 } else { 8 }));
                ptr::write_bytes(start, mark, size);
                live.push((start, size, mark));
            }
        }
        assert!(heap.top - heap.chunk.0 < 8 << 20, "freed blocks are used again");
    }

    #[test]
    fn class_of_its_size_is_the_class() {
        for total in (MAX_SMALL..1 << 20).step_by(8) {
            let class = class(total);
            assert!(class_size(class) <= total && total < class_size(class + 1), "{total}");
        }
    }

    #[test]
    fn freed_memory_is_clear_until_clearing_ends() {
        let start = memory();
        let mut heap = Heap::new(start, |_| Some(usize::MAX));
        // SAFETY: the memory is this test's, and nothing else is live in it.
        unsafe {
            let blocks: Vec<*mut u8> = [40, 2_000, 4_000].iter().map(|size| heap.alloc(*size)).collect();
            for (block, size) in blocks.iter().zip([40, 2_000, 4_000]) {
                ptr::write_bytes(*block, 255, size);
                heap.free(*block);
            }
            let bytes = std::slice::from_raw_parts(start as *const u8, 64 << 10);
            assert!(!bytes.contains(&255));
            heap.stop_clearing();
            let block = heap.alloc(40);
            ptr::write_bytes(block, 255, 40);
            heap.free(block);
            assert_eq!(*block.add(20), 255);
        }
    }

    #[test]
    fn memory_after_a_trim_is_asked_for_again() {
        // An instance of a snapshot has less memory than the build had.
        let mut heap = Heap::new(memory(), |end| Some(end + (1 << 20)));
        // SAFETY: the memory is this test's.
        unsafe {
            let block = heap.alloc(5_000);
            heap.free(block);
            heap.trim();
            heap.grow = |_| None;
            assert!(heap.alloc(5_000).is_null());
        }
    }

    #[test]
    fn alloc_without_memory_is_null() {
        let mut heap = Heap::new(memory(), |_| None);
        // SAFETY: nothing is written.
        unsafe {
            assert!(heap.alloc(8).is_null() && heap.alloc(5_000).is_null() && heap.alloc(PAGE).is_null());
            assert!(heap.alloc(usize::MAX - 8).is_null());
        }
    }
}
