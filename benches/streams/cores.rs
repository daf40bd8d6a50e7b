//! Deliveries and opens with one core for the server and with two, in turns.

use std::time::Instant;

use crate::common::clients::open_and_close;
use crate::common::machine::{Machine, cpu, settled_cpu};
use crate::common::options::Options;
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Server};
use crate::common::{median, micros};
use crate::deliveries::{self, BURST_EVENTS, Contender, EVENTS_PER_SECOND, Size};
use crate::opens;

/// Numbers of cores for the server.
const CORES: [usize; 2] = [1, 2];

struct Turns {
    cores: usize,
    deliveries: Contender,
    opens_server: Server,
    open_costs: Vec<f64>,
    opens_per_second: Vec<f64>,
}

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let Some((redis, connection)) = servers::redis().await else { return };
    let (size, opens) = (Size::new(options), options.limit(options.pick(3_000, 200)));
    let mut all = Vec::new();
    let mut is_load_shared = false;
    for cores in CORES {
        let Some(machine) = machine.with_server_cores(cores) else {
            eprintln!("{cores} cores are left out: the machine has fewer, or processes cannot be pinned");
            continue;
        };
        is_load_shared |= machine.is_load_shared();
        let deliveries = deliveries::tidegate("Tidegate", &machine, &redis, connection.clone());
        let opens_server = servers::tidegate(&machine, &redis, &[], "");
        all.push(Turns { cores, deliveries, opens_server, open_costs: Vec::new(), opens_per_second: Vec::new() });
    }
    for round in 0..size.rounds {
        for turns in &mut all {
            turns.deliveries.run_round(size, round > 0).await;
            let pid = turns.opens_server.pid;
            let request = servers::realtime_request(&turns.opens_server, opens::CHANNEL);
            let _open = request.open().await;
            let (before, start) = (settled_cpu(pid).await, Instant::now());
            open_and_close(&request, opens).await;
            let elapsed = start.elapsed().as_secs_f64();
            settled_cpu(pid).await;
            let used = cpu(pid) - before;
            if round > 0 {
                turns.open_costs.push(micros(used, opens));
                #[expect(clippy::cast_precision_loss, reason = "some thousands")]
                turns.opens_per_second.push(opens as f64 / elapsed);
            }
        }
    }
    add_table(report, &all, size, is_load_shared);
}

fn add_table(report: &Report, all: &[Turns], size: Size, is_load_shared: bool) {
    let mut table = Table::new(
        "Tidegate on one core and on two",
        &[
            "cores of the server",
            &format!("µs CPU per delivery, {EVENTS_PER_SECOND} events/s"),
            "ms p50 / p99",
            &format!("µs CPU per delivery, bursts of {BURST_EVENTS}"),
            "µs CPU per open",
            "opens per second",
        ],
    );
    for turns in all {
        table.row(&[
            &turns.cores,
            &number(median(turns.deliveries.even.clone()), 2),
            &turns.deliveries.latencies(),
            &number(median(turns.deliveries.bursts.clone()), 2),
            &number(median(turns.open_costs.clone()), 1),
            &number(median(turns.opens_per_second.clone()), 0),
        ]);
    }
    let load = if is_load_shared {
        "The load and Redis run on one core, which is the server's second one: with two cores, the server competes with them, and the opens \
         per second are limited by both."
    } else {
        "The load and Redis run on a core that the server does not use."
    };
    table.note(format!(
        "{} streams on one channel; opens with the Rust policy and a session in Redis; medians of {} turns. {load} Other numbers of cores were \
         not run.",
        size.streams,
        size.rounds - 1
    ));
    report.add("cores", &table);
}
