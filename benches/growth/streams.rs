//! Costs by the number of streams on one channel: a delivery and an open.

use std::time::Duration;

use crate::common::clients::{Clients, open_and_close};
use crate::common::emit::emit_to;
use crate::common::machine::{Machine, cpu, settled_cpu};
use crate::common::options::Options;
use crate::common::report::{Report, Table, number};
use crate::common::servers;
use crate::common::{median, micros};
use crate::figure::{Line, Panel};

const SIZES: [usize; 3] = [100, 1_000, 15_000];
const CHANNEL: &str = "alice-growth";
/// More than the files that a server has open in addition to its streams.
const OTHER_FILES: usize = 500;
/// Deliveries a second: not more than a core manages.
const MAX_DELIVERIES_PER_SECOND: usize = 40_000;
const MAX_EVENTS_PER_SECOND: usize = 40;

pub async fn measure(machine: &Machine, options: &Options, report: &Report) -> Option<Panel> {
    let (redis, mut connection) = servers::redis().await?;
    let columns = ["streams", "µs CPU per delivery", "µs CPU per open and close"];
    let mut table = Table::new("Growth with the number of streams on one channel", &columns);
    let (mut deliveries, mut opens) = (Vec::new(), Vec::new());
    let most = options.limit(options.pick(usize::MAX, 200)).min(machine.files.saturating_sub(OTHER_FILES));
    for streams in SIZES {
        if streams > most {
            eprintln!("{streams} streams are left out: the maximum is {most} (`ulimit -Hn` is {})", machine.files);
            continue;
        }
        let server = servers::tidegate(machine, &redis, &["--allow-all"], "");
        let request = servers::realtime_request(&server, CHANNEL);
        let other_client = request.with_source([127, 0, 0, 2].into());
        let mut clients = Clients::open(&request, streams).await;
        let per_second = (MAX_DELIVERIES_PER_SECOND / streams).clamp(1, MAX_EVENTS_PER_SECOND);
        let (rounds, seconds, count) = options.pick((6, 2, 500), (2, 1, 50));
        let events = per_second * seconds;
        let (mut delivery_costs, mut open_costs, mut received) = (Vec::new(), Vec::new(), 0);
        for round in 0..rounds {
            let before = settled_cpu(server.pid).await;
            let mut ticks =
                tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second).expect("it is small"));
            for _ in 0..events {
                ticks.tick().await;
                emit_to(&mut connection, &[CHANNEL]).await;
                // On a busy machine, two events would be one write.
                received += streams as u64;
                clients.wait_received(received).await;
            }
            let delivery = micros(settled_cpu(server.pid).await - before, events * streams);
            let before = cpu(server.pid);
            open_and_close(&other_client, count).await;
            let open = micros(settled_cpu(server.pid).await - before, count);
            // The first round warms up.
            if round > 0 {
                delivery_costs.push(delivery);
                open_costs.push(open);
            }
        }
        let (delivery, open) = (median(delivery_costs), median(open_costs));
        table.row(&[&streams, &number(delivery, 2), &number(open, 1)]);
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let streams = streams as f64;
        deliveries.push((streams, delivery));
        opens.push((streams, open));
    }
    table.note(format!(
        "Medians of five turns; {MAX_EVENTS_PER_SECOND} events per second, or as many as make {MAX_DELIVERIES_PER_SECOND} deliveries per second, \
         each of them after the last one was received; `--allow-all`."
    ));
    report.add("growth-streams", &table);
    let lines = vec![Line { name: "delivery", points: deliveries }, Line { name: "open and close", points: opens }];
    Some(Panel { title: "µs CPU by streams on one channel", axis: "streams", lines })
}
