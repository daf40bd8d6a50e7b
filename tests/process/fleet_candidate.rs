//! A candidate for the whole fleet: asked on every node, told of by all, put in force everywhere, taken away everywhere.

use redis::cmd;
use serde_json::{Value, json};

use crate::children::{Gateway, until};
use crate::fleet::{Fleet, digest, status};
use crate::guests::component;

const SHADOW: &str = "tidegate:{default}:policy:shadow";

/// What is told of the candidate, when it holds.
async fn told(fleet: &Fleet, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut told = Value::Null;
    until(what, async || {
        told = fleet.succeeds(&["shadow"]).await;
        holds(&told)
    })
    .await;
    told
}

fn on<'a>(told: &'a Value, node: &str) -> &'a Value {
    let nodes = told["nodes"].as_array().expect("a list");
    nodes.iter().find(|told| told["name"] == node).unwrap_or(&Value::Null)
}

/// What one node's control port tells.
async fn own(fleet: &Fleet, node: &Gateway) -> Value {
    let ended = fleet.run(&["policy", "shadow", "--json", "--control", &node.control.to_string()]).await;
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| json!(ended.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_asked_on_every_node_until_it_is_put_in_force() {
    let fleet = Fleet::unsigned().await;
    let [a, b, c] = fleet.nodes().await;
    fleet.write("deny.wasm", component("deny"));
    fleet.write("allow.wasm", component("allow"));
    fleet.write("trap.wasm", component("trap"));
    fleet.succeeds(&["push", "deny.wasm"]).await;
    fleet.fails(&["shadow"], "the fleet has no shadow policy").await;
    fleet.fails(&["promote"], "the fleet has no shadow policy").await;
    let given = fleet.succeeds(&["shadow", "allow.wasm", "--share", "1"]).await;
    for node in ["a", "b", "c"] {
        assert!(on(&given, node)["since"].is_u64(), "{given}");
    }
    for (times, node) in [(1, &a), (2, &b), (3, &c)] {
        for _ in 0..times {
            assert_eq!(status(node.data).await, 418, "it has no effect");
        }
    }
    let sum = told(&fleet, "all were compared", |told| told["counts"]["reject_to_allow"] == 6).await;
    assert_eq!(
        (&on(&sum, "a")["counts"]["reject_to_allow"], &on(&sum, "c")["counts"]["reject_to_allow"]),
        (&json!(1), &json!(3))
    );
    // What differs stays with its node.
    assert_eq!(sum["disagreements"], Value::Null, "{sum}");
    let of_b = own(&fleet, &b).await;
    assert_eq!((of_b["disagreements"].as_array().map(Vec::len), &of_b["counts"]), (Some(2), &sum["counts"]), "{of_b}");

    // One that starts later asks it too, and counts from then on.
    c.process.kill().await;
    let c = fleet.node("c").await;
    let again = |told: &Value| on(told, "c")["since"].is_u64() && on(told, "c")["counts"]["reject_to_allow"] == 0;
    assert_eq!(told(&fleet, "it asks it again", again).await["counts"]["reject_to_allow"], 3);
    // Another policy takes force: the candidate is compared with that.
    fleet.succeeds(&["push", "trap.wasm"]).await;
    assert_eq!(status(a.data).await, 500);
    told(&fleet, "it is compared with the new one", |told| on(told, "a")["counts"]["other"] == 1).await;

    fleet.fails(&["promote", "--digest", "sha256:other"], "the shadow policy is sha256:").await;
    let promoted = fleet.succeeds(&["promote"]).await;
    assert_eq!((promoted["nodes"].as_array().map(Vec::len), digest(&promoted)), (Some(3), digest_of(&given)));
    for node in [&a, &b, &c] {
        assert_eq!(status(node.data).await, 200);
        until("it asks nothing", async || own(&fleet, node).await.to_string().contains("there is no shadow policy"))
            .await;
    }
    fleet.fails(&["shadow"], "the fleet has no shadow policy").await;
}

fn digest_of(told: &Value) -> String {
    told["digest"].as_str().expect("a digest").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_refuses_a_candidate_says_so_and_the_others_ask_it() {
    let fleet = Fleet::unsigned().await;
    fleet.write("allow.wasm", component("allow"));
    fleet.write("slow.wasm", component("slow"));
    fleet.write("slow.cases.toml", "[[case]]\nname = \"in\"\nchannels = [\"c\"]\nexpect.allow = true\n");
    // The second node gives decisions less time than the candidate takes, and asks one of its own until the fleet has one.
    let a = fleet.node("a").await;
    let shadow = format!("policy.shadow = {{ file = {:?}, share = 1.0 }}", fleet.path("allow.wasm"));
    let b = Gateway::start(&format!("{}policy.timeout = \"5ms\"\n{shadow}\n", fleet.toml("b"))).await;
    until("it has its own", async || {
        own(&fleet, &b).await["source"].as_str().is_some_and(|from| from.contains("allow"))
    })
    .await;
    let control = a.control.to_string();
    let given = fleet.run(&["policy", "shadow", "allow.wasm", "--json", "--control", &control]).await;
    assert_eq!(given.code(), Some(0), "{given:?}");
    assert_eq!(own(&fleet, &b).await["source"], "fleet");

    let refused = fleet.fails(&["shadow", "slow.wasm", "--share", "1"], "node b did not reach stage tested").await;
    assert!(!refused.stderr.contains("node a"), "{refused:?}");
    let sum = fleet.succeeds(&["shadow"]).await;
    assert!(on(&sum, "a")["since"].is_u64() && on(&sum, "b")["since"].is_null(), "{sum}");
    assert_eq!(on(&sum, "b")["failure"]["stage"], "tested", "{sum}");
    // It stays in the store while it is one, and no longer than it may be in the middle of a push.
    let mut redis = fleet.redis.connect().await;
    let blob = format!("tidegate:{{default}}:policy:blobs:{}", digest_of(&sum).trim_start_matches("sha256:"));
    let ttl = async |redis: &mut redis::aio::MultiplexedConnection| -> i64 {
        cmd("PTTL").arg(&blob).query_async(redis).await.expect("Redis answers")
    };
    assert_eq!(ttl(&mut redis).await, -1);
    let stopped = fleet.succeeds(&["shadow", "--stop"]).await;
    assert_eq!(stopped["digest"], sum["digest"]);
    assert!(ttl(&mut redis).await > 0);
    fleet.fails(&["shadow", "--stop"], "the fleet has no shadow policy").await;
    until("nobody asks it", async || own(&fleet, &a).await.to_string().contains("there is no shadow policy")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_signed_as_a_policy_is_and_its_number_may_be_behind() {
    let fleet = Fleet::signed().await;
    let a = fleet.node("a").await;
    for name in ["deny", "allow", "trap"] {
        fleet.write(&format!("{name}.wasm"), component(name));
    }
    fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    fleet.fails(&["shadow", "allow.wasm"], "node a did not reach stage verified: it is not signed").await;
    let given = fleet.succeeds(&["shadow", "allow.wasm", "--share", "1", "--key", "release.pem"]).await;
    assert_eq!((&given["sequence"], on(&given, "a")["since"].is_u64()), (&json!(2), true), "{given}");
    fleet.succeeds(&["push", "trap.wasm", "--key", "release.pem", "--sequence", "5"]).await;
    // A node that starts behind that asks it all the same, and nobody can put it in force as it is.
    let b = fleet.node("b").await;
    told(&fleet, "it asks it", |told| on(told, "b")["since"].is_u64()).await;
    fleet.fails(&["promote"], "its sequence number 2 is not greater than 5").await;
    let through = ["policy", "promote", "--key", "release.pem", "--json", "--control", &b.control.to_string()];
    let promoted = fleet.run(&through).await;
    assert_eq!(promoted.code(), Some(0), "{promoted:?}");
    assert_eq!((status(a.data).await, status(b.data).await), (200, 200));
    fleet.fails(&["shadow"], "the fleet has no shadow policy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_candidate_is_in_the_way_of_nothing() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    fleet.write("deny.wasm", component("deny"));
    fleet.write("allow.wasm", component("allow"));
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let given = fleet.succeeds(&["shadow", "allow.wasm", "--share", "1"]).await;
    let mut redis = fleet.redis.connect().await;
    let note: Vec<u8> = cmd("GET").arg(SHADOW).query_async(&mut redis).await.expect("Redis answers");
    let note = String::from_utf8(note).expect("JSON");
    let word = async |what: &str| {
        until(what, async || {
            let status = fleet.succeeds(&["status"]).await;
            status["nodes"][0].to_string().contains(what)
        })
        .await;
    };
    let other = note.replace(&digest_of(&given), &format!("sha256:{}", "0".repeat(64)));
    let much = format!("{note}{}", " ".repeat(1 << 20));
    for (text, why) in
        [("{", "EOF"), (&*other, "does not have sha256:000"), (&much, "more than 16384"), ("\u{0}", "expected value")]
    {
        let () = cmd("SET").arg(SHADOW).arg(text).query_async(&mut redis).await.expect("Redis answers");
        word(why).await;
    }
    fleet.fails(&["shadow"], "cannot be read").await;
    assert_eq!(fleet.succeeds(&["shadow", "--stop"]).await, json!({ "unreadable": true }));
    // Another type of value: what else is in the store is heard as before.
    let () = cmd("RPUSH").arg(SHADOW).arg("x").query_async(&mut redis).await.expect("Redis answers");
    word("another type of value").await;
    fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!(status(a.data).await, 200);
    fleet.fails(&["promote"], "another type of value").await;
    let given = fleet.succeeds(&["shadow", "deny.wasm"]).await;
    assert!(on(&given, "a")["since"].is_u64(), "{given}");
    until("nothing is kept from it", async || fleet.succeeds(&["status"]).await["nodes"][0]["error"].is_null()).await;
}
