//! `tidegate revoke` on two nodes of one Redis.

use serde_json::{Value, json};

use crate::client::{Sse, Wire};
use crate::processes::{Gateway, ProcessOutput, run_tidegate, wait_until, with_timeout};
use crate::redis_server::{DURABLE, Redis};

async fn node(redis: &Redis, name: &str) -> Gateway {
    Gateway::start(&format!("store = \"{}\"\nallow-all = true\nfleet.node-name = \"{name}\"", redis.url())).await
}

async fn open(node: &Gateway, channel: &str) -> Sse {
    let mut sse = Sse::open(node.data, &format!("channel={channel}")).await;
    sse.connected(channel).await;
    sse
}

async fn status(node: &Gateway, channel: &str) -> u16 {
    let target = format!("/api/realtime?channel={channel}");
    with_timeout("an answer", Wire::get(node.data, &target, None, None)).await.expect("an answer").status
}

fn json_of(ended: &ProcessOutput) -> Value {
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

/// The result of a revocation that neither every node nor a replica has confirmed: the command prints it, and fails.
fn unconfirmed(ended: &ProcessOutput) -> Value {
    assert!(ended.code() == Some(1) && ended.stderr.contains("it is not replicated"), "{ended:?}");
    let result: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(result["not_replicated"], true, "{result}");
    result
}

async fn assert_ended(mut sse: Sse) {
    assert_eq!(sse.frame().await["type"], "reconnect");
    assert_eq!(sse.next().await, None);
}

#[tokio::test]
async fn revocation_ends_and_counts_streams_on_both_nodes() {
    let redis = Redis::start(&[]).await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let (control, store) = (b.control.to_string(), redis.url());
    for target in [["--control", &control], ["--store", &store]] {
        let mut streams = Vec::new();
        for node in [&a, &a, &b] {
            streams.push(open(node, "news").await);
        }
        let mut other = open(&b, "other").await;
        let output = run_tidegate(&[&["revoke", "--channel", "news", "--json"], &target[..]].concat()).await;
        assert_eq!(json_of(&output), json!({"streams": 3, "nodes": {"a": 2, "b": 1}, "missing": 0}));
        for sse in streams {
            assert_ended(sse).await;
        }
        let emitted = run_tidegate(&["emit", "other", "e", "1", "--store", &store]).await;
        assert_eq!(emitted.code(), Some(0), "{emitted:?}");
        assert_eq!(other.data().await, 1);
    }
    let output = run_tidegate(&["revoke", "--all", "--control", &control]).await;
    assert_eq!((output.code(), &*output.stdout), (Some(0), "closed 0 streams on 2 nodes\n"), "{output:?}");
    // A node that lost its link a moment ago receives no commands, but its status has not expired.
    let mut admin = redis.connect().await;
    let status = redis::cmd("GET").arg("tidegate:{default}:nodes:status:a").query_async(&mut admin).await;
    let mut status: Value = serde_json::from_str(&status.map(|text: String| text).expect("a status")).expect("JSON");
    status["name"] = json!("cut-off");
    let mut pipe = redis::pipe();
    pipe.set_ex("tidegate:{default}:nodes:status:cut-off", status.to_string(), 600);
    pipe.zadd("tidegate:{default}:nodes", "cut-off", 1);
    let () = pipe.query_async(&mut admin).await.expect("written");
    let output = run_tidegate(&["revoke", "--all", "--json", "--control", &control]).await;
    let expected = json!({"streams": 0, "nodes": {"a": 0, "b": 0}, "missing": 1, "not_replicated": true});
    assert_eq!(unconfirmed(&output), expected);
    // A replica that has it is enough.
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &redis.port.to_string()]).await;
    wait_until("the replica follows", async || {
        let role: String =
            redis::cmd("INFO").arg("replication").query_async(&mut replica.connect().await).await.expect("a text");
        role.contains("master_link_status:up")
    })
    .await;
    let output = run_tidegate(&["revoke", "--all", "--json", "--control", &control]).await;
    assert_eq!(json_of(&output), json!({"streams": 0, "nodes": {"a": 0, "b": 0}, "missing": 1}));
}

