//! The memory of an idle stream: between a first number of streams and a second one, a minute after the last open.

use std::time::Duration;

use crate::common::clients::{Clients, StreamRequest};
use crate::common::http2::Http2Clients;
use crate::common::machine::{Machine, kernel, private, settled_cpu};
use crate::common::options::Options;
use crate::common::peers::{self, Peer};
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Server};

/// The gateway allows this number of exchanges on a connection.
const STREAMS_PER_CONNECTION: usize = 100;
/// More than the files that a server has open in addition to its streams.
const OTHER_FILES: usize = 500;
const CHANNEL: &str = "alice-idle";

/// How a measurement is done.
struct Plan {
    /// Streams before the first reading, and before the second one.
    sizes: (usize, usize),
    wait: Duration,
}

impl Plan {
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    fn per_stream(&self, difference: f64) -> f64 {
        difference / (self.sizes.1 - self.sizes.0) as f64
    }
}

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let sizes = options.pick((2_000, 10_000), (100, 500));
    let most = options.limit(machine.files.saturating_sub(OTHER_FILES));
    let plan = Plan { sizes: (sizes.0.min(most / 5), sizes.1.min(most)), wait: options.memory_wait() };
    let Some((redis, _connection)) = servers::redis().await else { return };
    let title = format!("An idle stream, between {} and {} on one channel", plan.sizes.0, plan.sizes.1);
    let mut table = Table::new(title, &["", "KiB of private memory per stream", "KiB of the kernel, both ends"]);
    let tidegate = || servers::tidegate(machine, &redis, &[], "");
    let server = tidegate();
    measure_http1(&mut table, "Tidegate", &server, &servers::realtime_request(&server, CHANNEL), &plan).await;
    drop(server);
    let server = tidegate();
    measure_http2(&mut table, "Tidegate", &server, &servers::realtime_request(&server, CHANNEL), &plan).await;
    drop(server);
    if options.has_peers {
        for peer in Peer::all(machine).await {
            measure_http1(&mut table, peer.name, &peer.server, &peer.request, &plan).await;
        }
        if let Some(server) = peers::nchan(machine, None).await {
            measure_http2(&mut table, "nchan", &server, &peers::nchan_request(&server, "open"), &plan).await;
        }
        if let Some(server) = peers::node(machine, &redis) {
            let request = servers::realtime_request(&server, CHANNEL);
            measure_http1(&mut table, "`handle()` on Node", &server, &request, &plan).await;
        }
    }
    table.note(format!(
        "Private memory is `Private_Clean` and `Private_Dirty` of the process's `smaps_rollup`, {} s after the last open of each number. The \
         kernel's memory is the growth of `Slab` and of the buffers of TCP on the whole machine, so it includes the clients' ends of the \
         connections and other processes.",
        plan.wait.as_secs()
    ));
    report.add("memory", &table);
}

async fn measure_http1(table: &mut Table, name: &str, server: &Server, request: &StreamRequest, plan: &Plan) {
    let first = Clients::open(request, plan.sizes.0).await;
    let before = reading(server, plan.wait).await;
    let second = Clients::open(request, plan.sizes.1 - plan.sizes.0).await;
    let after = reading(server, plan.wait).await;
    drop((first, second));
    row(table, &format!("{name}, HTTP/1.1"), before, after, plan);
}

async fn measure_http2(table: &mut Table, name: &str, server: &Server, request: &StreamRequest, plan: &Plan) {
    let mut request = request.clone();
    request.to = server.http2.expect("an address for HTTP/2");
    let first = Http2Clients::open(&request, plan.sizes.0, STREAMS_PER_CONNECTION).await;
    let before = reading(server, plan.wait).await;
    let second = Http2Clients::open(&request, plan.sizes.1 - plan.sizes.0, STREAMS_PER_CONNECTION).await;
    let after = reading(server, plan.wait).await;
    drop((first, second));
    row(table, &format!("{name}, HTTP/2, {STREAMS_PER_CONNECTION} per connection"), before, after, plan);
}

/// Private memory of a server and memory of the kernel, in KiB.
async fn reading(server: &Server, wait: Duration) -> [f64; 2] {
    settled_cpu(server.pid).await;
    tokio::time::sleep(wait).await;
    let (slab, buffers) = kernel();
    [private(server.pid), slab + buffers]
}

fn row(table: &mut Table, name: &str, before: [f64; 2], after: [f64; 2], plan: &Plan) {
    let [own, kernel] = [0, 1].map(|index| number(plan.per_stream(after[index] - before[index]), 1));
    table.row(&[&name, &own, &kernel]);
}
