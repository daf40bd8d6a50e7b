//! A fleet of three gateways on a Redis Cluster: every command ends with an answer that is true, also while the master of the fleet's keys dies.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};

use crate::client::{Sse, Wire};
use crate::control_port::{JSON, send_request};
use crate::fleet::{Fleet, digest, status};
use crate::guests::component;
use crate::processes::{Gateway, ProcessOutput, wait_until, with_timeout};
use crate::redis_cluster::RedisCluster;

const ACTIVE: &str = "tidegate:{default}:policy:active";
const PENDING: &str = "tidegate:{default}:policy:pending";
const REVOCATIONS: &str = "tidegate:{default}:revocations";
/// Of a push. It lasts for a failover, and for the heartbeats after it.
const TIMEOUT: Duration = Duration::from_secs(24);
/// Time for a process to start and to end, on a busy machine.
const MARGIN: Duration = Duration::from_secs(10);

type ClusterFleet = Fleet<RedisCluster>;

async fn start() -> (ClusterFleet, [Gateway; 3]) {
    let cluster = RedisCluster::start(&[]).await;
    let url = cluster.url();
    let fleet = Fleet::signed_on(cluster, url).await;
    for name in ["deny", "allow", "trap"] {
        fleet.write(&format!("{name}.wasm"), component(name));
    }
    let nodes = fleet.nodes().await;
    (fleet, nodes)
}

async fn statuses(nodes: &[Gateway; 3]) -> [u16; 3] {
    let [a, b, c] = nodes;
    [status(a.data).await, status(b.data).await, status(c.data).await]
}

async fn push(fleet: &ClusterFleet, policy: &str) -> Value {
    let pushed = fleet.succeeds(&["push", &format!("{policy}.wasm"), "--key", "release.pem"]).await;
    assert_eq!(activated_on(&pushed), ["a", "b", "c"], "{pushed}");
    pushed
}

fn activated_on(pushed: &Value) -> Vec<&str> {
    assert_eq!(pushed["activated"], true, "{pushed}");
    pushed["nodes"].as_array().expect("a list").iter().filter_map(|node| node["name"].as_str()).collect()
}

/// What a command says about a change.
#[derive(Debug, PartialEq)]
enum Answer {
    ActiveOnAll,
    ActiveOnNone,
    Unknown,
}

fn answer(ended: &ProcessOutput) -> Answer {
    match ended.code() {
        Some(0) => {
            let pushed: Value = serde_json::from_str(&ended.stdout).expect("JSON");
            assert_eq!(activated_on(&pushed), ["a", "b", "c"], "{pushed}");
            Answer::ActiveOnAll
        }
        Some(1) if ended.stderr.contains("nothing was changed") => Answer::ActiveOnNone,
        Some(1) if ended.stderr.contains("run `tidegate policy status`") => Answer::Unknown,
        _ => panic!("none of the three answers: {ended:?}"),
    }
}

/// Kills the master of the fleet's keys; returns its number.
async fn kill_master(cluster: &mut RedisCluster) -> usize {
    let master = cluster.master_of(ACTIVE).await;
    cluster.nodes[master].kill().await;
    master
}

async fn get(connection: &mut MultiplexedConnection, key: &str) -> Option<String> {
    cmd("GET").arg(key).query_async(connection).await.expect("Redis answers")
}

