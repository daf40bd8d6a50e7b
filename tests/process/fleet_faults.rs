//! What goes wrong around a push: nodes that die, a store that forgets, disks, clocks, rights and numbers that are not as they should be.

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};

use crate::children::{Gateway, Running, tidegate, until};
use crate::fleet::{Fleet, digest, ready, status};
use crate::guests::component;

const CURRENT: &str = "tidegate:policy:current";
const CANDIDATE: &str = "tidegate:policy:candidate";
const NODES: &str = "tidegate:nodes";

async fn ask<T: redis::FromRedisValue>(redis: &mut MultiplexedConnection, command: &[&str]) -> T {
    let (name, args) = command.split_first().expect("a command");
    let mut asked = cmd(name);
    asked.arg(args);
    asked.query_async(redis).await.expect("Redis answers")
}

/// What is to be prepared, as soon as something is.
async fn candidate(redis: &mut MultiplexedConnection) -> Value {
    let mut note = String::new();
    until("a push is under way", async || {
        note = ask::<Option<String>>(redis, &["GET", CANDIDATE]).await.unwrap_or_default();
        !note.is_empty()
    })
    .await;
    serde_json::from_str(&note).expect("JSON")
}

/// A node that is there only by its word: it prepares what the test says, and puts nothing in force.
async fn ghost(redis: &mut MultiplexedConnection, like: &str) {
    let word: String = ask(redis, &["GET", &format!("tidegate:node:{like}")]).await;
    let mut word: Value = serde_json::from_str(&word).expect("JSON");
    (word["name"], word["instance"], word["push"]) = (json!("ghost"), json!("1"), Value::Null);
    let () = ask(redis, &["SET", "tidegate:node:ghost", &word.to_string(), "EX", "600"]).await;
    let _: i64 = ask(redis, &["ZADD", NODES, "1", "ghost"]).await;
}

