//! How costs grow: per event and per open, with the number of channels and of streams; the cost of a quiet channel; and a restart with many
//! streams.
//!
//! `cargo bench --bench growth` runs all parts, `-- channels`, `streams` or `storm` that part alone. `--max=<number>` limits channels and
//! streams, `--quick` is a short run that shows that the bench works, `--write` writes the tables to `docs/benchmarks.md` and the figure to
//! `docs/benchmarks/growth.svg`. It needs `redis-server`, and as many file descriptors as streams (`ulimit -Hn`).

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench that cannot run panics"
)]

#[path = "growth/channels.rs"]
mod channels;
#[path = "common/mod.rs"]
#[allow(dead_code, reason = "the other benches use more of it")]
mod common;
#[path = "growth/figure.rs"]
mod figure;
#[path = "growth/storm.rs"]
mod storm;
#[path = "growth/streams.rs"]
mod streams;

use common::machine::Machine;
use common::options::Options;
use common::report::Report;

const PARTS: [&str; 3] = ["channels", "streams", "storm"];

fn main() {
    let options = Options::read(&PARTS);
    let machine = Machine::prepare();
    let report = Report::new(&options, &machine);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut panels = Vec::new();
        if options.is_selected("channels") {
            panels.extend(channels::measure(&machine, &options, &report).await);
        }
        if options.is_selected("streams") {
            panels.extend(streams::measure(&machine, &options, &report).await);
        }
        if options.is_selected("storm") {
            storm::measure(&machine, &options, &report).await;
        }
        // A part alone would replace the panels of the others.
        if panels.len() == 2 {
            figure::write(&panels, &options, &report);
        }
    });
}
