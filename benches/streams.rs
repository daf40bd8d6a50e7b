//! The cost of a stream: opening it, delivering events to it, and keeping it open, compared with the peers that are installed. The servers
//! alternate within one run, and results are printed as ratios.
//!
//! `cargo bench --bench streams` starts the program, a `redis-server` and the peers as processes on one core, and loads them from another. A
//! peer that is missing is reported and left out. After `--`, a part runs alone: `deliveries`, `events`, `opens`, `hostile`, `memory`,
//! `account`, `allocations`, `cores` or `checks`. `--write` writes the tables to `docs/benchmarks.md`; `--quick` is a short run that shows
//! that the bench works; `--no-peers` leaves the peers out; `--wait=<seconds>` is the wait before memory is measured; `--max=<number>` limits
//! the streams.
//!
//! `TIDEGATE_BIN` names another program than the one that cargo built. The peers: the npm package's own `handle()` on Node (`npm ci` in
//! `tests/e2e`); nchan (Debian's `nginx-light` and `libnginx-mod-nchan`, or the module that `NCHAN_MODULE` names); Centrifugo
//! (`CENTRIFUGO_BIN`) and Mercure (`MERCURE_BIN`).

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot run panics"
)]

#[path = "streams/account.rs"]
mod account;
#[path = "streams/checks.rs"]
mod checks;
#[path = "common/mod.rs"]
#[allow(dead_code, reason = "the other benches use more of it")]
mod common;
#[path = "streams/cores.rs"]
mod cores;
#[path = "streams/deliveries.rs"]
mod deliveries;
#[path = "streams/events.rs"]
mod events;
#[path = "../tests/common/guests.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod guests;
#[path = "streams/hostile.rs"]
mod hostile;
#[path = "streams/memory.rs"]
mod memory;
#[path = "streams/opens.rs"]
mod opens;
#[path = "streams/allocations.rs"]
mod allocations;

use common::baseline;
use common::machine::Machine;
use common::options::Options;
use common::recording;
use common::report::Report;

/// The allocator of the program, for the parts that run in this process.
#[global_allocator]
static ALLOCATOR: recording::Recording = recording::Recording;

const PARTS: [&str; 9] =
    ["deliveries", "events", "opens", "hostile", "memory", "account", "allocations", "cores", "checks"];

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(baseline::PART) => return baseline::serve(),
        Some(recording::PART) => return recording::serve(),
        _ => {}
    }
    let options = Options::read(&PARTS);
    let machine = Machine::prepare();
    let report = Report::new(&options, &machine);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for part in PARTS.into_iter().filter(|part| options.is_selected(part)) {
            eprintln!("# {part}");
            match part {
                "deliveries" => deliveries::measure(&machine, &options, &report).await,
                "events" => events::measure(&machine, &options, &report).await,
                "opens" => opens::measure(&machine, &options, &report).await,
                "hostile" => hostile::measure(&machine, &options, &report).await,
                "memory" => memory::measure(&machine, &options, &report).await,
                "account" => account::measure(&machine, &options, &report).await,
                "allocations" => allocations::measure(&machine, &options, &report).await,
                "cores" => cores::measure(&machine, &options, &report).await,
                _ => checks::measure(&report),
            }
        }
    });
}
