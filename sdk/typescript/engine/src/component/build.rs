//! The exports that a build calls on an instance, of which it then takes a snapshot.

use std::alloc::{Layout, alloc};
use std::cell::Cell;

/// A report of a build, as the driver reads it from memory.
#[repr(C)]
struct Report {
    start: *const u8,
    length: usize,
    /// The end of the used memory. Memory after it is clear, and an instance needs none of it at its start.
    heap_end: usize,
}

thread_local! {
    /// The report of the last build, which is freed by the next.
    static REPORT: Cell<Report> = const { Cell::new(Report { start: std::ptr::null(), length: 0, heap_end: 0 }) };
}

/// Memory for a program of this length. `build` frees it.
#[unsafe(export_name = "tidegate-build-alloc")]
extern "C" fn build_alloc(length: usize) -> *mut u8 {
    match Layout::array::<u8>(length) {
        // SAFETY: the layout is not empty.
        Ok(layout) if length > 0 => unsafe { alloc(layout) },
        _ => std::ptr::null_mut(),
    }
}

/// Evaluates a program at `start`, JSON in UTF-8, and returns the address of a pointer and a length: of the report, which is JSON.
#[unsafe(export_name = "tidegate-build")]
extern "C" fn build(start: *mut u8, length: usize) -> *const Report {
    // SAFETY: the driver got the memory from `build_alloc` with this length, and filled it.
    let program = unsafe { Vec::from_raw_parts(start, length, length) };
    let report = String::from_utf8(program)
        .map_err(|error| error.to_string())
        .and_then(|program| super::engine()?.build(program, super::pack::fill_holes))
        .unwrap_or_else(|error| failure(&error));
    let report = Box::leak(report.into_bytes().into_boxed_slice());
    REPORT.set(Report { start: report.as_ptr(), length: report.len(), heap_end: super::memory::trim() });
    REPORT.with(Cell::as_ptr).cast_const()
}

/// The report of a build that could not start: its error belongs to no module.
fn failure(error: &str) -> String {
    let quoted: String = error.chars().flat_map(char::escape_default).collect();
    format!(r#"{{"found":[],"failed":[{{"module":"","name":"Error","error":"{quoted}","stack":""}}],"printed":[]}}"#)
}
