//! A gateway on a Redis Cluster: events of all slots are delivered once and in order, whatever happens to nodes, slots and connections.

use std::collections::BTreeMap;

use redis::cmd;
use serde_json::json;
use tidegate::store::slot::slot_of;

use crate::client::{Sse, encoded};
use crate::control_port::{JSON, metric, send_request};
use crate::processes::{Gateway, reserved_port, run_tidegate, wait_until};
use crate::redis_cluster::{ClusterNode, RedisCluster};
use crate::redis_server::Redis;

/// A stream for each channel, and the data that it must deliver next.
struct Streams(BTreeMap<String, (Sse, Vec<u64>)>);

impl Streams {
    async fn open(gateway: &Gateway, channels: impl Iterator<Item = String>) -> Self {
        let mut streams = Self(BTreeMap::new());
        for channel in channels {
            streams.add(gateway, &channel).await;
        }
        streams
    }

    async fn add(&mut self, gateway: &Gateway, channel: &str) {
        let mut stream = Sse::open(gateway.data, &format!("channel={}", encoded(channel))).await;
        stream.connected(channel).await;
        self.0.insert(channel.to_owned(), (stream, Vec::new()));
    }

    fn channels(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn expect(&mut self, channel: &str, data: u64) {
        self.0.get_mut(channel).expect("a channel").1.push(data);
    }

    /// Waits for everything that is expected: in order, and nothing else.
    async fn receive(&mut self) {
        for (channel, (stream, expected)) in &mut self.0 {
            for data in expected.drain(..) {
                assert_eq!(stream.data().await, data, "{channel}");
            }
        }
    }
}

/// Emits as the stock packages do: the entry, then its notification, both at the master of the channel.
async fn emit_by_hand(cluster: &RedisCluster, channel: &str, data: u64) {
    let mut connection = cluster.connect_to(channel).await;
    let mut add = cmd("XADD");
    add.arg(channel).arg("*").arg(&["data", &data.to_string(), "event", "e", "channel", channel]);
    let id: String = add.query_async(&mut connection).await.expect("added");
    let payload = json!({ "data": data, "event": "e", "channel": channel, "id": id }).to_string();
    let _: u64 = cmd("PUBLISH").arg(channel).arg(payload).query_async(&mut connection).await.expect("published");
}

async fn emit_to_all(cluster: &RedisCluster, streams: &mut Streams, data: u64) {
    for channel in streams.channels() {
        emit_by_hand(cluster, &channel, data).await;
        streams.expect(&channel, data);
    }
}

async fn emit(gateway: &Gateway, channel: &str, data: u64) -> u16 {
    let body = json!({ "channel": channel, "event": "e", "data": data }).to_string();
    send_request(gateway.control, "POST", "/v1/emit", JSON, body.as_bytes()).await.0
}

/// Emits through the gateway, which must succeed.
async fn emit_through(gateway: &Gateway, streams: &mut Streams, channel: &str, data: u64) {
    assert_eq!(emit(gateway, channel, data).await, 200, "{channel}");
    streams.expect(channel, data);
}

/// A gateway that waits for a failover.
async fn start_gateway(store: &str) -> Gateway {
    Gateway::start(&format!("store = \"{store}\"\nstore-timeout = \"15s\"\nallow-all = true")).await
}

fn thirty_channels() -> impl Iterator<Item = String> {
    (0..30).map(|number| format!("news-{number}"))
}

#[tokio::test]
async fn events_survive_lost_subscriptions_and_moved_slots() {
    let cluster = RedisCluster::start(&[]).await;
    // The first node of the URL does not exist.
    let hosts = cluster.url().replace("redis-cluster://", "");
    let gateway = start_gateway(&format!("redis-cluster://127.0.0.1:{},{hosts}", reserved_port())).await;
    let mut streams = Streams::open(&gateway, thirty_channels()).await;
    emit_to_all(&cluster, &mut streams, 1).await;
    streams.receive().await;

    assert!(cluster.kill_subscriptions().await >= 1);
    emit_to_all(&cluster, &mut streams, 2).await;
    streams.receive().await;

    // While a slot is moved, a key is on the old node or on the new one.
    let (first, second) = ("news-0", "{news-0}.second");
    streams.add(&gateway, second).await;
    let (slot, from) = (slot_of(first.as_bytes()), cluster.master_of(first).await);
    let to = (from + 1) % 3;
    let connects = metric(gateway.control, "tidegate_store_pubsub_connects_total").await;
    cluster.begin_move(slot, from, to).await;
    // The old node has the first key. The second one does not exist, so it is created on the new node.
    emit_through(&gateway, &mut streams, first, 3).await;
    emit_through(&gateway, &mut streams, second, 3).await;
    cluster.move_keys(slot, from, to).await;
    emit_through(&gateway, &mut streams, first, 4).await;
    emit_through(&gateway, &mut streams, second, 4).await;
    streams.receive().await;
    cluster.end_move(slot, from, to).await;
    emit_through(&gateway, &mut streams, first, 5).await;
    emit_through(&gateway, &mut streams, second, 5).await;
    streams.receive().await;
    let (_, metrics) = send_request(gateway.control, "GET", "/metrics", "", b"").await;
    for kind in ["moved", "ask"] {
        let none = format!("tidegate_store_redirections_total{{kind=\"{kind}\"}} 0\\n");
        assert!(!metrics.to_string().contains(&none), "{kind}");
    }
    assert_eq!(metric(gateway.control, "tidegate_store_pubsub_connects_total").await, connects, "a move cuts nothing");
    emit_to_all(&cluster, &mut streams, 7).await;
    streams.receive().await;
}

/// Makes a node with this property the one with the subscription.
async fn subscribe_at(cluster: &RedisCluster, is_wanted: impl AsyncFn(usize) -> bool) -> usize {
    let mut node = None;
    wait_until("the subscription is at another node", async || {
        node = cluster.subscribed_node("news-0").await;
        let Some(number) = node else { return false };
        let is_wanted = is_wanted(number).await;
        if !is_wanted {
            cluster.kill_subscriptions().await;
        }
        is_wanted
    })
    .await;
    node.expect("it was waited for")
}

#[tokio::test]
async fn emits_wait_for_a_failover_and_are_executed_once() {
    let mut cluster = RedisCluster::start(&[]).await;
    let gateway = start_gateway(&cluster.url()).await;
    let mut streams = Streams::open(&gateway, thirty_channels()).await;
    emit_to_all(&cluster, &mut streams, 1).await;
    streams.receive().await;

    // A master dies. Emits to its slots wait for its replica, and none is executed twice.
    let dead = cluster.master_of("news-0").await;
    cluster.wait_until_replicated().await;
    cluster.nodes[dead].kill().await;
    let emits = streams.channels().into_iter().map(|channel| {
        let gateway = &gateway;
        async move {
            // The gateway may not know yet that the connection is lost. Then it cannot say what became of the first emit.
            let first = emit(gateway, &channel, 2).await;
            (first, emit(gateway, &channel, 3).await, channel)
        }
    });
    for (first, second, channel) in futures_util::future::join_all(emits).await {
        assert!(matches!(first, 200 | 503) && second == 200, "{channel}: {first}, {second}");
        let mut read = cmd("XRANGE");
        read.arg(&channel).arg("-").arg("+");
        let entries: Vec<(String, Vec<String>)> =
            read.query_async(&mut cluster.connect_to(&channel).await).await.expect("the entries");
        let count = |data: &str| entries.iter().filter(|(_, fields)| fields[1] == data).count();
        assert!(count("2") == 1 || (count("2") == 0 && first == 503), "{channel}: {entries:?}");
        assert_eq!(count("3"), 1, "{channel}: {entries:?}");
        (0..count("2")).for_each(|_| streams.expect(&channel, 2));
        streams.expect(&channel, 3);
    }
    emit_to_all(&cluster, &mut streams, 4).await;
    streams.receive().await;
}

#[tokio::test]
async fn subscription_moves_away_from_a_node_without_messages() {
    let mut cluster = RedisCluster::start(&[]).await;
    let gateway = start_gateway(&cluster.url()).await;
    let mut streams = Streams::open(&gateway, thirty_channels()).await;

    // The node with the subscription stops without a sign.
    let stopped = subscribe_at(&cluster, async |_| true).await;
    cluster.nodes[stopped].pause().await;
    wait_until("the subscription moves", async || cluster.subscribed_node("news-0").await.is_some()).await;
    emit_to_all(&cluster, &mut streams, 4).await;
    streams.receive().await;
    cluster.nodes[stopped].resume().await;
    cluster.wait_until_up().await;

    // The others forget the node with the subscription: it stays connected, and gets no messages.
    let forgotten = subscribe_at(&cluster, async |number| cluster.is_replica(number).await).await;
    let connects = metric(gateway.control, "tidegate_store_pubsub_connects_total").await;
    for (_, node) in cluster.nodes.iter().enumerate().filter(|(number, _)| *number != forgotten) {
        node.cluster(&["FORGET", &cluster.nodes[forgotten].id]).await;
    }
    emit_to_all(&cluster, &mut streams, 5).await;
    streams.receive().await;
    wait_until("the gateway subscribes elsewhere", async || {
        metric(gateway.control, "tidegate_store_pubsub_connects_total").await > connects
            && cluster.subscribed_node("news-0").await.is_some_and(|node| node != forgotten)
    })
    .await;
    emit_to_all(&cluster, &mut streams, 6).await;
    streams.receive().await;
}

/// The last line of an error.
async fn start_error(store: &str) -> (Option<i32>, String) {
    // If the process goes on, the test says with which store.
    println!("a start with {store} fails");
    let ended = run_tidegate(&["serve", "--allow-all", "--listen", "127.0.0.1:0", "--store", store]).await;
    (ended.code(), ended.stderr.lines().last().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn mistakes_in_the_url_of_a_cluster_are_explained() {
    let (redis, node) = (Redis::start(&[]).await, ClusterNode::start(&[]).await);
    let check = async |store: &str, texts: &[&str]| {
        let (code, error) = start_error(store).await;
        assert_eq!(code, Some(1), "{error}");
        let checked = run_tidegate(&["check", "--allow-all", "--store", store]).await;
        for text in texts {
            assert!(error.contains(text), "{text:?} is not in {error}");
            assert!(checked.all().contains(text), "{text:?} is not in {checked:?}");
        }
        assert!(!error.contains("s3cret") && !checked.all().contains("s3cret"), "{error} {checked:?}");
        checked.code()
    };
    let plain = format!("redis-cluster://127.0.0.1:{}", redis.port);
    assert_eq!(check(&plain, &["is not a node of a Redis Cluster", "redis://", &plain]).await, Some(1));
    let of_cluster = format!("redis://127.0.0.1:{}", node.port);
    assert_eq!(check(&of_cluster, &["is a node of a Redis Cluster", "redis-cluster://"]).await, Some(1));
    // Not reachable, or not created yet: this may pass.
    let dead = [reserved_port(), reserved_port()];
    let unreachable = format!("redis-cluster://ann:s3cret@127.0.0.1:{},127.0.0.1:{}", dead[0], dead[1]);
    let addresses = dead.map(|port| format!("127.0.0.1:{port}: "));
    assert_eq!(check(&unreachable, &[&addresses[0], &addresses[1], "refused"]).await, Some(0));
    let empty = format!("redis-cluster://127.0.0.1:{}", node.port);
    assert_eq!(check(&empty, &["it is in no cluster with slots"]).await, Some(0));
    let (code, error) = start_error(&format!("redis-cluster://:s3cret@127.0.0.1:{}/1", node.port)).await;
    assert!(code == Some(2) && error.contains("a cluster has no other one") && !error.contains("s3cret"), "{error}");

    // A cluster may have one node.
    node.cluster(&["ADDSLOTSRANGE", "0", "16383"]).await;
    wait_until("the cluster is up", async || node.cluster(&["INFO"]).await.contains("cluster_state:ok")).await;
    let mut admin = node.connect().await;
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("limited").arg(&["on", ">s3cret", "~*", "&*", "+@all", "-cluster|nodes"]);
    user.exec_async(&mut admin).await.expect("the rule is valid");
    let limited = format!("redis-cluster://limited:s3cret@127.0.0.1:{}", node.port);
    assert_eq!(check(&limited, &["NOPERM", "+cluster|nodes"]).await, Some(1));
    let set = async |value: &str| {
        let mut set = cmd("CONFIG");
        set.arg("SET").arg("cluster-allow-reads-when-down").arg(value);
        set.exec_async(&mut node.connect().await).await.expect("set");
    };
    set("yes").await;
    assert_eq!(check(&empty, &["cluster-allow-reads-when-down is yes"]).await, Some(1));
    set("no").await;
    node.cluster(&["DELSLOTSRANGE", "0", "99"]).await;
    assert_eq!(check(&empty, &["CLUSTERDOWN"]).await, Some(0));
}

#[tokio::test]
async fn three_rights_besides_the_documented_ones_are_enough_on_a_cluster() {
    // A cluster may have one node.
    let node = ClusterNode::start(&[]).await;
    node.cluster(&["ADDSLOTSRANGE", "0", "16383"]).await;
    wait_until("the cluster is up", async || node.cluster(&["INFO"]).await.contains("cluster_state:ok")).await;
    let documentation = include_str!("../../docs/operations/redis.md");
    let (_, rule) = documentation.split_once("ACL SETUSER tidegate ").expect("the documentation has a rule");
    let rule = rule.split("```").next().expect("the rule ends").replace(">password", ">s3cret");
    let narrow = rule.replace("~* &*", "~tidegate:{default}:* &tidegate:{default}:* ~news-* &news-*");
    assert_ne!(narrow, rule);
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("tidegate");
    for word in narrow.split_whitespace().chain(["+cluster|slots", "+cluster|info", "+cluster|nodes"]) {
        user.arg(word);
    }
    user.exec_async(&mut node.connect().await).await.expect("the rule is valid");
    let gateway = start_gateway(&format!("redis-cluster://tidegate:s3cret@127.0.0.1:{}", node.port)).await;
    let mut streams = Streams::open(&gateway, thirty_channels()).await;
    for channel in streams.channels() {
        emit_through(&gateway, &mut streams, &channel, 1).await;
    }
    streams.receive().await;
    assert_eq!(metric(gateway.control, "tidegate_store_canary_failures_total").await, 0.0);
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let log = ended.all();
    assert!(!log.contains("'cluster") && !log.contains("refuses the channel") && !log.contains("s3cret"), "{log}");
}