async fn ghost_is_ready(redis: &mut MultiplexedConnection) {
    let push = candidate(redis).await["pointer"]["push"].as_str().expect("its name").to_owned();
    let key = format!("tidegate:policy:prepared:{push}");
    let _: i64 = ask(redis, &["HSET", &key, "ghost", r#"{"instance":"1","refused":null}"#]).await;
}

fn write(fleet: &Fleet, names: &[&str]) {
    for name in names {
        fleet.write(&format!("{name}.wasm"), component(name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_while_it_prepares_prepares_it_when_it_is_back() {
    let fleet = Fleet::unsigned().await;
    let [a, b] = [fleet.node("a").await, fleet.node("b").await];
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    b.process.signal("STOP").await;
    let mut redis = fleet.redis.connect().await;
    let others = async {
        candidate(&mut redis).await;
        b.process.kill().await;
        // Its word still holds, and the word is another process's.
        fleet.node("b").await
    };
    let (pushed, b) = tokio::join!(fleet.succeeds(&["push", "allow.wasm"]), others);
    assert_eq!((status(a.data).await, pushed["in_force"].as_bool()), (200, Some(true)));
    until("it has it", async || status(b.data).await == 200).await;
    fleet.all_have(2, &digest(&pushed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgets_in_the_middle_of_a_push_changes_nothing() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let mut redis = fleet.redis.connect().await;
    for args in [&["push", "allow.wasm"][..], &["push", "allow.wasm", "--dry-run"]] {
        ghost(&mut redis, "a").await;
        let forgets = async {
            candidate(&mut redis).await;
            // As a Redis that is restarted without its data.
            let () = ask(&mut redis, &["FLUSHALL"]).await;
        };
        tokio::join!(fleet.fails(args, "the store forgot this push"), forgets);
        assert_eq!(status(a.data).await, 418, "what was in force stays");
    }
    let pushed = fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!((pushed["sequence"].as_u64(), status(a.data).await), (Some(2), 200), "{pushed}");

    // The same behind the flip: whoever has not heard of it will not any more, and nobody waits for that.
    ghost(&mut redis, "a").await;
    let forgets = async {
        ghost_is_ready(&mut redis).await;
        until("a has it", async || status(a.data).await == 418).await;
        let () = ask(&mut redis, &["FLUSHALL"]).await;
    };
    tokio::join!(fleet.fails(&["push", "deny.wasm"], "the store lost it"), forgets);
    assert_eq!(status(a.data).await, 418);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_for_a_moment_behind_the_flip_is_waited_for() {
    let mut fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny"]);
    let mut redis = fleet.redis.connect().await;
    ghost(&mut redis, "a").await;
    let (url, file) = (fleet.redis.url(), fleet.path("deny.wasm"));
    let mut command = tidegate(&["policy", "push", "--json", "--store", &url]);
    command.arg(file);
    let pushing = Running::start(command);
    ghost_is_ready(&mut redis).await;
    until("a has it", async || status(a.data).await == 418).await;
    fleet.redis.kill().await;
    fleet.redis.restart().await;
    let mut redis = fleet.redis.connect().await;
    let current: String = ask(&mut redis, &["GET", CURRENT]).await;
    let current: Value = serde_json::from_str(&current).expect("JSON");
    let word: String = ask(&mut redis, &["GET", "tidegate:node:ghost"]).await;
    let mut word: Value = serde_json::from_str(&word).expect("JSON");
    word["push"] = current["push"].clone();
    let () = ask(&mut redis, &["SET", "tidegate:node:ghost", &word.to_string()]).await;
    let ended = pushing.end().await;
    assert!(ended.code() == Some(0) && ended.stdout.contains("\"in_force\":true"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_push_there_is_no_other_and_what_no_push_wrote_is_none() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny", "allow"]);
    let mut redis = fleet.redis.connect().await;
    let () = ask(&mut redis, &["SET", CANDIDATE, "{"]).await;
    fleet.succeeds(&["push", "deny.wasm"]).await;
    ghost(&mut redis, "a").await;
    // A gateway that pushes waits no longer than it was told.
    let control = a.control.to_string();
    let ended = fleet.run(&["policy", "push", "allow.wasm", "--timeout", "300ms", "--control", &control]).await;
    assert!(ended.code() == Some(1) && ended.stderr.contains("after 300ms it is not prepared on ghost"), "{ended:?}");
    let others = async {
        candidate(&mut redis).await;
        fleet.fails(&["push", "allow.wasm"], "another push is under way").await;
        fleet.fails(&["push", "allow.wasm", "--dry-run"], "another push is under way").await;
        ghost_is_ready(&mut redis).await;
        // It waits for the ghost now, which hears of the next one only.
        until("a has it", async || status(a.data).await == 200).await;
        let note: String = ask(&mut redis, &["GET", CURRENT]).await;
        let next = note.replace("\"sequence\":2", "\"sequence\":3").replace("\"push\":\"", "\"push\":\"00");
        let cut = next.find("\"push\":\"").expect("it is there") + "\"push\":\"".len();
        let next = format!("{}{}", &next[..cut + 16], &next[cut + 18..]);
        let () = ask(&mut redis, &["SET", CURRENT, &next]).await;
    };
    tokio::join!(fleet.fails(&["push", "allow.wasm"], "then another push, number 3"), others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_compile_or_keep_it_says_so() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny", "allow"]);
    // It is there before anything that it could have kept compiled.
    let toml = format!("{}policy.compile-timeout = \"1ms\"\n", fleet.toml("b"));
    let b = Gateway::start(&toml).await;
    fleet.fails(&["push", "deny.wasm"], "node b refuses it (not compiled)").await;
    b.process.kill().await;
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let b = Gateway::start(&toml).await;
    assert_eq!(status(b.data).await, 503, "it lets nobody in");
    let told = ready(b.control).await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("not compiled after 1ms"), "{told}");
    b.process.kill().await;

    // Nothing can be written where it keeps it.
    let b = fleet.node("b").await;
    let folder = fleet.path("cache/b/nodes");
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::write(&folder, "in the way").expect("written");
    fleet.fails(&["push", "allow.wasm"], "node b refuses it (not fetched): it cannot be kept on this machine").await;
    assert_eq!((status(a.data).await, status(b.data).await), (418, 418), "nothing was changed anywhere");
    std::fs::remove_file(&folder).expect("removed");
    fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!((status(a.data).await, status(b.data).await), (200, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_is_in_nobodys_way() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    let b = Gateway::start(&format!("{}drain.delay = \"2s\"\ndrain.time = \"1s\"\n", fleet.toml("b"))).await;
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    b.process.signal("TERM").await;
    fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!(status(a.data).await, 200);
    assert_eq!(b.process.end().await.code(), Some(0));
    // It said that it goes, so that nobody waits for it.
    assert_eq!(fleet.succeeds(&["push", "deny.wasm"]).await["nodes"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_of_nodes_may_differ_by_days() {
    let fleet = Fleet::unsigned().await;
    let _a = fleet.node("a").await;
    let mut redis = fleet.redis.connect().await;
    ghost(&mut redis, "a").await;
    let _: i64 = ask(&mut redis, &["ZADD", NODES, "2", "gone"]).await;
    // Nodes whose clocks are years behind and ahead.
    let _: i64 = ask(&mut redis, &["ZADD", NODES, "99999999999999", "a"]).await;
    let beats = async |redis: &mut MultiplexedConnection| -> u64 {
        let word: String = ask(redis, &["GET", "tidegate:node:a"]).await;
        serde_json::from_str::<Value>(&word).expect("JSON")["seen"].as_u64().expect("a time")
    };
    let before = beats(&mut redis).await;
    until("it gave word again", async || beats(&mut redis).await > before).await;
    let status = fleet.succeeds(&["status"]).await;
    let names: Vec<_> = status["nodes"].as_array().expect("a list").iter().map(|node| node["name"].clone()).collect();
    assert_eq!(names, ["a", "ghost"]);
    let score =
        async |redis: &mut MultiplexedConnection, name: &str| ask::<Option<f64>>(redis, &["ZSCORE", NODES, name]).await;
    assert!(score(&mut redis, "ghost").await.is_some() && score(&mut redis, "gone").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_keeps_from_a_node_is_told_and_in_the_way_of_nothing_else() {
    let fleet = Fleet::unsigned().await;
    let mut redis = fleet.redis.connect().await;
    // All but the fleet's candidate.
    let mut rule = vec!["ACL", "SETUSER", "node", "on", ">secret", "&*", "+@all"];
    let keys = ["tidegate:nodes", "tidegate:node:*", "tidegate:commands*", "tidegate:denied*"];
    let policy =
        ["current", "candidate", "history", "blob:*", "prepared:*"].map(|key| format!("~tidegate:policy:{key}"));
    let keys = keys.map(|key| format!("~{key}"));
    rule.extend(keys.iter().map(|key| &**key).chain(policy.iter().map(|key| &**key)));
    let () = ask(&mut redis, &rule).await;
    let url = fleet.redis.url().replace("redis://", "redis://node:secret@");
    let a = Gateway::start(&fleet.toml("a").replace(&fleet.redis.url(), &url)).await;
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    assert_eq!(status(a.data).await, 418);
    let said = fleet.succeeds(&["status"]).await["nodes"][0]["error"].to_string();
    assert!(said.contains("the store keeps a part of the fleet from this node") && !said.contains("secret"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_twice_is_two_back() {
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
    fleet.fails(&["rollback"], "nothing else was in force before").await;
    fleet.succeeds(&["rollback", "3"]).await;
    assert_eq!(status(a.data).await, 500);
    let through = fleet.run(&["policy", "rollback", "--control", &a.control.to_string()]).await;
    assert_eq!((through.code(), status(a.data).await), (Some(0), 418), "{through:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_nothing_is_greater_than_is_none() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    write(&fleet, &["deny", "allow"]);
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let mut redis = fleet.redis.connect().await;
    let note: String = ask(&mut redis, &["GET", CURRENT]).await;
    let max = note.replace("\"sequence\":1", &format!("\"sequence\":{}", u64::MAX));
    assert_ne!(max, note);
    let () = ask(&mut redis, &["SET", CURRENT, &max]).await;
    let _: i64 = ask(&mut redis, &["LPUSH", "tidegate:policy:history", &max]).await;
    until("it is refused", async || {
        fleet.succeeds(&["status"]).await["nodes"][0]["error"].to_string().contains("they go to 9007199254740991")
    })
    .await;
    assert_eq!(status(a.data).await, 418, "what was in force stays");
    let pushed = fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!((pushed["sequence"].as_u64(), status(a.data).await), (Some(2), 200));
    // The greatest that there is takes force, and nothing behind it.
    let last = note.replace("\"sequence\":1", "\"sequence\":9007199254740991");
    let () = ask(&mut redis, &["SET", CURRENT, &last]).await;
    until("it is in force", async || status(a.data).await == 418).await;
    fleet.fails(&["push", "allow.wasm"], "no number is greater than 9007199254740991").await;
}
