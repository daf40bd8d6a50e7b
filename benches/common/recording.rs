//! An allocator that records the live allocations of the gateway and where they were made.

#![allow(unsafe_code, reason = "an allocator is unsafe; this one delegates to jemalloc")]

use std::alloc::{GlobalAlloc, Layout};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::BufRead;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use tidegate::commands::Cli;
use tikv_jemallocator::Jemalloc;

/// The argument with which this program is a gateway whose allocations are recorded on demand.
pub const PART: &str = "gateway";
/// The file of a report, in the gateway's folder.
pub const REPORT: &str = "allocations";

static IS_RECORDING: AtomicBool = AtomicBool::new(false);
/// Allocations since the recording began, by address: the size that was asked for, and the stack.
static LIVE: Mutex<Option<HashMap<usize, (usize, Backtrace)>>> = Mutex::new(None);

thread_local! {
    /// Whether this thread records an allocation: what it allocates for that is not recorded.
    static IS_BUSY: Cell<bool> = const { Cell::new(false) };
}

/// jemalloc, the allocator of the program. Without a recording it costs one load more.
pub struct Recording;

// SAFETY: every call goes to jemalloc, with its arguments unchanged.
unsafe impl GlobalAlloc for Recording {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is jemalloc's condition.
        let address = unsafe { Jemalloc.alloc(layout) };
        added(address, layout.size());
        address
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let address = unsafe { Jemalloc.alloc_zeroed(layout) };
        added(address, layout.size());
        address
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        removed(address);
        // SAFETY: as above.
        unsafe { Jemalloc.dealloc(address, layout) };
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        removed(address);
        // SAFETY: as above.
        let address = unsafe { Jemalloc.realloc(address, layout, size) };
        added(address, size);
        address
    }
}

fn added(address: *mut u8, size: usize) {
    record(|live| {
        live.insert(address.addr(), (size, Backtrace::force_capture()));
    });
}

fn removed(address: *mut u8) {
    record(|live| {
        live.remove(&address.addr());
    });
}

fn record(change: impl FnOnce(&mut HashMap<usize, (usize, Backtrace)>)) {
    if !IS_RECORDING.load(Ordering::Relaxed) {
        return;
    }
    // A thread that ends has no such variable any more.
    let _ = IS_BUSY.try_with(|is_busy| {
        if !is_busy.replace(true) {
            if let Some(live) = LIVE.lock().unwrap().as_mut() {
                change(live);
            }
            is_busy.set(false);
        }
    });
}

/// Runs the program with the arguments after [`PART`]. Executes the commands on standard input, one per line: `record` and `report`.
pub fn serve() {
    std::thread::spawn(|| {
        for line in std::io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("record") => {
                    *LIVE.lock().unwrap() = Some(HashMap::new());
                    IS_RECORDING.store(true, Ordering::Relaxed);
                }
                Ok("report") => {
                    IS_RECORDING.store(false, Ordering::Relaxed);
                    let live = LIVE.lock().unwrap().take().unwrap_or_default();
                    std::fs::write("report.part", report(live)).expect("the report is written");
                    std::fs::rename("report.part", REPORT).expect("the report is written");
                }
                _ => return,
            }
        }
    });
    let arguments = std::env::args_os().enumerate().filter(|(index, _)| *index != 1).map(|(_, argument)| argument);
    tidegate::commands::run(Cli::parse_from(arguments)).expect("the gateway runs");
}

/// A line for each function and size: the bytes of one allocation, the number of allocations and the function, separated by tabs.
fn report(live: HashMap<usize, (usize, Backtrace)>) -> String {
    let mut sites = BTreeMap::<(String, usize), usize>::new();
    for (size, stack) in live.into_values() {
        *sites.entry((site(&stack.to_string()), size)).or_default() += 1;
    }
    sites.into_iter().fold(String::new(), |mut text, ((site, size), count)| {
        let _ = writeln!(text, "{size}\t{count}\t{site}");
        text
    })
}

/// The innermost functions of a stack that tell what an allocation is for: the first one outside of collections, and the gateway's first one.
fn site(stack: &str) -> String {
    /// Collections and wrappers, which allocate for their users.
    const WRAPPERS: [&str; 14] = [
        "std::",
        "core::",
        "alloc::",
        "hashbrown::",
        "bytes::",
        "indexmap::",
        "slab::",
        "smallvec::",
        "parking_lot",
        "__rust",
        "_R",
        "streams::common::recording",
        "backtrace",
        "tikv_jemallocator",
    ];
    let functions: Vec<String> = stack
        .lines()
        .filter_map(|line| line.trim_start().split_once(": ").filter(|(number, _)| number.parse::<u32>().is_ok()))
        .map(|(_, name)| shorten(name))
        .collect();
    // The debug information names inlined functions without their modules.
    let is_wrapper = |name: &str| !name.contains("::") || WRAPPERS.iter().any(|prefix| name.starts_with(prefix));
    let first = functions.iter().position(|name| !is_wrapper(name));
    let Some(first) = first else { return "others".into() };
    let own = functions[first..].iter().find(|name| name.starts_with("tidegate::"));
    match own {
        Some(own) if *own != functions[first] => format!("`{}`, from `{own}`", functions[first]),
        _ => format!("`{}`", functions[first]),
    }
}

/// A function without the parameters of generic types and without marks of closures.
fn shorten(name: &str) -> String {
    let (mut short, mut depth) = (String::new(), 0_i32);
    for (at, letter) in name.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' if !name[..at].ends_with('-') => depth -= 1,
            _ if depth == 0 => short.push(letter),
            _ => {}
        }
    }
    // `<Type as Trait>::method` and `<Type>::method`
    if let Some(inner) = name.strip_prefix('<') {
        let end = inner.find(" as ").or_else(|| inner.find('>')).unwrap_or(inner.len());
        let head = inner[..end].split('<').next().unwrap_or(inner);
        short = format!("{head}{short}");
    }
    short.replace("::{{closure}}", "").replace("::::", "::").trim_end_matches("::").to_owned()
}
