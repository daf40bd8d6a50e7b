//! The memory of an idle stream.

use super::crowd::{Crowd, StreamRequest};
use super::machine::{Machine, resident, settled_cpu};
use super::servers::{self, Server};

const STREAMS: usize = 10_000;
/// More files than a server has open apart from its streams.
const OTHER_FILES: usize = 500;
/// Streams that are opened and closed before the first measurement.
const FIRST: usize = 200;

pub async fn measure(machine: &Machine) {
    println!("\n### An idle stream\n");
    let streams = STREAMS.min(machine.files.saturating_sub(OTHER_FILES));
    if streams < STREAMS {
        println!("{} files may be open (`ulimit -Hn`): {streams} streams, not {STREAMS}\n", machine.files);
    }
    let Some((redis, _connection)) = servers::redis().await else { return };
    println!("| | KiB resident a stream, of {streams} |\n| --- | ---: |");
    let tidegate = servers::tidegate(machine, &redis, &[], "");
    one("Tidegate", &tidegate, &servers::realtime(&tidegate, "alice-idle"), streams).await;
    drop(tidegate);
    if let Some(nchan) = servers::nchan(machine, None).await {
        one("nchan", &nchan, &servers::of_nchan(&nchan, "open"), streams).await;
    }
    if let Some(node) = servers::node(machine, &redis) {
        one("`handle()` on Node", &node, &servers::realtime(&node, "alice-idle"), streams).await;
    }
}

async fn one(name: &str, server: &Server, request: &StreamRequest, streams: usize) {
    drop(Crowd::open(request, FIRST).await);
    settled_cpu(server.pid).await;
    let before = resident(server.pid);
    let crowd = Crowd::open(request, streams).await;
    settled_cpu(server.pid).await;
    let after = resident(server.pid);
    drop(crowd);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let each = (after - before) / streams as f64;
    println!("| {name} | {each:.1} |");
}
