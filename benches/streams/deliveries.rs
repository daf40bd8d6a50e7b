//! The cost of delivering one event to one stream of many.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::crowd::{Crowd, StreamRequest, histogram};
use super::emit::Emitter;
use super::machine::{Machine, cpu, settled_cpu};
use super::median;
use super::servers::{self, Server};

const STREAMS: usize = 1000;
/// Steady load: events a second, and number of events.
const EVEN: (u32, usize) = (40, 60);
/// Bursts: events in a burst, and number of bursts.
const BURSTS: (usize, usize) = (20, 3);
const ROUNDS: usize = 5;
const TIDEGATE: &str = "alice-tidegate";
const NODE: &str = "alice-node";

struct Side {
    name: &'static str,
    server: Server,
    request: StreamRequest,
    emitter: Emitter,
    even: Vec<f64>,
    bursts: Vec<f64>,
    busy: Vec<f64>,
    latencies: Histogram<u64>,
}

impl Side {
    fn new(name: &'static str, server: Server, request: StreamRequest, emitter: Emitter) -> Self {
        let (even, bursts, busy, latencies) = (Vec::new(), Vec::new(), Vec::new(), histogram());
        Self { name, server, request, emitter, even, bursts, busy, latencies }
    }

    /// Runs one turn. Returns the bytes of one delivery.
    async fn turn(&mut self, counts: bool) -> usize {
        if let Emitter::Baseline { connection, .. } = &mut self.emitter {
            connection.write_all(format!("open {STREAMS}\n").as_bytes()).await.expect("the baseline reads");
        }
        let mut crowd = Crowd::open(&self.request, STREAMS).await;
        if let Emitter::Baseline { connection, .. } = &mut self.emitter {
            connection.read_u8().await.expect("the baseline answers");
        }
        settled_cpu(self.server.pid).await;
        let (before, began) = (cpu(self.server.pid), Instant::now());
        let bytes = crowd.bytes();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / EVEN.0);
        for _ in 0..EVEN.1 {
            ticks.tick().await;
            self.emitter.emit(&crowd, 1).await;
        }
        crowd.has_all().await;
        let wall = began.elapsed();
        let used = settled_cpu(self.server.pid).await - before;
        let latencies = crowd.take_latencies();
        let even = micros(used, EVEN.1);
        let size = usize::try_from(crowd.bytes() - bytes).expect("it is small") / (EVEN.1 * STREAMS);
        let before = cpu(self.server.pid);
        for _ in 0..BURSTS.1 {
            self.emitter.emit(&crowd, BURSTS.0).await;
            crowd.has_all().await;
        }
        let bursts = micros(settled_cpu(self.server.pid).await - before, BURSTS.0 * BURSTS.1);
        drop(crowd);
        if let Emitter::Baseline { connection, .. } = &mut self.emitter {
            connection.write_all(b"close\n").await.expect("the baseline reads");
        }
        settled_cpu(self.server.pid).await;
        if counts {
            self.even.push(even);
            self.bursts.push(bursts);
            self.busy.push(used.as_secs_f64() / wall.as_secs_f64());
            self.latencies.add(latencies).expect("the same bounds");
        }
        size
    }
}

#[expect(clippy::cast_precision_loss, reason = "some thousands")]
fn micros(used: Duration, events: usize) -> f64 {
    used.as_secs_f64() * 1e6 / (events * STREAMS) as f64
}

pub async fn measure(machine: &Machine) {
    println!("\n### A delivery, {STREAMS} streams on one channel\n");
    let Some((redis, connection)) = servers::redis().await else { return };
    let mut sides = Vec::new();
    let tidegate = servers::tidegate(machine, &redis, &[], "");
    let request = servers::realtime(&tidegate, TIDEGATE);
    let emitter = Emitter::Redis { connection: connection.clone(), channel: TIDEGATE };
    sides.push(Side::new("Tidegate", tidegate, request, emitter));
    let baseline = servers::baseline(machine);
    let control = TcpStream::connect(baseline.address).await.expect("a connection");
    let request = StreamRequest::bare(baseline.address);
    sides.push(Side::new(
        "a bare loop of `write`, the baseline",
        baseline,
        request,
        Emitter::Baseline { connection: control, size: 0 },
    ));
    if let Some(nchan) = servers::nchan(machine, None).await {
        let request = servers::of_nchan(&nchan, "open");
        let emitter = Emitter::post(nchan.address, "/publish?channel=fox").await;
        sides.push(Side::new("nchan, without Redis", nchan, request, emitter));
    }
    if let Some(node) = servers::node(machine, &redis) {
        let request = servers::realtime(&node, NODE);
        sides.push(Side::new("`handle()` on Node", node, request, Emitter::Redis { connection, channel: NODE }));
    }
    let mut size = 0;
    for round in 0..ROUNDS {
        for side in &mut sides {
            // The baseline sends as many bytes as Tidegate.
            if let Emitter::Baseline { size: bytes, .. } = &mut side.emitter {
                *bytes = size;
            }
            // The first round is a warm-up.
            let began = Instant::now();
            let sent = side.turn(round > 0).await;
            eprintln!("round {round} of {}: {} took {:.1?}", ROUNDS - 1, side.name, began.elapsed());
            if side.name == "Tidegate" {
                size = sent;
            }
        }
    }
    print(&sides, size);
}

fn print(sides: &[Side], size: usize) {
    println!(
        "| | µs CPU, {} a second | to the baseline | µs CPU, {} at once | to the baseline | latency p50 / p99 | core |",
        EVEN.0, BURSTS.0
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let baseline = |of: fn(&Side) -> &Vec<f64>| median(of(&sides[1]).clone());
    for side in sides {
        let (even, bursts) = (median(side.even.clone()), median(side.bursts.clone()));
        let latency =
            |quantile| std::time::Duration::from_micros(side.latencies.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        println!(
            "| {} | {even:.1} | {:.2} | {bursts:.1} | {:.2} | {:.1} ms / {:.1} ms | {:.0} % |",
            side.name,
            even / baseline(|side| &side.even),
            bursts / baseline(|side| &side.bursts),
            latency(0.5),
            latency(0.99),
            median(side.busy.clone()) * 100.0,
        );
    }
    println!(
        "\n{size} bytes a delivery. The latency is from emitting to each client: the last of {STREAMS} waits for all others."
    );
}
