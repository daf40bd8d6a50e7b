//! Faults during a push: dying nodes, a store that loses data, disks, clocks, permissions and sequence numbers.

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};

use crate::fleet::{Fleet, digest, ready, status};
use crate::guests::component;
use crate::processes::{ChildProcess, Gateway, tidegate, wait_until};

const CURRENT: &str = "tidegate:{default}:policy:active";
const PENDING: &str = "tidegate:{default}:policy:pending";
const NODES: &str = "tidegate:{default}:nodes";

async fn redis_command<T: redis::FromRedisValue>(redis: &mut MultiplexedConnection, command: &[&str]) -> T {
    let (name, args) = command.split_first().expect("a command");
    let mut command = cmd(name);
    command.arg(args);
    command.query_async(redis).await.expect("Redis answers")
}

/// Waits for a pending push, and returns its record.
async fn wait_for_pending_push(redis: &mut MultiplexedConnection) -> Value {
    let mut record = String::new();
    wait_until("a push is pending", async || {
        record = redis_command::<Option<String>>(redis, &["GET", PENDING]).await.unwrap_or_default();
        !record.is_empty()
    })
    .await;
    serde_json::from_str(&record).expect("JSON")
}

/// Writes the heartbeat of a node without a process: the test reports its preparation, and it activates nothing.
async fn simulated_node(redis: &mut MultiplexedConnection, like: &str) {
    let node_status: String =
        redis_command(redis, &["GET", &format!("tidegate:{{default}}:nodes:status:{like}")]).await;
    let mut node_status: Value = serde_json::from_str(&node_status).expect("JSON");
    (node_status["name"], node_status["instance"], node_status["push_id"]) = (json!("ghost"), json!("1"), Value::Null);
    let () =
        redis_command(redis, &["SET", "tidegate:{default}:nodes:status:ghost", &node_status.to_string(), "EX", "600"])
            .await;
    let _: i64 = redis_command(redis, &["ZADD", NODES, "1", "ghost"]).await;
}