/// Runs a change of the policy, and kills the master at a point of it. Returns the answer, which comes within the timeout.
async fn change_during_failover(
    fleet: &mut ClusterFleet,
    args: &[&str],
    is_time: impl AsyncFn(&mut MultiplexedConnection) -> bool,
) -> Answer {
    let mut connection = fleet.redis.connect_to(ACTIVE).await;
    let (timeout, url, started) = (format!("{}s", TIMEOUT.as_secs()), fleet.redis.url(), Instant::now());
    let options = ["--key", "release.pem", "--timeout", &timeout, "--json", "--store", &url];
    let running = fleet.start_command(&[&["policy"], args, &options].concat());
    with_timeout("the change is at this point", async {
        while !is_time(&mut connection).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    kill_master(&mut fleet.redis).await;
    let ended = running.end().await;
    assert!(started.elapsed() < TIMEOUT + MARGIN, "{:?}: {ended:?}", started.elapsed());
    answer(&ended)
}

/// Waits until all nodes and the store agree on the active policy; returns its record.
async fn agreed(fleet: &ClusterFleet) -> Value {
    let mut current = Value::Null;
    wait_until("all nodes report the active policy", async || {
        let ended = fleet.policy(&["status"]).await;
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        current = report["current"].clone();
        let nodes = report["nodes"].as_array().map_or(&[][..], |nodes| &nodes[..]);
        let push_id = &current["push_id"];
        nodes.len() == 3 && push_id.is_string() && nodes.iter().all(|node| node["push_id"] == *push_id)
    })
    .await;
    current
}

/// The state after a change from one sequence to the next agrees with its answer. Returns whether the change is active.
async fn check_answer(fleet: &ClusterFleet, given: &Answer, before: u64) -> bool {
    let current = agreed(fleet).await;
    let is_active = current["sequence"] == before + 1;
    assert!(is_active || current["sequence"] == before, "{current}");
    assert!(*given == Answer::Unknown || is_active == (*given == Answer::ActiveOnAll), "{given:?}: {current}");
    is_active
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_during_a_failover_is_active_on_all_nodes_or_on_none() {
    let (mut fleet, nodes) = start().await;
    push(&fleet, "deny").await;
    assert_eq!(statuses(&nodes).await, [418; 3]);
    push(&fleet, "trap").await;
    assert_eq!(statuses(&nodes).await, [500; 3]);
    // The shadow policy of a fleet on a cluster, promoted on all nodes.
    let shadow = fleet.succeeds(&["shadow", "deny.wasm", "--share", "1", "--key", "release.pem"]).await;
    assert_eq!(shadow["nodes"].as_array().map(Vec::len), Some(3), "{shadow}");
    fleet.succeeds(&["promote", "--key", "release.pem"]).await;
    assert_eq!(statuses(&nodes).await, [418; 3]);

    // The master dies before the commit.
    let args = ["push", "allow.wasm"];
    let given = change_during_failover(&mut fleet, &args, async |master| get(master, PENDING).await.is_some()).await;
    let is_active = check_answer(&fleet, &given, 3).await;
    assert_eq!(statuses(&nodes).await, [if is_active { 200 } else { 418 }; 3]);
    // The next one works.
    let pushed = push(&fleet, "trap").await;
    assert_eq!(pushed["sequence"], 4 + u64::from(is_active), "{pushed}");
    assert_eq!(statuses(&nodes).await, [500; 3]);
    fleet.wait_for_digest(3, &digest(&pushed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commit_and_rollback_during_a_failover_have_true_answers() {
    let (mut fleet, nodes) = start().await;
    push(&fleet, "deny").await;
    push(&fleet, "trap").await;
    // The master dies with the commit or just after it.
    let before = get(&mut fleet.redis.connect_to(ACTIVE).await, ACTIVE).await;
    let args = ["push", "allow.wasm"];
    let given = change_during_failover(&mut fleet, &args, async |master| get(master, ACTIVE).await != before).await;
    assert_ne!(given, Answer::ActiveOnNone, "it was committed");
    // A node that has it writes it back; if none has, it is lost.
    let is_active = check_answer(&fleet, &given, 2).await;
    assert_eq!(statuses(&nodes).await, [if is_active { 200 } else { 500 }; 3]);
    let sequence = 2 + u64::from(is_active);

    let dead = fleet.redis.nodes.iter().position(|node| !node.is_running()).expect("one was killed");
    fleet.redis.nodes[dead].restart().await;
    fleet.redis.wait_until_up().await;
    let args = ["rollback", "1"];
    let given = change_during_failover(&mut fleet, &args, async |master| get(master, PENDING).await.is_some()).await;
    let is_active = check_answer(&fleet, &given, sequence).await;
    let unchanged = if sequence == 3 { 200 } else { 500 };
    assert_eq!(statuses(&nodes).await, [if is_active { 418 } else { unchanged }; 3]);
    push(&fleet, "trap").await;
    assert_eq!(statuses(&nodes).await, [500; 3]);
}

async fn open(node: &Gateway, channel: &str) -> Sse {
    let mut stream = Sse::open(node.data, &format!("channel={channel}")).await;
    stream.connected(channel).await;
    stream
}

async fn assert_ended(stream: &mut Sse) {
    assert_eq!(stream.frame().await["type"], "reconnect");
    assert_eq!(stream.next().await, None);
}

/// The status of a request for a channel.
async fn status_of(node: &Gateway, channel: &str) -> u16 {
    let target = format!("/api/realtime?channel={channel}");
    with_timeout("an answer", Wire::get(node.data, &target, None, None)).await.expect("an answer").status
}

async fn revoke(fleet: &ClusterFleet, args: &[&str]) -> ProcessOutput {
    let url = fleet.redis.url();
    fleet.run(&[&["revoke", "--json", "--store", &url], args].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_hold_through_a_failover() {
    let (mut fleet, nodes) = start().await;
    push(&fleet, "allow").await;
    let [a, b, c] = &nodes;
    // Streams on all nodes, on channels of different masters.
    let mut streams = [open(a, "a").await, open(b, "b").await, open(c, "c").await];
    let revoked = revoke(&fleet, &["--all"]).await;
    let result: Value = serde_json::from_str(&revoked.stdout).expect("JSON");
    assert_eq!(
        (revoked.code(), result),
        (Some(0), json!({"streams": 3, "nodes": {"a": 1, "b": 1, "c": 1}, "missing": 0}))
    );
    for stream in &mut streams {
        assert_ended(stream).await;
    }
    let mut kept = [open(a, "kept").await, open(b, "kept").await, open(c, "kept").await];
    let mut first = open(b, "first").await;
    let revoked = revoke(&fleet, &["--channel", "first", "--for", "1h"]).await;
    assert_eq!(revoked.code(), Some(0), "{revoked:?}");
    assert_ended(&mut first).await;
    let mut second = [open(a, "second").await, open(b, "second").await, open(c, "second").await];

    // The master dies when it has the second revocation.
    let mut master = fleet.redis.connect_to(ACTIVE).await;
    let url = fleet.redis.url();
    let running = fleet.start_command(&["revoke", "--channel", "second", "--for", "1h", "--json", "--store", &url]);
    with_timeout("the revocation is stored", async {
        let count = async |master: &mut MultiplexedConnection| -> u64 {
            cmd("HLEN").arg(REVOCATIONS).query_async(master).await.expect("a number")
        };
        while count(&mut master).await < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    kill_master(&mut fleet.redis).await;
    let mut ended = running.end().await;
    // Without a reply it is not known, and the operator repeats it.
    wait_until("the revocation succeeds", async || {
        let is_done = ended.code() == Some(0);
        if !is_done {
            assert!(ended.code() == Some(1) && ended.stderr.contains("revoke again"), "{ended:?}");
            ended = revoke(&fleet, &["--channel", "second", "--for", "1h"]).await;
        }
        is_done
    })
    .await;
    for stream in &mut second {
        assert_ended(stream).await;
    }
    // Both hold on the new master, and on every node.
    let list = revoke(&fleet, &["--list"]).await;
    for channel in ["first", "second"] {
        assert!(list.code() == Some(0) && list.stdout.contains(&format!("\"channel\":\"{channel}\"")), "{list:?}");
        for node in &nodes {
            assert_eq!(status_of(node, channel).await, 403, "{channel}");
        }
    }
    // A node that starts now has them, too, and the other streams go on.
    let d = fleet.node("d").await;
    assert_eq!((status_of(&d, "first").await, status_of(&d, "second").await), (403, 403));
    let (code, answer) = {
        let body = json!({ "channel": "kept", "event": "e", "data": 1 }).to_string();
        send_request(d.control, "POST", "/v1/emit", JSON, body.as_bytes()).await
    };
    assert_eq!(code, 200, "{answer}");
    for stream in &mut kept {
        assert_eq!(stream.data().await, 1);
    }
}
