//! The exports that a build calls on an instance, of which it then takes a snapshot.

use std::alloc::{Layout, alloc};
use std::cell::Cell;

use crate::{checkpoint, memory};

/// A report of a build, as the driver reads it from memory.
#[derive(Clone, Copy)]
#[repr(C)]
struct Report {
    start: *const u8,
    length: usize,
    /// The end of the memory that an instance needs at its start.
    heap_end: usize,
    /// A list in that memory, which the driver fills.
    written_pages: *const memory::Ranges,
    /// How many ranges the list has room for.
    max_ranges: usize,
}

thread_local! {
    /// The report of the last build.
    static REPORT: Cell<Report> = const {
        Cell::new(Report {
            start: std::ptr::null(),
            length: 0,
            heap_end: 0,
            written_pages: std::ptr::null(),
            max_ranges: memory::MAX_RANGES,
        })
    };
}

/// Memory for a program of this length. `build` frees it.
#[unsafe(export_name = "tidegate-build-alloc")]
extern "C" fn build_alloc(length: usize) -> *mut u8 {
    match Layout::array::<u8>(length) {
        // SAFETY: the layout is not empty.
        Ok(layout) if length > 0 => memory::temporarily(|| unsafe { alloc(layout) }),
        _ => std::ptr::null_mut(),
    }
}

/// Evaluates a program at `start`, JSON in UTF-8, and returns the address of a pointer and a length: of the report, which is JSON.
#[unsafe(export_name = "tidegate-build")]
extern "C" fn build(start: *mut u8, length: usize) -> *const Report {
    // SAFETY: the driver got the memory from `build_alloc` with this length, and filled it.
    let program = unsafe { Vec::from_raw_parts(start, length, length) };
    let report = super::engine()
        .and_then(|engine| engine.build(program, super::pack::fill_holes))
        .unwrap_or_else(|error| failure(&error));
    let report = match memory::temporary_blocks() {
        0 => report,
        blocks => failure(&format!("{blocks} blocks of temporary memory are in use at the end of the build")),
    };
    // After the end of the heap, so that the snapshot does not contain it.
    let moved: &[u8] = memory::temporarily(|| Vec::from(report.as_bytes())).leak();
    drop(report);
    let (heap_end, written_pages) = (memory::trim(), memory::written_pages());
    let (start, length, max_ranges) = (moved.as_ptr(), moved.len(), memory::MAX_RANGES);
    memory::end_build();
    REPORT.set(Report { start, length, heap_end, written_pages, max_ranges });
    REPORT.with(Cell::as_ptr).cast_const()
}

/// Saves the state of a sample's preparation, in an instance that is not used afterwards. Returns the address of a pointer and a number of words,
/// which is 0 if there is none.
#[unsafe(export_name = "tidegate-build-save")]
extern "C" fn save() -> *const Report {
    let prepare = || {
        memory::start_decisions();
        super::engine().and_then(|engine| engine.call("prepareSample", (), |_, value| value.get())).unwrap_or_default()
    };
    let state: &[u64] = checkpoint::save(prepare).unwrap_or_default().leak();
    REPORT.with(|report| {
        let Report { heap_end, written_pages, max_ranges, .. } = report.get();
        report.set(Report { start: state.as_ptr().cast(), length: state.len(), heap_end, written_pages, max_ranges });
        report.as_ptr().cast_const()
    })
}

/// Decides about a request, without a gateway, in an instance that is not used afterwards. A state, if it is not empty, is restored before. The driver
/// records which pages that writes to. Returns the end of the memory that it used.
#[unsafe(export_name = "tidegate-build-sample")]
extern "C" fn sample(state: *mut u64, length: usize) -> usize {
    memory::start_decisions();
    if length > 0 {
        // SAFETY: the driver got the memory from `cabi_realloc` with this length, and filled it.
        checkpoint::restore(&unsafe { Vec::from_raw_parts(state, length, length) });
    }
    // An error is that of code which misses its settings.
    let _ = super::engine().and_then(|engine| engine.call("decideSample", (), |_, _| Ok(())));
    memory::top()
}

/// The report of a build that could not start: its error belongs to no module.
fn failure(error: &str) -> String {
    let error = quoted(error);
    format!(r#"{{"found":[],"failed":[{{"module":"","name":"Error","error":{error},"stack":""}}],"printed":[]}}"#)
}

/// A text as a string of JSON.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            '\0'..='\x1f' => json.push_str(&format!("\\u{:04x}", u32::from(char))),
            _ => json.push(char),
        }
    }
    json.push('"');
    json
}