#[tokio::test]
async fn revocation_survives_node_starts_and_a_redis_restart() {
    let mut redis = Redis::start(DURABLE).await;
    let a = node(&redis, "a").await;
    let control = a.control.to_string();
    let output = run_tidegate(&["revoke", "--channel", "news", "--for", "1h", "--json", "--control", &control]).await;
    let id = json_of(&output)["revocation"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(status(&a, "news").await, 403);
    let b = node(&redis, "b").await;
    // The node loads the revocation before it delivers events.
    let _stream = open(&b, "other").await;
    assert_eq!(status(&b, "news").await, 403);

    let (unaffected, revoked) = (open(&a, "unaffected").await, open(&a, "revoked").await);
    redis.kill().await;
    assert_eq!(status(&a, "news").await, 403);
    let failed = run_tidegate(&["revoke", "--channel", "revoked", "--control", &control]).await;
    assert_eq!((failed.code(), &*failed.stdout), (Some(1), ""), "{failed:?}");
    assert!(failed.stderr.contains("ended 1 of its streams"), "{failed:?}");
    assert_ended(revoked).await;
    redis.restart().await;
    wait_until("Redis is reachable", async || {
        let output = run_tidegate(&["revoke", "--list", "--json", "--control", &control]).await;
        output.code() == Some(0) && output.stdout.contains(&id)
    })
    .await;
    assert_eq!((status(&a, "news").await, status(&b, "news").await), (403, 403));
    wait_until("both nodes receive commands", async || {
        let output = run_tidegate(&["revoke", "--subject", "unknown", "--json", "--store", &redis.url()]).await;
        // Until then the nodes are live and do not reply.
        serde_json::from_str::<Value>(&output.stdout).is_ok_and(|result| result["nodes"] == json!({"a": 0, "b": 0}))
    })
    .await;
    let store = redis.url();
    let lifted = run_tidegate(&["revoke", "--lift", &id, "--store", &store]).await;
    assert_eq!((lifted.code(), &*lifted.stdout), (Some(0), "removed\n"), "{lifted:?}");
    assert_eq!((status(&a, "news").await, status(&b, "news").await), (200, 200));
    let again = run_tidegate(&["revoke", "--lift", &id, "--control", &control]).await;
    assert_eq!((again.code(), &*again.stdout), (Some(1), ""), "{again:?}");
    let output = run_tidegate(&["revoke", "--channel", "unaffected", "--json", "--store", &store]).await;
    assert_eq!(json_of(&output)["streams"], 1, "a restart of a Redis that keeps its data closes no stream");
    assert_ended(unaffected).await;
}

#[tokio::test]
async fn empty_redis_ends_all_streams_and_receives_revocations_again() {
    let mut redis = Redis::start(&[]).await;
    let a = node(&redis, "a").await;
    let output = run_tidegate(&["revoke", "--channel", "news", "--for", "1h", "--store", &redis.url()]).await;
    assert!(output.stdout.contains("tidegate revoke --lift "), "{output:?}");
    let sse = open(&a, "other").await;
    redis.kill().await;
    redis.restart().await;
    assert_ended(sse).await;
    let _reconnected = open(&a, "other").await;
    assert_eq!(status(&a, "news").await, 403);
    let b = node(&redis, "b").await;
    let _stream = open(&b, "other").await;
    assert_eq!(status(&b, "news").await, 403);
}

#[tokio::test]
async fn suspended_node_applies_missed_commands_before_delivering_events() {
    let redis = Redis::start(&[]).await;
    let (a, b) = (node(&redis, "a").await, node(&redis, "b").await);
    let mut sse = open(&b, "news").await;
    let store = redis.url();
    let emit = async |data: &str| {
        let emitted = run_tidegate(&["emit", "news", "e", data, "--store", &store]).await;
        assert_eq!(emitted.code(), Some(0), "{emitted:?}");
    };
    emit("1").await;
    assert_eq!(sse.data().await, 1);
    b.process.signal("STOP").await;
    let output = run_tidegate(&["revoke", "--channel", "news", "--json", "--control", &a.control.to_string()]).await;
    let expected = json!({"streams": 0, "nodes": {"a": 0}, "missing": 1, "not_replicated": true});
    assert_eq!(unconfirmed(&output), expected);
    assert!(output.stderr.contains("1 node did not report"), "{output:?}");
    emit("2").await;
    b.process.signal("CONT").await;
    assert_ended(sse).await;
}

#[tokio::test]
async fn invalid_commands_do_not_flood_the_log() {
    let redis = Redis::start(&[]).await;
    let a = node(&redis, "a").await;
    let sse = open(&a, "news").await;
    let mut noise = redis::cmd("EVAL");
    noise.arg("for _ = 1, 300 do redis.call('XADD', KEYS[1], '*', 'event', 'noise', 'data', '1') end");
    let () = noise
        .arg(1)
        .arg("tidegate:{default}:commands")
        .query_async(&mut redis.connect().await)
        .await
        .expect("they are added");
    let output = run_tidegate(&["revoke", "--channel", "news", "--json", "--store", &redis.url()]).await;
    assert_eq!(json_of(&output), json!({"streams": 1, "nodes": {"a": 1}, "missing": 0}));
    assert_ended(sse).await;
    let is_logged_once = |log: &str| log.contains("entries=300") && log.matches("skipped").count() == 2;
    assert!(
        with_timeout("the log has one line about skipped entries", a.process.stderr.wait_for(is_logged_once)).await
    );
}

#[tokio::test]
async fn invalid_revoke_arguments_are_reported() {
    for (args, word) in [
        (&["revoke"][..], "--subject"),
        (&["revoke", "--all", "--subject", "a"], "cannot be used with"),
        (&["revoke", "--list", "--all"], "cannot be used with"),
        (&["revoke", "--subject", "a", "--for", "31days"], "30days"),
        (&["revoke", "--subject", "a", "--for", "soon"], "--for"),
        (&["revoke", "--all", "--store", "memory:"], "--control"),
    ] {
        let output = run_tidegate(args).await;
        assert_eq!((output.code(), &*output.stdout), (Some(2), ""), "{args:?}: {output:?}");
        assert!(output.stderr.contains(word), "{args:?}: {output:?}");
    }
}

#[tokio::test]
async fn gateway_without_redis_is_a_single_node() {
    let gateway = Gateway::start("store = \"memory:\"\nallow-all = true\nfleet.node-name = \"alone\"").await;
    let control = gateway.control.to_string();
    let sse = open(&gateway, "news").await;
    let output = run_tidegate(&["revoke", "--channel", "news", "--for", "2s", "--control", &control]).await;
    assert!(output.stdout.starts_with("closed 1 stream on 1 node\nrevoked until "), "{output:?}");
    assert_ended(sse).await;
    wait_until("the revocation has expired", async || status(&gateway, "news").await == 200).await;
    let output = run_tidegate(&["revoke", "--list", "--control", &control]).await;
    assert_eq!(output.stdout, "no active revocations\n", "{output:?}");
}

#[tokio::test]
async fn node_without_command_permission_delivers_no_events_and_reports_why() {
    let redis = Redis::start(&[]).await;
    let set_user = async |rules: &[&str]| {
        let mut user = redis::cmd("ACL");
        user.arg("SETUSER").arg("narrow").arg(rules);
        user.exec_async(&mut redis.connect().await).await.expect("the rule is valid");
    };
    set_user(&["on", ">secret", "~*", "&*", "+@all"]).await;
    let store = format!("redis://narrow:secret@127.0.0.1:{}", redis.port);
    let gateway =
        Gateway::start(&format!("store = \"{store}\"\nallow-all = true\nstream.ping-interval = \"1s\"")).await;
    // A node that starts without this right ends with an error.
    set_user(&["resetchannels", "&news"]).await;
    gateway.process.stderr.wait_for_text("event delivery is paused").await;
    let mut wire = with_timeout("the response head", Wire::get(gateway.data, "/api/realtime?channel=news", None, None))
        .await
        .expect("an answer");
    let ready = with_timeout("an answer", Wire::get(gateway.control, "/readyz", None, None)).await.expect("an answer");
    assert!(ready.status == 503 && ready.body().contains("unsynced"), "{}", ready.body());
    while !wire.body().contains("ping") {
        assert!(with_timeout("a ping", wire.read_more(1 << 10)).await.expect("the stream stays"));
    }
    assert!(!wire.body().contains("connected"), "{}", wire.body());
}

const REVOCATIONS: &str = "tidegate:{default}:revocations";

#[tokio::test]
async fn listing_writes_nothing_and_the_next_revocation_removes_those_that_ended() {
    let redis = Redis::start(&[]).await;
    let a = node(&redis, "a").await;
    let mut admin = redis.connect().await;
    let (store, control) = (redis.url(), a.control.to_string());
    let active = run_tidegate(&["revoke", "--channel", "news", "--for", "1h", "--json", "--store", &store]).await;
    let active = json_of(&active)["revocation"]["id"].clone();
    let ended = json!({"id": "ended", "subject": "alice", "until": 1_600_000_000_000_u64});
    let () = redis::cmd("HSET")
        .arg(REVOCATIONS)
        .arg("ended")
        .arg(ended.to_string())
        .query_async(&mut admin)
        .await
        .expect("set");
    let count = async |admin: &mut redis::aio::MultiplexedConnection| -> usize {
        redis::cmd("HLEN").arg(REVOCATIONS).query_async(admin).await.expect("a number")
    };
    // Users who may only read can list, too.
    for (name, rights) in [
        ("reads", "+@read"),
        ("has-no-time", "+@all -time"),
        ("all-but-writes", "+@all -@write"),
        ("read-keys", "+@all"),
    ] {
        let keys = if name == "read-keys" { "%R~*" } else { "~*" };
        let mut user = redis::cmd("ACL");
        user.arg("SETUSER").arg(name).arg(&["on", ">secret", keys, "&*"]).arg(rights.split(' ').collect::<Vec<_>>());
        user.arg("+@connection");
        let _: () = user.query_async(&mut admin).await.expect("the rule is valid");
        let url = format!("redis://{name}:secret@127.0.0.1:{}", redis.port);
        let list = json_of(&run_tidegate(&["revoke", "--list", "--json", "--store", &url]).await);
        let ids: Vec<&Value> = list["revocations"].as_array().expect("a list").iter().map(|it| &it["id"]).collect();
        // Without the right to TIME it is not known which have ended.
        assert!(ids.contains(&&active) && ids.len() == if list["now"].is_null() { 2 } else { 1 }, "{name}: {list}");
        assert_eq!(list["now"].is_null(), ["reads", "has-no-time"].contains(&name), "{name}: {list}");
    }
    for target in [["--store", &store], ["--control", &control]] {
        let list = json_of(&run_tidegate(&[&["revoke", "--list", "--json"], &target[..]].concat()).await);
        assert_eq!(list["revocations"].as_array().map(Vec::len), Some(1), "{list}");
    }
    assert_eq!(count(&mut admin).await, 2);
    json_of(&run_tidegate(&["revoke", "--subject", "bob", "--for", "1h", "--json", "--store", &store]).await);
    let left: Vec<String> = redis::cmd("HKEYS").arg(REVOCATIONS).query_async(&mut admin).await.expect("a list");
    assert!(left.len() == 2 && !left.contains(&"ended".to_owned()), "{left:?}");
}

#[tokio::test]
async fn forged_texts_do_not_reach_the_terminal() {
    let redis = Redis::start(&[]).await;
    let a = node(&redis, "a").await;
    let forged = "\u{1b}[2J\nid  until 2030-01-01T00:00:00Z  all streams\u{9b}1m\u{202e}\u{7f}";
    let revocation = json!({"id": forged, "subject": forged, "channel": forged, "until": 9_999_999_999_999_u64});
    let mut set = redis::cmd("HSET");
    set.arg(REVOCATIONS).arg(forged).arg(revocation.to_string());
    let () = set.query_async(&mut redis.connect().await).await.expect("set");
    let is_hidden = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    let (store, control) = (redis.url(), a.control.to_string());
    for target in [["--store", &store], ["--control", &control]] {
        let shown = run_tidegate(&[&["revoke", "--list"], &target[..]].concat()).await;
        assert_eq!((shown.code(), shown.stdout.lines().count()), (Some(0), 1), "{shown:?}");
        assert!(!shown.stdout.contains(is_hidden), "{shown:?}");
        let json = run_tidegate(&[&["revoke", "--list", "--json"], &target[..]].concat()).await;
        assert!(!json.stdout.contains(is_hidden) && json.stdout.lines().count() == 1, "{json:?}");
        let revocation = &json_of(&json)["revocations"][0];
        assert_eq!((&revocation["id"], &revocation["subject"]), (&json!(forged), &json!(forged)));
        let failed = run_tidegate(&[&["revoke", "--lift", "\u{1b}[2J"], &target[..]].concat()).await;
        assert!(failed.code() == Some(1) && !failed.stderr.contains(is_hidden), "{failed:?}");
    }
    // The JSON text has the id to lift it.
    let lifted = run_tidegate(&["revoke", "--lift", forged, "--control", &control]).await;
    assert_eq!((lifted.code(), &*lifted.stdout), (Some(0), "removed\n"), "{lifted:?}");
}
