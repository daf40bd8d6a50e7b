//! A commit that the store has lost, as in a failover: the nodes write the signed record back, and nothing else.

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};
use tidegate::artifact::digest::Digest;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::client::{Sse, Wire};
use crate::fleet::{Fleet, digest, status};
use crate::guests::component;
use crate::link_cuts::LinkCuts;
use crate::processes::{Gateway, wait_until};
use crate::redis_cluster::RedisCluster;
use crate::redis_server::Redis;

const ACTIVE: &str = "tidegate:{default}:policy:active";
const HISTORY: &str = "tidegate:{default}:policy:history";
const REVOCATIONS: &str = "tidegate:{default}:revocations";
const HUGE: u64 = 9_007_199_254_740_990;

async fn redis<T: redis::FromRedisValue>(redis: &mut MultiplexedConnection, command: &[&str]) -> T {
    let (name, args) = command.split_first().expect("a command");
    cmd(name).arg(args).query_async(redis).await.expect("Redis answers")
}

fn write<S>(fleet: &Fleet<S>, names: &[&str]) {
    for name in names {
        fleet.write(&format!("{name}.wasm"), component(name));
    }
}

async fn wait_for_active(connection: &mut MultiplexedConnection, record: &str) {
    wait_until("the record is the active one again", async || {
        redis::<Option<String>>(connection, &["GET", ACTIVE]).await.as_deref() == Some(record)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_commit_is_written_back_with_its_blobs_and_over_forged_records() {
    let fleet = Fleet::signed().await;
    let (a, b) = (fleet.node("a").await, fleet.node("b").await);
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    let mut connection = fleet.redis.connect().await;
    let first: String = redis(&mut connection, &["GET", ACTIVE]).await;
    fleet.succeeds(&["push", "allow.wasm", "--key", "release.pem"]).await;
    let second: String = redis(&mut connection, &["GET", ACTIVE]).await;

    // A new master that does not have the commit: the older record, and neither the entry of the history nor the blob.
    let blob = format!("tidegate:{{default}}:policy:blobs:{}", Digest::of(&component("allow")).hex());
    let mut lose = redis::pipe();
    lose.atomic().set(ACTIVE, &first).lpop(HISTORY, None).del(&blob);
    let () = lose.exec_async(&mut connection).await.expect("executed");
    wait_for_active(&mut connection, &second).await;
    assert_eq!(redis::<Option<String>>(&mut connection, &["LINDEX", HISTORY, "0"]).await, Some(second.clone()));
    assert_eq!(redis::<i64>(&mut connection, &["TTL", &blob]).await, -1, "the blob is there, and stays");
    assert_eq!((status(a.data).await, status(b.data).await), (200, 200));
    // A node that starts now gets it.
    let c = fleet.node("c").await;
    assert_eq!(status(c.data).await, 200);

    // Forged records do not stay, whatever sequence they claim, and the store may lose everything.
    let mut unsigned: Value = serde_json::from_str(&first).expect("JSON");
    unsigned["sequence"] = json!(HUGE);
    let renamed = unsigned.to_string();
    unsigned["signature"] = Value::Null;
    for forged in [renamed, unsigned.to_string(), "{".into()] {
        let () = redis(&mut connection, &["SET", ACTIVE, &forged]).await;
        wait_for_active(&mut connection, &second).await;
    }
    let () = redis(&mut connection, &["FLUSHALL"]).await;
    wait_for_active(&mut connection, &second).await;
    assert_eq!(redis::<i64>(&mut connection, &["LLEN", HISTORY]).await, 1, "two nodes write one entry");

    // The greater sequence wins: that of a rollback.
    let rolled_back = fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    let third: String = redis(&mut connection, &["GET", ACTIVE]).await;
    let () = redis(&mut connection, &["SET", ACTIVE, &second]).await;
    wait_for_active(&mut connection, &third).await;
    fleet.wait_for_digest(3, &digest(&rolled_back)).await;
    assert_eq!(status(a.data).await, 418);
    // The next push follows.
    let pushed = fleet.succeeds(&["push", "allow.wasm", "--key", "release.pem"]).await;
    assert_eq!((pushed["sequence"].as_u64(), status(a.data).await), (Some(4), 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsigned_record_is_not_written_back() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let mut connection = fleet.redis.connect().await;
    let () = redis(&mut connection, &["DEL", ACTIVE]).await;
    // Longer than a node waits.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(redis::<Option<String>>(&mut connection, &["GET", ACTIVE]).await, None);
    assert_eq!(status(a.data).await, 418, "the active policy stays");
}

/// Passes connections to the port of a server that is gone on to another one, which takes over its address.
async fn relay(from: u16, to: u16) -> JoinSet<()> {
    let listener = TcpListener::bind(("127.0.0.1", from)).await.expect("the port is free");
    let (mut task, mut connections) = (JoinSet::new(), JoinSet::new());
    task.spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.expect("a connection");
            connections.spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", to)).await.expect("Redis answers");
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    task
}

/// The master dies between the commit and its replication: the replica becomes the master, and the nodes follow it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_survives_the_death_of_a_master_that_has_not_replicated_the_commit() {
    let mut fleet = Fleet::signed().await;
    let [a, b] = [fleet.node("a").await, fleet.node("b").await];
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    let port = fleet.redis.port.to_string();
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]).await;
    let mut standby = replica.connect().await;
    wait_until("the replica has the data", async || {
        redis::<Option<String>>(&mut standby, &["GET", ACTIVE]).await.is_some()
    })
    .await;
    let first: String = redis(&mut standby, &["GET", ACTIVE]).await;
    // From now on it gets nothing, and becomes a master.
    let () = redis(&mut standby, &["REPLICAOF", "NO", "ONE"]).await;
    fleet.succeeds(&["push", "allow.wasm", "--key", "release.pem"]).await;
    assert_eq!((status(a.data).await, status(b.data).await), (200, 200));
    let second: String = redis(&mut fleet.redis.connect().await, &["GET", ACTIVE]).await;
    fleet.redis.kill().await;
    let _relay = relay(fleet.redis.port, replica.port).await;
    let mut connection = fleet.redis.connect().await;
    let stored: String = redis(&mut connection, &["GET", ACTIVE]).await;
    assert!(stored == first || stored == second, "{stored}");
    wait_for_active(&mut connection, &second).await;
    assert_eq!((status(a.data).await, status(b.data).await), (200, 200));
}

/// A cluster fails over to a replica that has neither the commit nor a revocation: the nodes write both back to the new master.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failover_of_a_cluster_that_loses_a_commit_and_a_revocation_loses_neither() {
    let mut links = LinkCuts::default();
    let cluster = RedisCluster::start_with_cuts(&mut links).await;
    cluster.set_user("other", &["on", ">password", "~*", "&*", "+@all"]).await;
    let url = cluster.url_of("other:password@");
    let mut fleet = Fleet::signed_on(cluster, url.clone()).await;
    let nodes: [Gateway; 2] = [fleet.node("a").await, fleet.node("b").await];
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    let master = fleet.redis.master_of(ACTIVE).await;
    let mut old = fleet.redis.nodes[master].connect().await;
    let first: String = redis(&mut old, &["GET", ACTIVE]).await;
    fleet.redis.wait_until_replicated().await;

    // From now on the replica gets nothing: it has no user, as all other parties have.
    links.cut([(String::new(), master)]);
    wait_until("the replica has no link", async || {
        let info: String = redis(&mut old, &["INFO", "replication"]).await;
        info.contains("connected_slaves:0")
    })
    .await;
    let pushed = fleet.succeeds(&["push", "allow.wasm", "--key", "release.pem"]).await;
    let second: String = redis(&mut old, &["GET", ACTIVE]).await;
    let mut streams = Vec::new();
    for node in &nodes {
        let mut stream = Sse::open(node.data, "channel=news").await;
        stream.connected("news").await;
        streams.push(stream);
    }
    let revoked = fleet.run(&["revoke", "--channel", "news", "--for", "1h", "--json", "--store", &url]).await;
    assert_eq!(revoked.code(), Some(0), "every node has answered: {revoked:?}");
    let new = (master + 3) % fleet.redis.nodes.len();
    let mut standby = fleet.redis.nodes[new].connect().await;
    let () = redis(&mut standby, &["READONLY"]).await;
    assert_eq!(redis::<Option<String>>(&mut standby, &["GET", ACTIVE]).await, Some(first), "it lacks the commit");
    assert_eq!(redis::<u64>(&mut standby, &["HLEN", REVOCATIONS]).await, 0, "it lacks the revocation");
    fleet.redis.nodes[master].kill().await;

    wait_until("the replica is the master", async || fleet.redis.is_master(new).await).await;
    wait_for_active(&mut standby, &second).await;
    wait_until("the revocation is there", async || redis::<u64>(&mut standby, &["HLEN", REVOCATIONS]).await == 1).await;
    assert_eq!(redis::<Option<String>>(&mut standby, &["LINDEX", HISTORY, "0"]).await, Some(second));
    fleet.wait_for_digest(2, &digest(&pushed)).await;
    // A node that starts now gets the policy and the revocation.
    let c = fleet.node("c").await;
    for node in nodes.iter().chain([&c]) {
        assert_eq!(status(node.data).await, 200);
        let answer = Wire::get(node.data, "/api/realtime?channel=news", None, None).await.expect("an answer");
        assert_eq!(answer.status, 403);
    }
}
