//! Process metrics: from the operating system, under the names that Prometheus client libraries use, and from the allocator.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::telemetry::metrics::MetricBuilder;
use crate::util::files;

/// Registers the metrics that the system provides; without `/proc` there are fewer. `started_at` is in ms since the Unix epoch.
pub fn register(builder: &MetricBuilder, started_at: u64) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds and parts of one")]
    let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    builder
        .float_counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")
        .inc_by(seconds);
    #[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
    builder
        .float_gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")
        .set(started_at as f64 / 1e3);
    if let Some(bytes) = resident() {
        builder.gauge("process_resident_memory_bytes", "Resident memory size in bytes.").set(bytes);
    }
    if let Some(bytes) = allocated() {
        builder
            .gauge(
                "tidegate_memory_allocated_bytes",
                "Memory that the allocator has given out in bytes, without the linear memories of policies.",
            )
            .set(bytes);
    }
    // One of them is the directory that is being read.
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = i64::try_from(open.count()).unwrap_or(i64::MAX).saturating_sub(1);
        builder.gauge("process_open_fds", "Number of open file descriptors.").set(open);
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        builder.gauge("process_max_fds", "Maximum number of open file descriptors.").set(limit);
    }
}

/// Resident memory in bytes.
pub fn resident() -> Option<i64> {
    let status = files::read_text(Path::new("/proc/self/status"), 64 << 10).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
}

/// Bytes that jemalloc has given out and not got back. Unlike the resident memory it has no unused pages and no code, so it is exact
/// enough to see the cost of one item. The memories and stacks of WebAssembly instances are mapped and not counted.
pub fn allocated() -> Option<i64> {
    // The figures are those of the last epoch.
    control(c"epoch", Some(1))?;
    i64::try_from(control(c"stats.allocated", None)?).ok()
}

/// Reads a number of jemalloc, and sets it.
#[expect(unsafe_code, reason = "the safe wrapper, tikv-jemalloc-ctl, depends on an unmaintained crate")]
fn control(name: &CStr, mut new: Option<u64>) -> Option<u64> {
    let (mut value, mut size) = (0_u64, size_of::<u64>());
    let (new, new_size) = match &mut new {
        Some(new) => (std::ptr::from_mut(new).cast(), size_of::<u64>()),
        None => (std::ptr::null_mut(), 0),
    };
    // SAFETY: all pointers are valid during the call, and both names are of 64-bit numbers (`size_t` on the supported targets), which
    // jemalloc checks by the sizes.
    let status = unsafe {
        tikv_jemalloc_sys::mallctl(name.as_ptr(), std::ptr::from_mut(&mut value).cast(), &raw mut size, new, new_size)
    };
    (status == 0).then_some(value)
}
