//! The cost of a stream: opening it, delivering an event to it, and keeping it open; compared with installed peers, in alternating turns
//! of one run.
//!
//! `cargo bench --bench streams` starts the program, a `redis-server`, nginx with nchan and the npm package's own `handle()` on Node as
//! processes on one core, and loads them from another. A missing peer is reported and skipped. `-- deliveries`, `opens`, `memory` or
//! `checks` runs that part alone. `TIDEGATE_BIN` selects another program than the one that cargo built. The npm package needs `npm ci` in
//! `tests/e2e`, and nchan needs Debian's `nginx-light` and `libnginx-mod-nchan`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot run panics with the cause"
)]

#[path = "streams/checks.rs"]
mod checks;
#[path = "streams/crowd.rs"]
mod crowd;
#[path = "streams/deliveries.rs"]
mod deliveries;
#[path = "streams/emit.rs"]
mod emit;
#[path = "streams/baseline.rs"]
mod baseline;
#[path = "streams/machine.rs"]
mod machine;
#[path = "streams/memory.rs"]
mod memory;
#[path = "streams/opens.rs"]
mod opens;
#[path = "streams/servers.rs"]
mod servers;

use machine::Machine;

/// The allocator of the program, for the part that runs in this process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // Skip the argument that cargo itself passes to a bench.
    let part = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    if part.as_deref() == Some(baseline::PART) {
        return baseline::serve();
    }
    if cfg!(debug_assertions) {
        eprintln!("built without optimisation: these numbers are not meaningful");
    }
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    let machine = Machine::prepare();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if wanted("deliveries") {
            deliveries::measure(&machine).await;
        }
        if wanted("opens") {
            opens::measure(&machine).await;
        }
        if wanted("memory") {
            memory::measure(&machine).await;
        }
        if wanted("checks") {
            checks::measure().await;
        }
    });
    println!("\n{}", machine.describe());
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
