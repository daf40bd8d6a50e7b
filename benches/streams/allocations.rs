//! An account of the memory of an idle stream by the functions that allocate it.

use std::time::Duration;

use crate::common::clients::Clients;
use crate::common::machine::{Machine, settled_cpu};
use crate::common::options::Options;
use crate::common::recording;
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Gateway};

const CHANNEL: &str = "alice-allocations";
/// Functions with fewer bytes per stream are one row.
const MIN_BYTES: f64 = 32.0;
/// Streams before the recording, so that tables have grown.
const FIRST_STREAMS: usize = 150;

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let Some((redis, _connection)) = servers::redis().await else { return };
    let streams = options.pick(500, 50);
    let gateway = Gateway { lines: "log.filter = \"warn\"", records_allocations: true, ..Gateway::default() };
    let mut server = gateway.start(machine, &redis);
    let request = servers::realtime_request(&server, CHANNEL);
    let first = Clients::open(&request, FIRST_STREAMS).await;
    settled_cpu(server.pid).await;
    server.command("record");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = Clients::open(&request, streams).await;
    settled_cpu(server.pid).await;
    tokio::time::sleep(options.pick(Duration::from_secs(15), Duration::from_secs(2))).await;
    server.command("report");
    let file = server.folder().join(recording::REPORT);
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop((first, second));
    let text = std::fs::read_to_string(file).expect("a report");
    add_table(report, &text, streams);
}

fn add_table(report: &Report, text: &str, streams: usize) {
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let streams_number = streams as f64;
    let row = |line: &str| {
        let mut fields = line.splitn(3, '\t');
        let mut number = || fields.next()?.parse::<f64>().ok();
        let (size, count) = (number()?, number()? / streams_number);
        Some((size, count, fields.next()?.to_owned()))
    };
    let mut rows: Vec<_> = text.lines().filter_map(row).collect();
    rows.sort_by(|a, b| (b.0 * b.1).total_cmp(&(a.0 * a.1)));
    let columns = ["", "bytes of one", "allocations per stream", "bytes per stream"];
    let mut table = Table::new("Who allocates for an idle stream, HTTP/1.1", &columns);
    let (mut others, mut all) = ((0.0, 0.0), (0.0, 0.0));
    for (size, count, function) in rows {
        let add = |sum: (f64, f64)| (sum.0 + count, sum.1 + size * count);
        all = add(all);
        if size * count < MIN_BYTES {
            others = add(others);
        } else {
            table.row(&[&function, &size, &number(count, 2), &number(size * count, 0)]);
        }
    }
    for (name, (count, bytes)) in [("others", others), ("all", all)] {
        table.row(&[&name, &"", &number(count, 2), &number(bytes, 0)]);
    }
    table.note(format!(
        "Allocations that were made while {streams} streams were opened, and that are live while they are idle; the bytes that were asked for. \
         The names are those of functions that were not inlined. The program is the gateway's library with an allocator that records."
    ));
    report.add("allocations", &table);
}
