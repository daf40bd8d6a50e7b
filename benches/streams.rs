//! The cost of a stream: opening it, delivering events to it, and keeping it open, compared with the peers that are installed. The servers
//! alternate within one run, and results are printed as ratios.
//!
//! `cargo bench --bench streams` starts the program, a `redis-server`, nginx with nchan and the npm package's own `handle()` on Node as
//! processes on one core, and loads them from another. A peer that is missing is reported and left out. `-- deliveries`, `events`, `opens`,
//! `memory` or `checks` runs that part alone. `TIDEGATE_BIN` names another program than the one that cargo built. For the npm package: `npm ci` in
//! `tests/e2e`; for nchan: Debian's `nginx-light` and `libnginx-mod-nchan`.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot run panics"
)]

#[path = "common/mod.rs"]
mod common;
#[path = "streams/checks.rs"]
mod checks;
#[path = "streams/deliveries.rs"]
mod deliveries;
#[path = "streams/events.rs"]
mod events;
#[path = "streams/memory.rs"]
mod memory;
#[path = "streams/opens.rs"]
mod opens;

use common::baseline;
use common::machine::Machine;

/// The allocator of the program, for the parts that run in this process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // cargo passes options of its own, such as `--bench`.
    let part = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    if part.as_deref() == Some(baseline::PART) {
        return baseline::serve();
    }
    if cfg!(debug_assertions) {
        eprintln!("built without optimization: the numbers are not meaningful");
    }
    let is_selected = |name: &str| part.as_deref().is_none_or(|part| part == name);
    let machine = Machine::prepare();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        if is_selected("deliveries") {
            deliveries::measure(&machine).await;
        }
        if is_selected("events") {
            events::measure(&machine).await;
        }
        if is_selected("opens") {
            opens::measure(&machine).await;
        }
        if is_selected("memory") {
            memory::measure(&machine).await;
        }
        if is_selected("checks") {
            checks::measure().await;
        }
    });
    println!("\n{}", machine.describe());
}
