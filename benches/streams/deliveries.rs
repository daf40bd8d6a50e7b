//! The cost of delivering one event to one of many streams.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::baseline;
use crate::common::clients::{Clients, StreamRequest, histogram};
use crate::common::emit::Emitter;
use crate::common::machine::{Machine, cpu, settled_cpu};
use crate::common::options::Options;
use crate::common::peers::{self, Peer};
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Server};
use crate::common::{median, micros};

pub const EVENTS_PER_SECOND: u32 = 40;
/// Events that are emitted at once.
pub const BURST_EVENTS: usize = 20;
const BURSTS: usize = 3;
const TIDEGATE: &str = "alice-tidegate";
const NODE: &str = "alice-node";
const FLOOR: &str = "a loop of `writev`, the floor";

/// The size of a round.
#[derive(Clone, Copy)]
pub struct Size {
    pub streams: usize,
    /// Events that are emitted one after the other.
    pub events: usize,
    pub rounds: usize,
}

impl Size {
    pub fn new(options: &Options) -> Self {
        // One more round than the median has: the first one warms up.
        let (streams, events, rounds) = options.pick((1_000, 60, 10), (100, 20, 3));
        Self { streams: options.limit(streams), events, rounds }
    }
}

pub struct Contender {
    pub name: String,
    pub server: Server,
    request: StreamRequest,
    emitter: Emitter,
    pub even: Vec<f64>,
    pub bursts: Vec<f64>,
    busy: Vec<f64>,
    latencies: Histogram<u64>,
}

impl Contender {
    pub fn new(name: &str, server: Server, request: StreamRequest, emitter: Emitter) -> Self {
        let (even, bursts, busy, latencies) = (Vec::new(), Vec::new(), Vec::new(), histogram());
        Self { name: name.into(), server, request, emitter, even, bursts, busy, latencies }
    }

    /// Runs a round, and returns the bytes of one delivery. The first round warms up and is not recorded.
    pub async fn run_round(&mut self, size: Size, is_recorded: bool) -> usize {
        let Size { streams, events, .. } = size;
        if let Emitter::Baseline { connection, .. } = &mut self.emitter {
            connection.write_all(format!("open {streams}\n").as_bytes()).await.expect("the baseline reads");
        }
        let mut clients = Clients::open(&self.request, streams).await;
        if let Emitter::Baseline { connection, .. } = &mut self.emitter {
            connection.read_u8().await.expect("the baseline answers");
        }
        self.emitter.connect().await;
        settled_cpu(self.server.pid).await;
        let (before, started_at) = (cpu(self.server.pid), Instant::now());
        let bytes = clients.bytes();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / EVENTS_PER_SECOND);
        for _ in 0..events {
            ticks.tick().await;
            self.emitter.emit(&clients, 1).await;
        }
        clients.wait_all_received().await;
        let elapsed = started_at.elapsed();
        let used = settled_cpu(self.server.pid).await - before;
        let latencies = clients.take_latencies();
        let even = micros(used, events * streams);
        let bytes = usize::try_from(clients.bytes() - bytes).expect("it is small") / (events * streams);
        let before = cpu(self.server.pid);
        for _ in 0..BURSTS {
            self.emitter.emit(&clients, BURST_EVENTS).await;
            clients.wait_all_received().await;
        }
        let bursts = micros(settled_cpu(self.server.pid).await - before, BURST_EVENTS * BURSTS * streams);
        drop(clients);
        if let Emitter::Baseline { connection, .. } = &mut self.emitter {
            connection.write_all(b"close\n").await.expect("the baseline reads");
        }
        settled_cpu(self.server.pid).await;
        if is_recorded {
            self.even.push(even);
            self.bursts.push(bursts);
            self.busy.push(used.as_secs_f64() / elapsed.as_secs_f64());
            self.latencies.add(latencies).expect("the same bounds");
        }
        bytes
    }

    /// The median and the 99th percentile from an emission to a delivery, in ms.
    pub fn latencies(&self) -> String {
        let latency = |quantile| Duration::from_micros(self.latencies.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        format!("{:.1} / {:.1}", latency(0.5), latency(0.99))
    }

    /// The share of a core that the server used while events were emitted one after the other, in percent.
    pub fn busy(&self) -> f64 {
        median(self.busy.clone()) * 100.0
    }
}

