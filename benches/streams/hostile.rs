//! How long an open takes next to requests for which the policy spins, waits or allocates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::clients::{StreamRequest, histogram, open_at_rate};
use crate::common::machine::{Machine, settled_cpu};
use crate::common::options::Options;
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Gateway, Server};
use crate::guests;

/// Channels for which `mixed.wat` is hostile.
const HOSTILE: [&str; 3] = ["spin", "wait", "memory"];
/// Hostile connections of each kind. Each sends its next request when it has the answer to the last one.
const CONNECTIONS: usize = 4;
/// Honest opens.
const OPENS_PER_SECOND: u32 = 200;

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let Some((redis, _connection)) = servers::redis().await else { return };
    let (opens, rounds) = options.pick((1_000, 6), (100, 3));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("policy.wasm");
    std::fs::write(&file, guests::component("mixed")).expect("the policy is written");
    let lines = "log.filter = \"error\"";
    let gateway = Gateway { lines, policy: Some((&file, "")), ..Gateway::default() };
    let server = gateway.start(machine, &redis);
    let requests: Vec<StreamRequest> =
        (0..50).map(|number| servers::realtime_request(&server, &format!("calm-{number}"))).collect();
    let (mut quiet, mut hostile, mut answers) = (histogram(), histogram(), 0);
    let mut ratios = Vec::new();
    for round in 0..rounds {
        // The work that the last turn left is done.
        settled_cpu(server.pid).await;
        let alone = open_at_rate(&requests, opens, OPENS_PER_SECOND).await;
        let (together, answered) = open_next_to_attack(&server, &requests, opens).await;
        // The first round warms up.
        if round > 0 {
            ratios.push(p99(&together) / p99(&alone));
            quiet.add(alone).expect("the same bounds");
            hostile.add(together).expect("the same bounds");
            answers += answered;
        }
    }
    let title = format!("An open next to hostile requests, {opens} opens at {OPENS_PER_SECOND} per second");
    let mut table = Table::new(title, &["", "ms p50", "ms p99", "ms at most"]);
    let ms = |micros: u64| number(Duration::from_micros(micros).as_secs_f64() * 1e3, 2);
    for (name, times) in [("quiet", &quiet), ("hostile", &hostile)] {
        let quantile = |quantile| ms(times.value_at_quantile(quantile));
        table.row(&[&name, &quantile(0.5), &quantile(0.99), &ms(times.max())]);
    }
    #[expect(clippy::cast_precision_loss, reason = "a time of some seconds")]
    let p50 = hostile.value_at_quantile(0.5) as f64 / quiet.value_at_quantile(0.5) as f64;
    table.row(&[&"ratio", &number(p50, 2), &number(p99(&hostile) / p99(&quiet), 2), &""]);
    table.note(format!(
        "{} turns of each kind in alternation; the median of the turns' ratios of the 99th percentiles is {}. {CONNECTIONS} connections each \
         request a decision that spins ({}), waits ({}) or allocates ({}), again and again, on the same core: {answers} of them were refused in all turns. \
         The limits of the policy are the defaults.",
        rounds - 1,
        number(crate::common::median(ratios), 2),
        HOSTILE[0],
        HOSTILE[1],
        HOSTILE[2],
    ));
    report.add("hostile", &table);
}

#[expect(clippy::cast_precision_loss, reason = "a time of some seconds")]
fn p99(times: &Histogram<u64>) -> f64 {
    times.value_at_quantile(0.99) as f64
}

/// Opens streams while hostile requests arrive. Returns the number of these requests, too.
async fn open_next_to_attack(server: &Server, requests: &[StreamRequest], opens: usize) -> (Histogram<u64>, usize) {
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut attacks = JoinSet::new();
    for channel in HOSTILE {
        for _ in 0..CONNECTIONS {
            attacks.spawn(attack(server.address, channel, Arc::clone(&stop), Arc::clone(&answers)));
        }
    }
    // Until decisions spin and wait.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let times = open_at_rate(requests, opens, OPENS_PER_SECOND).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = attacks.join_next().await {
        done.expect("each hostile request is refused");
    }
    (times, answers.load(Ordering::Relaxed))
}

async fn attack(to: std::net::SocketAddr, channel: &'static str, stop: Arc<AtomicBool>, answers: Arc<AtomicUsize>) {
    let request = format!("GET /api/realtime?channel={channel} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
    while !stop.load(Ordering::Relaxed) {
        let mut socket = TcpStream::connect(to).await.expect("a connection");
        socket.write_all(request.as_bytes()).await.expect("the server reads");
        let mut response = Vec::new();
        socket.read_to_end(&mut response).await.expect("a response");
        assert!(response.starts_with(b"HTTP/1.1 50"), "{}", String::from_utf8_lossy(&response));
        answers.fetch_add(1, Ordering::Relaxed);
    }
}