async fn prepare_simulated_node(redis: &mut MultiplexedConnection) {
    let push = wait_for_pending_push(redis).await["pointer"]["push_id"].as_str().expect("an id").to_owned();
    let key = format!("tidegate:{{default}}:policy:prepared:{push}");
    let _: i64 = redis_command(redis, &["HSET", &key, "ghost", r#"{"instance":"1","failure":null}"#]).await;
}

fn write(fleet: &Fleet, names: &[&str]) {
    for name in names {
        fleet.write(&format!("{name}.wasm"), component(name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_killed_during_prepare_prepares_again_after_its_restart() {
    let fleet = Fleet::unsigned().await;
    let [a, b] = [fleet.node("a").await, fleet.node("b").await];
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    b.process.signal("STOP").await;
    let mut redis = fleet.redis.connect().await;
    let others = async {
        wait_for_pending_push(&mut redis).await;
        b.process.kill().await;
        // The heartbeat of the killed process has not expired yet.
        fleet.node("b").await
    };
    let (pushed, b) = tokio::join!(fleet.succeeds(&["push", "allow.wasm"]), others);
    assert_eq!((status(a.data).await, pushed["activated"].as_bool()), (200, Some(true)));
    wait_until("the node activates the policy", async || status(b.data).await == 200).await;
    fleet.wait_for_digest(2, &digest(&pushed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_loses_a_push_changes_nothing() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let mut redis = fleet.redis.connect().await;
    for args in [&["push", "allow.wasm"][..], &["push", "allow.wasm", "--dry-run"]] {
        simulated_node(&mut redis, "a").await;
        // The node must not try to fetch the policy that the store has lost: it would refuse the push.
        a.process.signal("STOP").await;
        let lose_data = async {
            wait_for_pending_push(&mut redis).await;
            // Like a Redis that restarts without its data.
            let () = redis_command(&mut redis, &["FLUSHALL"]).await;
        };
        tokio::join!(fleet.fails(args, "the store lost this push"), lose_data);
        a.process.signal("CONT").await;
        wait_until("the node is live", async || fleet.succeeds(&["status"]).await["nodes"][0]["name"] == "a").await;
        assert_eq!(status(a.data).await, 418, "the active policy stays");
    }
    let pushed = fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!((pushed["sequence"].as_u64(), status(a.data).await), (Some(2), 200), "{pushed}");

    // The same after the commit: a node that has not read the record cannot read it any more, and the push does not wait for that node.
    simulated_node(&mut redis, "a").await;
    let lose_data = async {
        prepare_simulated_node(&mut redis).await;
        wait_until("node a activates the policy", async || status(a.data).await == 418).await;
        let () = redis_command(&mut redis, &["FLUSHALL"]).await;
    };
    tokio::join!(fleet.fails(&["push", "deny.wasm"], "the store lost it"), lose_data);
    assert_eq!(status(a.data).await, 418);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_waits_for_a_store_outage_after_the_commit() {
    let mut fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny"]);
    let mut redis = fleet.redis.connect().await;
    simulated_node(&mut redis, "a").await;
    let (url, file) = (fleet.redis.url(), fleet.path("deny.wasm"));
    let mut command = tidegate(&["policy", "push", "--json", "--store", &url]);
    command.arg(file);
    let pushing = ChildProcess::start(command);
    prepare_simulated_node(&mut redis).await;
    wait_until("node a activates the policy", async || status(a.data).await == 418).await;
    fleet.redis.kill().await;
    fleet.redis.restart().await;
    let mut redis = fleet.redis.connect().await;
    let current: String = redis_command(&mut redis, &["GET", CURRENT]).await;
    let current: Value = serde_json::from_str(&current).expect("JSON");
    let node_status: String = redis_command(&mut redis, &["GET", "tidegate:{default}:nodes:status:ghost"]).await;
    let mut node_status: Value = serde_json::from_str(&node_status).expect("JSON");
    node_status["push_id"] = current["push_id"].clone();
    let () =
        redis_command(&mut redis, &["SET", "tidegate:{default}:nodes:status:ghost", &node_status.to_string()]).await;
    let ended = pushing.end().await;
    assert!(ended.code() == Some(0) && ended.stdout.contains("\"activated\":true"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_push_is_refused_and_a_damaged_record_is_ignored() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny", "allow"]);
    let mut redis = fleet.redis.connect().await;
    let () = redis_command(&mut redis, &["SET", PENDING, "{"]).await;
    fleet.succeeds(&["push", "deny.wasm"]).await;
    simulated_node(&mut redis, "a").await;
    // A push through a gateway has a timeout, too.
    let control = a.control.to_string();
    let ended = fleet.run(&["policy", "push", "allow.wasm", "--timeout", "3s", "--control", &control]).await;
    assert!(
        ended.code() == Some(1)
            && ended.stderr.contains("after 2.25s it is not prepared on ghost; nothing was changed anywhere"),
        "{ended:?}"
    );
    let others = async {
        wait_for_pending_push(&mut redis).await;
        fleet.fails(&["push", "allow.wasm"], "another push is in progress").await;
        fleet.fails(&["push", "allow.wasm", "--dry-run"], "another push is in progress").await;
        prepare_simulated_node(&mut redis).await;
        // The push now waits for the simulated node, which reports the next push only.
        wait_until("node a activates the policy", async || status(a.data).await == 200).await;
        let record: String = redis_command(&mut redis, &["GET", CURRENT]).await;
        let next = record.replace("\"sequence\":2", "\"sequence\":3").replace("\"push_id\":\"", "\"push_id\":\"00");
        let at = next.find("\"push_id\":\"").expect("it exists") + "\"push_id\":\"".len();
        let next = format!("{}{}", &next[..at + 16], &next[at + 18..]);
        let () = redis_command(&mut redis, &["SET", CURRENT, &next]).await;
    };
    tokio::join!(fleet.fails(&["push", "allow.wasm"], "then another push replaced it, sequence 3"), others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_cannot_compile_or_store_a_policy_reports_it() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny", "allow"]);
    // The node starts before any policy is in its compilation cache.
    let toml = format!("{}policy.compile-timeout = \"1ms\"\n", fleet.toml("b"));
    let b = Gateway::start(&toml).await;
    fleet.fails(&["push", "deny.wasm"], "node b refuses it (not compiled)").await;
    b.process.kill().await;
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let b = Gateway::start(&toml).await;
    assert_eq!(status(b.data).await, 503, "all requests are refused");
    let readiness = ready(b.control).await;
    assert!(
        readiness.starts_with("HTTP/1.1 503") && readiness.contains("not compiled within policy.compile-timeout (1ms)"),
        "{readiness}"
    );
    b.process.kill().await;

    // The local copy cannot be written.
    let b = fleet.node("b").await;
    let folder = fleet.path("cache/b/nodes");
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::write(&folder, "not a directory").expect("written");
    fleet.fails(&["push", "allow.wasm"], "node b refuses it (not fetched): the local cache cannot be written").await;
    assert_eq!((status(a.data).await, status(b.data).await), (418, 418), "nothing was changed anywhere");
    std::fs::remove_file(&folder).expect("removed");
    fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!((status(a.data).await, status(b.data).await), (200, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_node_does_not_delay_a_push() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    let b = Gateway::start(&format!("{}drain.delay = \"2s\"\ndrain.duration = \"1s\"\n", fleet.toml("b"))).await;
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    b.process.signal("TERM").await;
    fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!(status(a.data).await, 200);
    assert_eq!(b.process.end().await.code(), Some(0));
    // The node announced its shutdown, so no push waits for it.
    assert_eq!(fleet.succeeds(&["push", "deny.wasm"]).await["nodes"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_clocks_may_differ_by_days() {
    let fleet = Fleet::unsigned().await;
    let _a = fleet.node("a").await;
    let mut redis = fleet.redis.connect().await;
    simulated_node(&mut redis, "a").await;
    let _: i64 = redis_command(&mut redis, &["ZADD", NODES, "2", "gone"]).await;
    // Nodes with clocks that are years slow and years fast.
    let _: i64 = redis_command(&mut redis, &["ZADD", NODES, "99999999999999", "a"]).await;
    let last_heartbeat = async |redis: &mut MultiplexedConnection| -> u64 {
        let node_status: String = redis_command(redis, &["GET", "tidegate:{default}:nodes:status:a"]).await;
        serde_json::from_str::<Value>(&node_status).expect("JSON")["last_seen"].as_u64().expect("a time")
    };
    let before = last_heartbeat(&mut redis).await;
    wait_until("the next heartbeat arrives", async || last_heartbeat(&mut redis).await > before).await;
    let status = fleet.succeeds(&["status"]).await;
    let names: Vec<_> = status["nodes"].as_array().expect("a list").iter().map(|node| node["name"].clone()).collect();
    assert_eq!(names, ["a", "ghost"]);
    let score = async |redis: &mut MultiplexedConnection, name: &str| {
        redis_command::<Option<f64>>(redis, &["ZSCORE", NODES, name]).await
    };
    assert!(score(&mut redis, "gone").await.is_some(), "reading removes nothing");
    let _b = fleet.node("b").await;
    assert!(score(&mut redis, "ghost").await.is_some() && score(&mut redis, "gone").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_store_permission_is_reported_and_does_not_block_a_push() {
    let fleet = Fleet::unsigned().await;
    let mut redis = fleet.redis.connect().await;
    let () =
        redis_command(&mut redis, &["ACL", "SETUSER", "node", "on", ">secret", "&*", "+@all", "~tidegate:{default}:*"])
            .await;
    let url = fleet.redis.url().replace("redis://", "redis://node:secret@");
    let a = Gateway::start(&fleet.toml("a").replace(&fleet.redis.url(), &url)).await;
    // All keys except that of the fleet's shadow policy. A start would be refused with these.
    let mut rule = vec!["ACL", "SETUSER", "node", "resetkeys"];
    let keys = [
        "tidegate:{default}:nodes",
        "tidegate:{default}:nodes:status:*",
        "tidegate:{default}:commands*",
        "tidegate:{default}:revocations*",
    ];
    let policy = ["active", "pending", "history", "blobs:*", "prepared:*"]
        .map(|key| format!("~tidegate:{{default}}:policy:{key}"));
    let keys = keys.map(|key| format!("~{key}"));
    rule.extend(keys.iter().map(|key| &**key).chain(policy.iter().map(|key| &**key)));
    let () = redis_command(&mut redis, &rule).await;
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    assert_eq!(status(a.data).await, 418);
    let error = fleet.succeeds(&["status"]).await["nodes"][0]["error"].to_string();
    assert!(error.contains("the store refuses a part of the heartbeat") && !error.contains("secret"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_rollback_goes_further_back() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["allow", "deny", "trap"]);
    for name in ["allow.wasm", "deny.wasm", "trap.wasm"] {
        fleet.succeeds(&["push", name]).await;
    }
    for expect in [418, 200] {
        fleet.succeeds(&["rollback"]).await;
        assert_eq!(status(a.data).await, expect);
    }
    fleet.fails(&["rollback"], "no other policy was active before").await;
    fleet.succeeds(&["rollback", "3"]).await;
    assert_eq!(status(a.data).await, 500);
    let rolled_back = fleet.run(&["policy", "rollback", "--control", &a.control.to_string()]).await;
    assert_eq!((rolled_back.code(), status(a.data).await), (Some(0), 418), "{rolled_back:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequence_over_the_maximum_is_rejected() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let mut redis = fleet.redis.connect().await;
    let record: String = redis_command(&mut redis, &["GET", CURRENT]).await;
    let max = record.replace("\"sequence\":1", &format!("\"sequence\":{}", u64::MAX));
    assert_ne!(max, record);
    let () = redis_command(&mut redis, &["SET", CURRENT, &max]).await;
    let _: i64 = redis_command(&mut redis, &["LPUSH", "tidegate:{default}:policy:history", &max]).await;
    wait_until("the record is rejected", async || {
        fleet.succeeds(&["status"]).await["nodes"][0]["error"].to_string().contains("is greater than 9007199254740991")
    })
    .await;
    assert_eq!(status(a.data).await, 418, "the active policy stays");
    let pushed = fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!((pushed["sequence"].as_u64(), status(a.data).await), (Some(2), 200));
    // The greatest sequence number is activated, and uses up none of the others.
    let last = record.replace("\"sequence\":1", "\"sequence\":9007199254740991");
    let () = redis_command(&mut redis, &["SET", CURRENT, &last]).await;
    wait_until("the policy is active", async || status(a.data).await == 418).await;
    let pushed = fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!((pushed["sequence"].as_u64(), status(a.data).await), (Some(3), 200));
}