/// Tidegate as a contender.
pub fn tidegate(
    name: &str,
    machine: &Machine,
    redis: &Server,
    connection: redis::aio::MultiplexedConnection,
) -> Contender {
    let server = servers::tidegate(machine, redis, &[], "");
    let request = servers::realtime_request(&server, TIDEGATE);
    Contender::new(name, server, request, Emitter::Redis { connection, channel: TIDEGATE })
}

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let Some((redis, connection)) = servers::redis().await else { return };
    let mut contenders = vec![tidegate("Tidegate", machine, &redis, connection.clone())];
    let floor = servers::baseline(machine);
    let controller = TcpStream::connect(floor.address).await.expect("a connection");
    let request = StreamRequest::bare(floor.address, baseline::OPEN);
    contenders.push(Contender::new(FLOOR, floor, request, Emitter::Baseline { connection: controller, size: 0 }));
    if options.has_peers {
        for peer in Peer::all(machine).await {
            let emitter = peer.emitter();
            contenders.push(Contender::new(peer.name, peer.server, peer.request, emitter));
        }
        if let Some(node) = peers::node(machine, &redis) {
            let request = servers::realtime_request(&node, NODE);
            contenders.push(Contender::new(
                "`handle()` on Node",
                node,
                request,
                Emitter::Redis { connection, channel: NODE },
            ));
        }
    }
    let size = Size::new(options);
    let mut bytes = 0;
    for round in 0..size.rounds {
        for contender in &mut contenders {
            // The baseline sends as many bytes as Tidegate.
            if let Emitter::Baseline { size, .. } = &mut contender.emitter {
                *size = bytes;
            }
            let started_at = Instant::now();
            let sent = contender.run_round(size, round > 0).await;
            eprintln!("round {round} of {}: {} took {:.1?}", size.rounds - 1, contender.name, started_at.elapsed());
            if contender.name == "Tidegate" {
                bytes = sent;
            }
        }
    }
    add_table(report, &contenders, size, bytes);
}

fn add_table(report: &Report, contenders: &[Contender], size: Size, bytes: usize) {
    let mut table = Table::new(
        format!("A delivery, {} streams on one channel", size.streams),
        &[
            "",
            &format!("µs CPU, {EVENTS_PER_SECOND} events/s"),
            "ratio to the floor",
            "ratio to nchan",
            &format!("µs CPU, bursts of {BURST_EVENTS}"),
            "ratio to the floor",
            "ms p50 / p99",
            "% of the core",
        ],
    );
    let median_of = |name: &str, of: fn(&Contender) -> &Vec<f64>| {
        contenders.iter().find(|contender| contender.name == name).map_or(f64::NAN, |found| median(of(found).clone()))
    };
    for contender in contenders {
        let (even, bursts) = (median(contender.even.clone()), median(contender.bursts.clone()));
        table.row(&[
            &contender.name,
            &number(even, 2),
            &number(even / median_of(FLOOR, |contender| &contender.even), 2),
            &number(even / median_of("nchan", |contender| &contender.even), 2),
            &number(bursts, 2),
            &number(bursts / median_of(FLOOR, |contender| &contender.bursts), 2),
            &contender.latencies(),
            &number(contender.busy(), 0),
        ]);
    }
    table.note(format!(
        "Medians of {} turns. A delivery of Tidegate and of the floor has {bytes} bytes. The floor is one thread that writes the same bytes to \
         the same sockets: the head of a chunk, the shared bytes and the end as slices of one `writev` for each socket; a burst, too, is one \
         `writev` for each socket. The time is from the emission to the delivery to each client: the last of {} waits for all others.",
        size.rounds - 1,
        size.streams
    ));
    report.add("deliveries", &table);
}
