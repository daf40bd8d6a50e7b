//! Process metrics from the operating system, under the names that Prometheus client libraries use.

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
