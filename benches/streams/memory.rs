//! The memory of an idle stream.

use crate::common::clients::{Clients, StreamRequest};
use crate::common::machine::{Machine, resident, settled_cpu};
use crate::common::servers::{self, Server};

const STREAMS: usize = 10_000;
/// More than the files that a server has open in addition to its streams.
const OTHER_FILES: usize = 500;
/// Streams that are opened and closed before the first measurement.
const WARM_UP_STREAMS: usize = 200;

pub async fn measure(machine: &Machine) {
    println!("\n### An idle stream\n");
    let streams = STREAMS.min(machine.files.saturating_sub(OTHER_FILES));
    if streams < STREAMS {
        println!("{} files may be open (`ulimit -Hn`): {streams} streams, not {STREAMS}\n", machine.files);
    }
    let Some((redis, _connection)) = servers::redis().await else { return };
    println!("| | resident KiB per stream, of {streams} |\n| --- | ---: |");
    let tidegate = servers::tidegate(machine, &redis, &[], "");
    measure_server("Tidegate", &tidegate, &servers::realtime_request(&tidegate, "alice-idle"), streams).await;
    drop(tidegate);
    if let Some(nchan) = servers::nchan(machine, None).await {
        measure_server("nchan", &nchan, &servers::nchan_request(&nchan, "open"), streams).await;
    }
    if let Some(node) = servers::node(machine, &redis) {
        measure_server("`handle()` on Node", &node, &servers::realtime_request(&node, "alice-idle"), streams).await;
    }
}

async fn measure_server(name: &str, server: &Server, request: &StreamRequest, streams: usize) {
    drop(Clients::open(request, WARM_UP_STREAMS).await);
    settled_cpu(server.pid).await;
    let before = resident(server.pid);
    let clients = Clients::open(request, streams).await;
    settled_cpu(server.pid).await;
    let after = resident(server.pid);
    drop(clients);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let kib_per_stream = (after - before) / streams as f64;
    println!("| {name} | {kib_per_stream:.1} |");
}
