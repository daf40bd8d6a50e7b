//! A Redis user with exactly the rights that a gateway needs, for each topology, and the reports about each missing right.

use redis::aio::MultiplexedConnection;
use redis::cmd;

use crate::client::Sse;
use crate::control_port::{JSON, send_request};
use crate::fleet::{Fleet, status};
use crate::guests::component;
use crate::processes::{Gateway, run_tidegate, wait_until};
use crate::redis_cluster::RedisCluster;
use crate::redis_sentinel::{GroupOptions, PASSWORD, SentinelGroup};
use crate::redis_server::Redis;

/// Without these no stream delivers anything.
const STREAMS: &[&str] =
    &["+evalsha", "+script|load", "+type", "+xinfo", "+xrange", "+xrevrange", "+subscribe", "+unsubscribe"];
/// For commands of the fleet, emits, look-ups, and the status of the node.
const FURTHER: &[&str] = &[
    "+hgetall",
    "+hlen",
    "+hrandfield",
    "+hget",
    "+hset",
    "+hdel",
    "+time",
    "+xadd",
    "+publish",
    "+expire",
    "+get",
    "+sismember",
    "+hsetnx",
    "+getrange",
    "+set",
    "+del",
    "+zadd",
    "+zrem",
    "+zrevrange",
    "+zremrangebyrank",
    "+lrange",
    "+pexpire",
    "+exists",
    "+info",
];
/// For rollbacks and shadow policies through the control port. A user may lack all of them.
const PUSHES: &[&str] = &["+hmget", "+ttl", "+pttl", "+persist", "+llen", "+rpop", "+lpush"];
/// On a Cluster, for its slot map and its state.
const CLUSTER: &[&str] = &["+cluster|slots", "+cluster|info", "+cluster|nodes"];
/// Keys and pub/sub channels: of the fleet, and a channel for clients.
const PATTERNS: &[&str] = &["~tidegate:{default}:*", "&tidegate:{default}:*", "~news", "&news"];

async fn set_user(node: &mut MultiplexedConnection, rights: &[&str]) {
    let mut user = cmd("ACL");
    user.arg("SETUSER").arg("gate").arg(&["reset", "on", ">gate-password", "+@connection"]).arg(rights);
    user.exec_async(node).await.expect("the rule is valid");
}

/// All rights but one.
fn without<'a>(rights: &[&'a str], missing: &str) -> Vec<&'a str> {
    rights.iter().copied().filter(|right| *right != missing).collect()
}

