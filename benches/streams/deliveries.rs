//! The cost of delivering one event to one of many streams.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::clients::{Clients, StreamRequest, histogram};
use crate::common::emit::Emitter;
use crate::common::machine::{Machine, cpu, settled_cpu};
use crate::common::median;
use crate::common::servers::{self, Server};

const STREAMS: usize = 1000;
/// Events that are emitted one after the other.
const EVENTS: usize = 60;
const EVENTS_PER_SECOND: u32 = 40;
/// Events that are emitted at once.
const BURST_EVENTS: usize = 20;
const BURSTS: usize = 3;
const ROUNDS: usize = 5;
const TIDEGATE: &str = "alice-tidegate";
const NODE: &str = "alice-node";

struct Contender {
    name: &'static str,
    server: Server,
    request: StreamRequest,
    emitter: Emitter,
    even: Vec<f64>,
    bursts: Vec<f64>,
    busy: Vec<f64>,
    latencies: Histogram<u64>,
}

impl Contender {
    fn new(name: &'static str, server: Server, request: StreamRequest, emitter: Emitter) -> Self {
        let (even, bursts, busy, latencies) = (Vec::new(), Vec::new(), Vec::new(), histogram());
        Self { name, server, request, emitter, even, bursts, busy, latencies }
    }

    /// Runs a round, and returns the bytes of one delivery. The first round warms up and is not recorded.
    async fn run_round(&mut self, is_recorded: bool) -> usize {
        if let Emitter::Baseline { connection, .. } = &mut self.emitter {
            connection.write_all(format!("open {STREAMS}\n").as_bytes()).await.expect("the baseline reads");
        }
        let mut clients = Clients::open(&self.request, STREAMS).await;
        if let Emitter::Baseline { connection, .. } = &mut self.emitter {
            connection.read_u8().await.expect("the baseline answers");
        }
        settled_cpu(self.server.pid).await;
        let (before, started_at) = (cpu(self.server.pid), Instant::now());
        let bytes = clients.bytes();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / EVENTS_PER_SECOND);
        for _ in 0..EVENTS {
            ticks.tick().await;
            self.emitter.emit(&clients, 1).await;
        }
        clients.wait_all_received().await;
        let elapsed = started_at.elapsed();
        let used = settled_cpu(self.server.pid).await - before;
        let latencies = clients.take_latencies();
        let even = micros(used, EVENTS);
        let size = usize::try_from(clients.bytes() - bytes).expect("it is small") / (EVENTS * STREAMS);
        let before = cpu(self.server.pid);
        for _ in 0..BURSTS {
            self.emitter.emit(&clients, BURST_EVENTS).await;
            clients.wait_all_received().await;
        }
        let bursts = micros(settled_cpu(self.server.pid).await - before, BURST_EVENTS * BURSTS);
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
    let mut contenders = Vec::new();
    let tidegate = servers::tidegate(machine, &redis, &[], "");
    let request = servers::realtime_request(&tidegate, TIDEGATE);
    let emitter = Emitter::Redis { connection: connection.clone(), channel: TIDEGATE };
    contenders.push(Contender::new("Tidegate", tidegate, request, emitter));
    let baseline = servers::baseline(machine);
    let controller = TcpStream::connect(baseline.address).await.expect("a connection");
    let request = StreamRequest::bare(baseline.address);
    contenders.push(Contender::new(
        "a bare loop of `write`, the baseline",
        baseline,
        request,
        Emitter::Baseline { connection: controller, size: 0 },
    ));
    if let Some(nchan) = servers::nchan(machine, None).await {
        let request = servers::nchan_request(&nchan, "open");
        let emitter = Emitter::post(nchan.address, "/publish?channel=fox").await;
        contenders.push(Contender::new("nchan, without Redis", nchan, request, emitter));
    }
    if let Some(node) = servers::node(machine, &redis) {
        let request = servers::realtime_request(&node, NODE);
        contenders.push(Contender::new(
            "`handle()` on Node",
            node,
            request,
            Emitter::Redis { connection, channel: NODE },
        ));
    }
    let mut size = 0;
    for round in 0..ROUNDS {
        for contender in &mut contenders {
            // The baseline sends as many bytes as Tidegate.
            if let Emitter::Baseline { size: bytes, .. } = &mut contender.emitter {
                *bytes = size;
            }
            let started_at = Instant::now();
            let sent = contender.run_round(round > 0).await;
            eprintln!("round {round} of {}: {} took {:.1?}", ROUNDS - 1, contender.name, started_at.elapsed());
            if contender.name == "Tidegate" {
                size = sent;
            }
        }
    }
    print(&contenders, size);
}

fn print(contenders: &[Contender], size: usize) {
    println!(
        "| | µs CPU, {EVENTS_PER_SECOND} events/s | ratio to the baseline | µs CPU, bursts of {BURST_EVENTS} | ratio to the baseline | latency p50 / p99 | core |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let baseline = |of: fn(&Contender) -> &Vec<f64>| median(of(&contenders[1]).clone());
    for contender in contenders {
        let (even, bursts) = (median(contender.even.clone()), median(contender.bursts.clone()));
        let latency = |quantile| {
            std::time::Duration::from_micros(contender.latencies.value_at_quantile(quantile)).as_secs_f64() * 1e3
        };
        println!(
            "| {} | {even:.1} | {:.2} | {bursts:.1} | {:.2} | {:.1} ms / {:.1} ms | {:.0} % |",
            contender.name,
            even / baseline(|contender| &contender.even),
            bursts / baseline(|contender| &contender.bursts),
            latency(0.5),
            latency(0.99),
            median(contender.busy.clone()) * 100.0,
        );
    }
    println!(
        "\n{size} bytes per delivery. The latency is the time from the emission to the delivery to each client: the last of {STREAMS} waits for all others."
    );
}
