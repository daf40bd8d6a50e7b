//! An account of the memory of an idle stream: the allocations that one more stream keeps, by size class.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::allocator_stats::{self, AllocatorStats};
use crate::common::clients::Clients;
use crate::common::http2::Http2Clients;
use crate::common::machine::{Machine, private, settled_cpu};
use crate::common::options::Options;
use crate::common::report::{Report, Table, number};
use crate::common::servers::{self, Gateway, Server};

const CHANNEL: &str = "alice-account";
/// Size classes with fewer bytes per stream are one row.
const MIN_BYTES: f64 = 64.0;

/// A reading of the allocator and of the process.
struct Reading {
    stats: AllocatorStats,
    private: f64,
}

enum Streams {
    Http1(Clients),
    Http2(Http2Clients),
}

pub async fn measure(machine: &Machine, options: &Options, report: &Report) {
    let Some((redis, _connection)) = servers::redis().await else { return };
    for (name, is_http2) in [("account", false), ("account-http2", true)] {
        measure_protocol(machine, options, report, &redis, name, is_http2).await;
    }
}

async fn measure_protocol(
    machine: &Machine,
    options: &Options,
    report: &Report,
    redis: &Server,
    name: &str,
    is_http2: bool,
) {
    let sizes = options.pick((1_000, 5_000), (100, 500));
    let server = Gateway { lines: "log.filter = \"warn\"", reports_allocator: true, ..Gateway::default() };
    let server = server.start(machine, redis);
    let first = open(&server, sizes.0, is_http2).await;
    let before = read(&server, options).await;
    let second = open(&server, sizes.1 - sizes.0, is_http2).await;
    let after = read(&server, options).await;
    for streams in [first, second] {
        match streams {
            Streams::Http1(clients) => drop(clients),
            Streams::Http2(clients) => drop(clients),
        }
    }
    let protocol = if is_http2 { "HTTP/2, 100 per connection" } else { "HTTP/1.1" };
    let title = format!("Allocations of an idle stream, {protocol}");
    let mut table = Table::new(title, &["", "allocations per stream", "bytes per stream"]);
    add_rows(&mut table, &before, &after, sizes.1 - sizes.0);
    table.note(format!(
        "The difference between {} and {} streams, from jemalloc's own statistics of the program. A size class is the size of an allocation \
         that was rounded up. Classes below {MIN_BYTES} bytes per stream are one row.",
        sizes.0, sizes.1
    ));
    report.add(name, &table);
}

async fn open(server: &Server, count: usize, is_http2: bool) -> Streams {
    let request = servers::realtime_request(server, CHANNEL);
    if is_http2 {
        Streams::Http2(Http2Clients::open(&request, count, 100).await)
    } else {
        Streams::Http1(Clients::open(&request, count).await)
    }
}

async fn read(server: &Server, options: &Options) -> Reading {
    settled_cpu(server.pid).await;
    tokio::time::sleep(options.memory_wait()).await;
    let private = private(server.pid);
    let stats = allocator_report(server.control.expect("a control port"), &server.log()).await;
    Reading { stats, private }
}

/// Lets the server allocate until the allocator reports.
async fn allocator_report(control: std::net::SocketAddr, log: &Path) -> AllocatorStats {
    let (reports, start) = (allocator_stats::count(log), Instant::now());
    let mut socket = TcpStream::connect(control).await.expect("a connection");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {control}\r\n\r\n");
    while allocator_stats::count(log) == reports {
        assert!(start.elapsed() < Duration::from_secs(60), "the allocator reports; `TIDEGATE_BIN` has jemalloc");
        for _ in 0..20 {
            socket.write_all(request.as_bytes()).await.expect("the server reads");
            let mut response = Vec::new();
            while !is_complete(&response) {
                assert_ne!(socket.read_buf(&mut response).await.expect("a response"), 0);
            }
        }
    }
    // The report may still be incomplete.
    tokio::time::sleep(Duration::from_millis(200)).await;
    allocator_stats::last(log).expect("a report")
}

/// Whether a response with a `Content-Length` is complete.
fn is_complete(response: &[u8]) -> bool {
    let text = String::from_utf8_lossy(response);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

#[expect(clippy::cast_precision_loss, reason = "sizes and numbers are small")]
fn add_rows(table: &mut Table, before: &Reading, after: &Reading, streams: usize) {
    let streams = streams as f64;
    let mut rows: Vec<(u64, f64)> = after
        .stats
        .classes
        .iter()
        .map(|(size, count)| (*size, (count - before.stats.classes.get(size).unwrap_or(&0.0)) / streams))
        .collect();
    rows.sort_by(|(a, a_count), (b, b_count)| (*b as f64 * b_count).total_cmp(&(*a as f64 * a_count)));
    let (mut others, mut others_count) = (0.0, 0.0);
    for (size, count) in rows {
        let bytes = size as f64 * count;
        if bytes < MIN_BYTES {
            others += bytes;
            others_count += count;
        } else {
            table.row(&[&format!("size class {size}"), &number(count, 2), &number(bytes, 0)]);
        }
    }
    table.row(&[&"other classes", &number(others_count, 2), &number(others, 0)]);
    let difference = |value: fn(&Reading) -> f64| (value(after) - value(before)) / streams;
    let allocated = difference(|reading| reading.stats.allocated());
    let active = difference(|reading| reading.stats.active);
    let metadata = difference(|reading| reading.stats.metadata);
    let private = difference(|reading| reading.private * 1024.0);
    table.row(&[&"all allocations", &"", &number(allocated, 0)]);
    table.row(&[&"unused parts of the allocator's pages", &"", &number(active - allocated, 0)]);
    table.row(&[&"the allocator's data", &"", &number(metadata, 0)]);
    table.row(&[
        &"free pages, stacks and others, less pages that were never written",
        &"",
        &number(private - active - metadata, 0),
    ]);
    table.row(&[&"private memory", &"", &number(private, 0)]);
}