/// Streams, emits by both ports, revokes, and heartbeats, with nothing refused.
async fn assert_all_works(store_lines: &str) {
    let toml = format!("{store_lines}\nallow-all = true\nredis-rest.tokens = [\"token-of-the-tests\"]");
    let gateway = Gateway::start(&toml).await;
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    let bearer = "authorization: Bearer token-of-the-tests\r\n";
    for body in [
        &br#"["XADD","news","*","data","1","event","e","channel","news"]"#[..],
        br#"["XRANGE","news","-","+"]"#,
        br#"["EXPIRE","news",100]"#,
        br#"["PUBLISH","news","{}"]"#,
    ] {
        let (status, answer) = send_request(gateway.data, "POST", "/redis", bearer, body).await;
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(stream.data().await, "1");
    for (method, path, body) in [
        ("POST", "/v1/emit", &br#"{"channel":"news","event":"e","data":2,"expire_seconds":3600,"max_length":5}"#[..]),
        ("POST", "/v1/revoke", br#"{"subject":"alice","for":"15m"}"#),
        ("GET", "/v1/revocations", b""),
        ("DELETE", "/v1/revocations/0123456789abcdef", b""),
        ("GET", "/v1/fleet", b""),
    ] {
        let (status, answer) = send_request(gateway.control, method, path, JSON, body).await;
        assert!(status == 200 || (method == "DELETE" && status == 404), "{method} {path}: {status} {answer}");
    }
    assert_eq!(stream.data().await, 2);
    let (status, ready) = send_request(gateway.control, "GET", "/readyz", "", b"").await;
    assert!(status == 200 && ready["fleet_error"].is_null(), "{ready}");
    drop(stream);
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("NOPERM") && !ended.stderr.contains("lacks rights"), "{}", ended.stderr);
}

/// `tidegate check` names this right: an error if streams need it, else a warning.
async fn assert_reported(store: &[&str], right: &str, is_essential: bool) {
    let ended = run_tidegate(&[&["check", "--allow-all"], store].concat()).await;
    assert_eq!(ended.code(), Some(i32::from(is_essential)), "{right}: {ended:?}");
    let named = ended.stderr.split_whitespace().any(|word| word.trim_end_matches(':') == right);
    assert!(named && !ended.stderr.contains("gate-password"), "{right}: {}", ended.stderr);
}

#[tokio::test]
async fn single_redis_needs_these_rights_and_no_others() {
    let redis = Redis::start(&[]).await;
    let mut admin = redis.connect().await;
    let all = [STREAMS, FURTHER, PATTERNS].concat();
    set_user(&mut admin, &all).await;
    let store = format!("redis://gate:gate-password@127.0.0.1:{}", redis.port);
    assert_all_works(&format!("store = \"{store}\"")).await;
    let flags = ["--store", &store];
    let ended = run_tidegate(&[&["check", "--allow-all"], &flags[..]].concat()).await;
    assert!(ended.code() == Some(0) && !ended.stderr.contains("lacks rights"), "{ended:?}");
    for right in [STREAMS, FURTHER, &PATTERNS[..2]].concat() {
        set_user(&mut admin, &without(&all, right)).await;
        assert_reported(&flags, right, !FURTHER.contains(&right)).await;
    }
    for right in PUSHES {
        set_user(&mut admin, &without(&[&all, PUSHES].concat(), right)).await;
        assert_reported(&flags, right, false).await;
    }
    // All that is missing is reported at once.
    set_user(&mut admin, &[&STREAMS[..2], &PATTERNS[..2]].concat()).await;
    let ended = run_tidegate(&[&["check", "--allow-all"], &flags[..]].concat()).await;
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(STREAMS[2..].iter().all(|right| ended.stderr.contains(right)), "{}", ended.stderr);
    let keys: Vec<String> = cmd("KEYS").arg("*:probe").query_async(&mut admin).await.expect("the keys");
    assert!(keys.is_empty(), "a check writes nothing: {keys:?}");
}

/// Users of the sentinels: for each other and the tests, and for gateways.
const SENTINEL_USERS: &str = "user default off
user peer on >peer-password allchannels +@all
sentinel sentinel-user peer
sentinel sentinel-pass peer-password
user watcher on >watcher-password resetchannels &+switch-master +@connection +subscribe \
    +sentinel|myid +sentinel|get-master-addr-by-name +sentinel|sentinels";

#[tokio::test]
async fn sentinels_need_these_rights_and_no_others() {
    let group = SentinelGroup::with(GroupOptions {
        sentinel_lines: SENTINEL_USERS,
        sentinel_login: "peer:peer-password@",
        ..GroupOptions::default()
    })
    .await;
    let all = [STREAMS, FURTHER, PATTERNS, &["+role"]].concat();
    for node in &group.nodes {
        set_user(&mut node.connect().await, &all).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("tidegate.toml").to_str().expect("a path").to_owned();
    let store = format!("store = \"{}\"", group.url_of("gate:gate-password"));
    let write = |user: &str, password: &str| {
        let lines = format!(
            "{store}\nstore-sentinel-user = \"{user}\"\nstore-sentinel-password = \"{password}\"\nallow-all = true\n"
        );
        std::fs::write(&config, &lines).expect("written");
        lines.replace("allow-all = true\n", "")
    };
    let lines = write("watcher", "watcher-password");
    assert_all_works(&lines).await;
    let flags = ["--config", &*config];
    let mut master = group.nodes[0].connect().await;
    for (right, is_essential) in [("+role", true), ("+xrange", true), ("+zadd", false)] {
        set_user(&mut master, &without(&all, right)).await;
        assert_reported(&flags, right, is_essential).await;
    }
    set_user(&mut master, &all).await;

    // Mistakes in the credentials of the sentinels.
    let fails = async |says: &[&str]| {
        let ended = run_tidegate(&["check", "--config", &config]).await;
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        assert!(says.iter().all(|part| ended.stderr.contains(part)), "{}", ended.stderr);
        assert!(!ended.stderr.contains("-password@") && !ended.stderr.contains("wrong"), "{}", ended.stderr);
    };
    write("watcher", "wrong");
    fails(&["redis-sentinel://127.0.0.1:", "refuses the password", "store-sentinel-password"]).await;
    std::fs::write(&config, format!("{store}\nallow-all = true")).expect("written");
    fails(&["requires a password", "store-sentinel-password"]).await;
    for right in ["+sentinel|myid", "+sentinel|get-master-addr-by-name", "+sentinel|sentinels"] {
        write("watcher", "watcher-password");
        for sentinel in &group.sentinels {
            let mut admin = sentinel.connect().await.expect("a sentinel answers");
            let mut user = cmd("ACL");
            user.arg("SETUSER").arg("watcher").arg(right.replace('+', "-"));
            user.exec_async(&mut admin).await.expect("the rule is valid");
        }
        fails(&["NOPERM", right]).await;
        for sentinel in &group.sentinels {
            let mut admin = sentinel.connect().await.expect("a sentinel answers");
            let mut user = cmd("ACL");
            user.arg("SETUSER").arg("watcher").arg(right);
            user.exec_async(&mut admin).await.expect("the rule is valid");
        }
    }

    // A channel that the user may not read is an error of its streams, not silence.
    let gateway = Gateway::start(&format!("{lines}allow-all = true")).await;
    let mut stream = Sse::open(gateway.data, "channel=other").await;
    let mut frames = Vec::new();
    wait_until("an error frame", async || {
        frames.push(stream.frame().await);
        frames.last().is_some_and(|frame| frame["type"] == "error")
    })
    .await;
    assert!(PASSWORD != "gate-password" && !frames.iter().any(|frame| frame["event"].is_string()), "{frames:?}");
}

/// The rights of a user in the documentation, without its name, its password and those of the connection.
fn documented<'a>(user: &str, documentation: &'a str) -> Vec<&'a str> {
    let (_, rule) = documentation.split_once(&format!("ACL SETUSER {user} ")).expect("the documentation has this user");
    let words = rule.split("```").next().expect("the rule ends").split_whitespace();
    words.filter(|word| *word != "on" && !word.starts_with('>') && *word != "+@connection").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_needs_these_rights_and_no_others() {
    let cluster = RedisCluster::start(&[]).await;
    let documentation = include_str!("../../docs/operations/redis.md");
    let gate = ["reset", "on", ">gate-password", "+@connection"];
    let all = [&gate[..], STREAMS, FURTHER, PATTERNS, CLUSTER].concat();
    let everything = [&all[..], PUSHES].concat();
    let release = documented("release", documentation);
    let in_documentation = documented("tidegate", documentation);
    assert!([STREAMS, FURTHER].concat().iter().all(|right| in_documentation.contains(right)), "{in_documentation:?}");
    cluster.set_user("gate", &all).await;
    cluster.set_user("release", &[&["on", ">release-password", "+@connection"], &release[..], CLUSTER].concat()).await;
    let store = cluster.url_of("gate:gate-password@");
    assert_all_works(&format!("store = \"{store}\"")).await;
    let ended = run_tidegate(&["check", "--allow-all", "--store", &store]).await;
    assert!(ended.code() == Some(0) && !ended.stderr.contains("lacks rights"), "{ended:?}");

    // A fleet whose policy a release user pushes, and whose nodes roll it back.
    let operator = cluster.url_of("release:release-password@");
    let fleet = Fleet::signed_on(cluster, operator.clone()).await;
    for name in ["deny", "allow", "trap"] {
        fleet.write(&format!("{name}.wasm"), component(name));
    }
    fleet.redis.set_user("gate", &everything).await;
    let node = async |name: &str| Gateway::start(&fleet.toml(name).replace(&operator, &store)).await;
    let nodes = [node("a").await, node("b").await];
    let key = ["--key", "release.pem"];
    for (args, expect) in [
        (&["push", "deny.wasm"][..], 418),
        (&["push", "trap.wasm"], 500),
        (&["rollback"], 418),
        (&["shadow", "allow.wasm", "--share", "1"], 418),
        (&["promote"], 200),
        (&["shadow", "trap.wasm"], 200),
    ] {
        fleet.succeeds(&[args, &key].concat()).await;
        for node in &nodes {
            assert_eq!(status(node.data).await, expect, "{args:?}");
        }
    }
    fleet.succeeds(&["shadow", "--stop"]).await;
    fleet.succeeds(&["list"]).await;
    let control = nodes[0].control.to_string();
    let rolled_back = fleet.run(&[&["policy", "rollback", "1", "--control", &control], &key[..]].concat()).await;
    assert_eq!((rolled_back.code(), status(nodes[1].data).await), (Some(0), 418), "{rolled_back:?}");
    let revoked = fleet.run(&["revoke", "--subject", "alice", "--for", "1h", "--json", "--store", &operator]).await;
    assert!(revoked.code() == Some(0) && revoked.stdout.contains("\"missing\":0"), "{revoked:?}");
    let report = fleet.succeeds(&["status"]).await;
    let reported = report["nodes"].as_array().expect("a list");
    assert!(reported.len() == 2 && reported.iter().all(|node| node["error"].is_null()), "{report}");
    for node in nodes {
        node.process.signal("TERM").await;
        let ended = node.process.end().await;
        assert!(ended.code() == Some(0) && !ended.stderr.contains("NOPERM"), "{ended:?}");
        assert!(!ended.stderr.contains("lacks rights") && !ended.stderr.contains("password"), "{}", ended.stderr);
    }

    // Each missing right is named.
    for right in CLUSTER.iter().chain(&["+evalsha", "+xrevrange", "+zadd", "&tidegate:{default}:*"]) {
        fleet.redis.set_user("gate", &without(&all, right)).await;
        assert_reported(&["--store", &store], right, !FURTHER.contains(right)).await;
    }
}
