//! What a gateway delivers while the master of the fleet's keys that it reaches is not the master any more.

use redis::cmd;
use serde_json::json;

use crate::client::{Sse, Wire, encoded};
use crate::control_port::{JSON, metric, send_request};
use crate::link_cuts::LinkCuts;
use crate::processes::{ChildProcess, Gateway, tidegate, wait_until, with_timeout};
use crate::redis_cluster::RedisCluster;

const COMMANDS: &str = "tidegate:{default}:commands";
const REVOCATIONS: &str = "tidegate:{default}:revocations";
const PASSWORD: &str = "password-of-the-tests";

/// A channel whose master is none of these.
async fn channel_elsewhere(cluster: &RedisCluster, not: usize) -> (String, usize) {
    for number in 0.. {
        let channel = format!("news-{number}");
        let master = cluster.master_of(&channel).await;
        if master != not {
            return (channel, master);
        }
    }
    unreachable!("three masters")
}

/// Emits at one node, as the stock packages do.
async fn emit_at(cluster: &RedisCluster, node: usize, channel: &str, data: u64) {
    let mut connection = cluster.nodes[node].connect().await;
    let mut add = cmd("XADD");
    add.arg(channel).arg("*").arg(&["data", &data.to_string(), "event", "e", "channel", channel]);
    let id: String = add.query_async(&mut connection).await.expect("added");
    let message = json!({ "data": data, "event": "e", "channel": channel, "id": id }).to_string();
    cmd("PUBLISH").arg(channel).arg(message).exec_async(&mut connection).await.expect("published");
}

/// Whether a node has a revocation, and says so: an old master does not answer for long.
async fn has_revocation(cluster: &RedisCluster, node: usize) -> bool {
    let mut count = cmd("HLEN");
    let count: Result<u64, _> = count.arg(REVOCATIONS).query_async(&mut cluster.nodes[node].connect().await).await;
    count.is_ok_and(|count| count > 0)
}

async fn open(gateway: &Gateway, channel: &str) -> Sse {
    let mut stream = Sse::open(gateway.data, &format!("channel={}", encoded(channel))).await;
    stream.connected(channel).await;
    stream
}

/// The revocation ends the stream, and no event comes before that.
async fn assert_revoked(gateway: &Gateway, mut stream: Sse, channel: &str) {
    let frame = stream.frame().await;
    assert_eq!(frame["type"], "reconnect", "{frame}");
    assert_eq!(stream.next().await, None);
    let target = format!("/api/realtime?channel={channel}");
    let answer = with_timeout("an answer", Wire::get(gateway.data, &target, None, None)).await.expect("an answer");
    assert_eq!(answer.status, 403);
}

/// Revokes a channel through a gateway, and waits until the new master has that.
async fn revoke(cluster: &RedisCluster, gateway: &Gateway, channel: &str, new: usize) {
    let body = json!({ "channel": channel, "for": "1h" }).to_string();
    wait_until("the new master has the revocation", async || {
        let (status, answer) = send_request(gateway.control, "POST", "/v1/revoke", JSON, body.as_bytes()).await;
        assert!(status == 200 || status == 503, "{answer}");
        has_revocation(cluster, new).await
    })
    .await;
}

/// The old master is cut off from the other nodes. The gateway reaches it and the master of the channel, and no other node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_with_an_isolated_old_master_delivers_nothing_to_a_revoked_client() {
    let mut links = LinkCuts::default();
    let cluster = RedisCluster::start_with_cuts(&mut links).await;
    for user in ["cut-off", "other"] {
        cluster.set_user(user, &["on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]).await;
    }
    let gateway = async |user: &str| {
        let url = cluster.url_of(&format!("{user}:{PASSWORD}@"));
        Gateway::start(&format!("store = \"{url}\"\nallow-all = true\nfleet.node-name = \"{user}\"")).await
    };
    let (cut_off, other) = (gateway("cut-off").await, gateway("other").await);
    let old = cluster.master_of(REVOCATIONS).await;
    let (channel, third) = channel_elsewhere(&cluster, old).await;
    let mut stream = open(&cut_off, &channel).await;
    let mut kept = open(&cut_off, &format!("{{{channel}}}.kept")).await;
    emit_at(&cluster, third, &channel, 1).await;
    assert_eq!(stream.data().await, 1);

    let all = 0..cluster.nodes.len();
    let others = all.clone().filter(|number| *number != old);
    let from_old = others.clone().map(|number| (cluster.nodes[old].id.clone(), number));
    // Its replica, which has no user, too.
    let ids = cluster.nodes.iter().map(|node| node.id.clone());
    let to_old = ids.chain([String::new(), "other".into()]).map(|from| (from, old));
    let from_gateway = others.filter(|number| *number != third).map(|number| ("cut-off".to_owned(), number));
    links.cut(from_old.chain(to_old).chain(from_gateway));
    let new = (old + 3) % cluster.nodes.len();
    wait_until("another node is the master", async || cluster.is_master(new).await).await;
    assert!(cluster.is_master(old).await, "the old master does not know");

    revoke(&cluster, &other, &channel, new).await;
    assert!(!has_revocation(&cluster, old).await);
    emit_at(&cluster, third, &channel, 2).await;
    emit_at(&cluster, third, &format!("{{{channel}}}.kept"), 3).await;
    // It has no master to ask for revocations, and says so.
    wait_until("the gateway says that it is not ready", async || {
        let (status, answer) = send_request(cut_off.control, "GET", "/readyz", "", b"").await;
        assert!(status == 503 || status == 200, "{answer}");
        status == 503 && metric(cut_off.control, "tidegate_ready").await == 0.0
    })
    .await;
    assert!(!has_revocation(&cluster, old).await);

    links.heal();
    wait_until("the gateway is ready", async || {
        send_request(cut_off.control, "GET", "/readyz", "", b"").await.0 == 200
    })
    .await;
    assert_revoked(&cut_off, stream, &channel).await;
    // The other stream goes on, with the event that waited.
    assert_eq!(kept.data().await, 3);
}

/// The old master is stopped, and continued after the revocation, when the gateway still waits for its replies: what they say does not count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_answers_of_a_stopped_old_master_deliver_nothing_to_a_revoked_client() {
    let mut cluster = RedisCluster::start(&[]).await;
    let url = cluster.url();
    let gateway = Gateway::start(&format!("store = \"{url}\"\nstore-timeout = \"15s\"\nallow-all = true")).await;
    let old = cluster.master_of(REVOCATIONS).await;
    let (channel, third) = channel_elsewhere(&cluster, old).await;
    let mut stream = open(&gateway, &channel).await;
    emit_at(&cluster, third, &channel, 1).await;
    assert_eq!(stream.data().await, 1);
    cluster.nodes[old].pause().await;
    let new = (old + 3) % cluster.nodes.len();
    wait_until("another node is the master", async || cluster.is_master(new).await).await;
    // The command has no connection to the old master. It waits for the gateway, and the test does not wait for that.
    let mut command = tidegate(&["revoke", "--channel", &channel, "--for", "1h", "--store", &url]);
    command.stdin(std::process::Stdio::null());
    let _revoking = ChildProcess::start(command);
    let mut master = cluster.nodes[new].connect().await;
    wait_until("the new master has the command", async || {
        cmd("XLEN").arg(COMMANDS).query_async::<u64>(&mut master).await.expect("a number") > 0
    })
    .await;
    emit_at(&cluster, third, &channel, 2).await;
    cluster.nodes[old].resume().await;
    assert_revoked(&gateway, stream, &channel).await;
}
