//! What the system says of this process, under the names that Prometheus' own clients give it.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::telemetry::metrics::Book;
use crate::util::files;

/// Enters what can be had; where there is no `/proc`, that is less.
pub fn enter(book: &Book) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds and parts of one")]
    let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    book.seconds("process_cpu_seconds_total", "CPU time that this process had, in user and system mode.", seconds);
    book.float("process_start_time_seconds", "When this process started, since 1970.").set(started());
    if let Some(bytes) = resident() {
        book.gauge("process_resident_memory_bytes", "Memory of this process that is in RAM.").set(bytes);
    }
    // One of them is the folder that is being read.
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = i64::try_from(open.count()).unwrap_or(i64::MAX).saturating_sub(1);
        book.gauge("process_open_fds", "File descriptors that are open.").set(open);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        book.gauge("process_max_fds", "File descriptors that may be open.").set(most);
    }
}

/// Seconds since 1970; when this was first asked, which the server does as it starts.
pub fn started() -> f64 {
    static STARTED: LazyLock<f64> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    *STARTED
}

/// Bytes of this process in RAM.
pub fn resident() -> Option<i64> {
    let status = files::read_text(Path::new("/proc/self/status"), 64 << 10).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
}
