//! A gateway whose fleet's keys have no master, or none that is proved: it says so, its streams stay open, and nothing is delivered.

use redis::cmd;
use serde_json::{Value, json};

use crate::client::{Sse, Wire};
use crate::control_port::{metric, send_request};
use crate::processes::{Gateway, wait_until, with_timeout};
use crate::redis_cluster::RedisCluster;
use crate::redis_sentinel::{GroupOptions, SentinelGroup};
use crate::redis_server::DURABLE;

const COMMANDS: &str = "tidegate:{default}:commands";

async fn start(store: &str) -> Gateway {
    Gateway::start(&format!(
        "store = \"{store}\"\nallow-all = true\nfleet.fence = \"2s\"\nstream.ping-interval = \"1s\""
    ))
    .await
}

async fn readiness(gateway: &Gateway) -> (u16, Value) {
    let (status, answer) = send_request(gateway.control, "GET", "/readyz", "", b"").await;
    (status, answer["store"].clone())
}

async fn wait_for_readiness(gateway: &Gateway, status: u16, stores: &[&str]) {
    let mut last = (0, Value::Null);
    wait_until(&format!("the store is {stores:?}"), async || {
        last = readiness(gateway).await;
        last.0 == status && stores.iter().any(|store| last.1 == *store)
    })
    .await;
    assert_eq!(metric(gateway.control, "tidegate_ready").await, if status == 200 { 1.0 } else { 0.0 });
}

async fn emit_at(node: &mut redis::aio::MultiplexedConnection, channel: &str, data: u64) {
    let mut add = cmd("XADD");
    add.arg(channel).arg("*").arg(&["data", &data.to_string(), "event", "e", "channel", channel]);
    let id: String = add.query_async(node).await.expect("added");
    let message = json!({ "data": data, "event": "e", "channel": channel, "id": id }).to_string();
    cmd("PUBLISH").arg(channel).arg(message).exec_async(node).await.expect("published");
}

/// The blocks of a stream, until this many pings came.
async fn blocks_until_pings(wire: &mut Wire, pings: usize) -> Vec<Value> {
    let (mut blocks, mut seen) = (Vec::new(), 0);
    with_timeout("pings of a stream", async {
        while seen < pings {
            wire.read_more(64 << 10).await.expect("the stream stays open");
            wire.blocks(|block| {
                if !block.data.is_empty() {
                    let frame: Value = serde_json::from_str(block.data).expect("JSON");
                    seen += usize::from(frame["type"] == "ping");
                    blocks.push(frame);
                }
            });
        }
    })
    .await;
    blocks
}

/// While there is no master, pings come and no event does.
async fn assert_only_pings(gateway: &Gateway, wire: &mut Wire) {
    let frames = blocks_until_pings(wire, 3).await;
    assert!(!frames.iter().any(|frame| frame["event"].is_string()), "{frames:?}");
    assert_eq!(readiness(gateway).await.0, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_without_a_master_of_the_fleets_keys_pauses_all_channels() {
    // The other masters serve their slots meanwhile.
    let mut cluster = RedisCluster::start(&["--cluster-require-full-coverage", "no"]).await;
    let gateway = start(&cluster.url()).await;
    let master = cluster.master_of(COMMANDS).await;
    let mut channel = String::new();
    for number in 0.. {
        channel = format!("news-{number}");
        if cluster.master_of(&channel).await != master {
            break;
        }
    }
    let mut wire =
        Wire::get(gateway.data, &format!("/api/realtime?channel={channel}"), None, None).await.expect("an answer");
    let mut stream = Sse::open(gateway.data, &format!("channel={channel}")).await;
    stream.connected(&channel).await;
    wait_for_readiness(&gateway, 200, &["ok"]).await;
    emit_at(&mut cluster.connect_to(&channel).await, &channel, 1).await;
    assert_eq!(stream.data().await, 1);
    blocks_until_pings(&mut wire, 1).await;

    // The replica dies first, so that none can take over.
    let mut other = cluster.connect_to(&channel).await;
    cluster.nodes[master + 3].kill().await;
    cluster.nodes[master].kill().await;
    wait_for_readiness(&gateway, 503, &["unavailable", "unproven", "unsynced"]).await;
    emit_at(&mut other, &channel, 2).await;
    assert_only_pings(&gateway, &mut wire).await;
    assert_eq!(metric(gateway.control, "tidegate_fleet_commands_synced").await, 0.0);
    gateway.process.stderr.wait_for_text("event delivery is paused").await;

    cluster.nodes[master].restart().await;
    cluster.nodes[master + 3].restart().await;
    cluster.wait_until_up().await;
    wait_for_readiness(&gateway, 200, &["ok"]).await;
    emit_at(&mut cluster.connect_to(&channel).await, &channel, 3).await;
    assert_eq!((stream.data().await, stream.data().await), (2.into(), 3.into()));
    gateway.process.stderr.wait_for_text("event delivery continues").await;
    assert_eq!(metric(gateway.control, "tidegate_fleet_commands_synced").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn master_that_no_sentinel_confirms_delivers_nothing() {
    let mut group = SentinelGroup::with(GroupOptions { node_args: DURABLE, ..GroupOptions::default() }).await;
    let gateway = start(&group.url()).await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    let mut wire = Wire::get(gateway.data, "/api/realtime?channel=news", None, None).await.expect("an answer");
    wait_for_readiness(&gateway, 200, &["ok"]).await;
    let master = group.master().await;
    emit_at(&mut group.nodes[master].connect().await, "news", 1).await;
    assert_eq!(stream.data().await, 1);
    blocks_until_pings(&mut wire, 1).await;

    // The master still answers, and may be an old one.
    for sentinel in &mut group.sentinels {
        sentinel.kill().await;
    }
    wait_for_readiness(&gateway, 503, &["unproven"]).await;
    assert_eq!(metric(gateway.control, "tidegate_store_master_proven").await, 0.0);
    gateway.process.stderr.wait_for_text("no proof that it reads from the store's current master").await;
    emit_at(&mut group.nodes[master].connect().await, "news", 2).await;
    assert_only_pings(&gateway, &mut wire).await;
    for sentinel in &mut group.sentinels {
        sentinel.restart().await;
    }
    assert_eq!(stream.data().await, 2);
    let mut frames = Vec::new();
    while !frames.iter().any(|frame: &Value| frame["data"] == 2) {
        frames = blocks_until_pings(&mut wire, 1).await;
    }
    wait_for_readiness(&gateway, 200, &["ok"]).await;
    gateway.process.stderr.wait_for_text("event delivery continues").await;

    // No node is left that could be the master.
    for node in &mut group.nodes {
        node.kill().await;
    }
    wait_for_readiness(&gateway, 503, &["unavailable"]).await;
    assert_only_pings(&gateway, &mut wire).await;
    group.nodes[master].restart().await;
    wait_for_readiness(&gateway, 200, &["ok"]).await;
    emit_at(&mut group.nodes[master].connect().await, "news", 3).await;
    assert_eq!(stream.data().await, 3);
}
