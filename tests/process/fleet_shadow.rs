//! A shadow policy of the whole fleet: evaluated and reported on every node, promoted and stopped everywhere.

use redis::cmd;
use serde_json::{Value, json};

use crate::fleet::{Fleet, digest, status};
use crate::guests::component;
use crate::processes::{Gateway, wait_until};

const SHADOW: &str = "tidegate:{default}:policy:shadow";

/// Waits until the report of the shadow policy fulfils a condition, and returns the report.
async fn wait_for_shadow(fleet: &Fleet, condition: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut reply = Value::Null;
    wait_until(condition, async || {
        reply = fleet.succeeds(&["shadow"]).await;
        holds(&reply)
    })
    .await;
    reply
}

fn node_in<'a>(reply: &'a Value, node: &str) -> &'a Value {
    let nodes = reply["nodes"].as_array().expect("a list");
    nodes.iter().find(|reply| reply["name"] == node).unwrap_or(&Value::Null)
}

/// The report of one node's control port.
async fn node_shadow(fleet: &Fleet, node: &Gateway) -> Value {
    let ended = fleet.run(&["policy", "shadow", "--json", "--control", &node.control.to_string()]).await;
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| json!(ended.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadow_policy_is_evaluated_on_every_node_until_promoted() {
    let fleet = Fleet::unsigned().await;
    let [a, b, c] = fleet.nodes().await;
    fleet.write("deny.wasm", component("deny"));
    fleet.write("allow.wasm", component("allow"));
    fleet.write("trap.wasm", component("trap"));
    fleet.succeeds(&["push", "deny.wasm"]).await;
    fleet.fails(&["shadow"], "the fleet has no shadow policy").await;
    fleet.fails(&["promote"], "the fleet has no shadow policy").await;
    let started = fleet.succeeds(&["shadow", "allow.wasm", "--share", "1"]).await;
    for node in ["a", "b", "c"] {
        assert!(node_in(&started, node)["since"].is_u64(), "{started}");
    }
    for (times, node) in [(1, &a), (2, &b), (3, &c)] {
        for _ in 0..times {
            assert_eq!(status(node.data).await, 418, "the shadow policy has no effect");
        }
    }
    let sum =
        wait_for_shadow(&fleet, "all decisions were compared", |reply| reply["counts"]["reject_to_allow"] == 6).await;
    assert_eq!(
        (&node_in(&sum, "a")["counts"]["reject_to_allow"], &node_in(&sum, "c")["counts"]["reject_to_allow"]),
        (&json!(1), &json!(3))
    );
    // Disagreements are kept on their node.
    assert_eq!(sum["disagreements"], Value::Null, "{sum}");
    let report_of_b = node_shadow(&fleet, &b).await;
    assert_eq!(
        (report_of_b["disagreements"].as_array().map(Vec::len), &report_of_b["counts"]),
        (Some(2), &sum["counts"]),
        "{report_of_b}"
    );

    // A node that starts later evaluates the shadow policy, too, and counts from its start.
    c.process.kill().await;
    let c = fleet.node("c").await;
    let restarted =
        |reply: &Value| node_in(reply, "c")["since"].is_u64() && node_in(reply, "c")["counts"]["reject_to_allow"] == 0;
    assert_eq!(
        wait_for_shadow(&fleet, "the restarted node evaluates the shadow policy", restarted).await["counts"]["reject_to_allow"],
        3
    );
    // After an activation the shadow policy is compared with the new active policy.
    fleet.succeeds(&["push", "trap.wasm"]).await;
    assert_eq!(status(a.data).await, 500);
    wait_for_shadow(&fleet, "the shadow policy is compared with the new active policy", |reply| {
        node_in(reply, "a")["counts"]["other"] == 1
    })
    .await;

    fleet.fails(&["promote", "--digest", "sha256:other"], "the shadow policy is sha256:").await;
    let promoted = fleet.succeeds(&["promote"]).await;
    assert_eq!((promoted["nodes"].as_array().map(Vec::len), digest(&promoted)), (Some(3), digest_of(&started)));
    for node in [&a, &b, &c] {
        assert_eq!(status(node.data).await, 200);
        wait_until("the node has no shadow policy", async || {
            node_shadow(&fleet, node).await.to_string().contains("there is no shadow policy")
        })
        .await;
    }
    fleet.fails(&["shadow"], "the fleet has no shadow policy").await;
}

fn digest_of(reply: &Value) -> String {
    reply["digest"].as_str().expect("a digest").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_rejects_a_shadow_policy_reports_it_and_others_evaluate_it() {
    let fleet = Fleet::unsigned().await;
    fleet.write("allow.wasm", component("allow"));
    fleet.write("slow.wasm", component("slow"));
    fleet.write(
        "slow.cases.toml",
        "[[case]]\nname = \"the channel is allowed\"\nchannels = [\"c\"]\nexpect.allow = true\n",
    );
    // The second node's timeout is shorter than the policy needs, and its own shadow policy applies until the fleet has one.
    let a = fleet.node("a").await;
    let shadow = format!("policy.shadow = {{ file = {:?}, share = 1.0 }}", fleet.path("allow.wasm"));
    let b = Gateway::start(&format!("{}policy.timeout = \"5ms\"\n{shadow}\n", fleet.toml("b"))).await;
    wait_until("the node has its own shadow policy", async || {
        node_shadow(&fleet, &b).await["source"].as_str().is_some_and(|from| from.contains("allow"))
    })
    .await;
    let control = a.control.to_string();
    let started = fleet.run(&["policy", "shadow", "allow.wasm", "--json", "--control", &control]).await;
    assert_eq!(started.code(), Some(0), "{started:?}");
    assert_eq!(node_shadow(&fleet, &b).await["source"], "fleet");

    let refused = fleet.fails(&["shadow", "slow.wasm", "--share", "1"], "node b did not reach stage tested").await;
    assert!(!refused.stderr.contains("node a"), "{refused:?}");
    let sum = fleet.succeeds(&["shadow"]).await;
    assert!(node_in(&sum, "a")["since"].is_u64() && node_in(&sum, "b")["since"].is_null(), "{sum}");
    assert_eq!(node_in(&sum, "b")["failure"]["stage"], "tested", "{sum}");
    // The component stays in the store while it is the shadow policy; after that it expires.
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
    wait_until("no shadow policy is evaluated", async || {
        node_shadow(&fleet, &a).await.to_string().contains("there is no shadow policy")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadow_policy_needs_a_signature_and_may_have_an_older_sequence() {
    let fleet = Fleet::signed().await;
    let a = fleet.node("a").await;
    for name in ["deny", "allow", "trap"] {
        fleet.write(&format!("{name}.wasm"), component(name));
    }
    fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    fleet.fails(&["shadow", "allow.wasm"], "node a did not reach stage verified: the policy is not signed").await;
    let started = fleet.succeeds(&["shadow", "allow.wasm", "--share", "1", "--key", "release.pem"]).await;
    assert_eq!((&started["sequence"], node_in(&started, "a")["since"].is_u64()), (&json!(2), true), "{started}");
    fleet.succeeds(&["push", "trap.wasm", "--key", "release.pem", "--sequence", "5"]).await;
    // A node that starts later evaluates the shadow policy, too, and its sequence number is too small for a promotion.
    let b = fleet.node("b").await;
    wait_for_shadow(&fleet, "the new node evaluates the shadow policy", |reply| node_in(reply, "b")["since"].is_u64())
        .await;
    fleet.fails(&["promote"], "the sequence number 2 is less than 5").await;
    let promote = ["policy", "promote", "--key", "release.pem", "--json", "--control", &b.control.to_string()];
    let promoted = fleet.run(&promote).await;
    assert_eq!(promoted.code(), Some(0), "{promoted:?}");
    assert_eq!((status(a.data).await, status(b.data).await), (200, 200));
    fleet.fails(&["shadow"], "the fleet has no shadow policy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_shadow_record_does_not_block_pushes() {
    let fleet = Fleet::unsigned().await;
    let a = fleet.node("a").await;
    fleet.write("deny.wasm", component("deny"));
    fleet.write("allow.wasm", component("allow"));
    fleet.succeeds(&["push", "deny.wasm"]).await;
    let started = fleet.succeeds(&["shadow", "allow.wasm", "--share", "1"]).await;
    let mut redis = fleet.redis.connect().await;
    let record: Vec<u8> = cmd("GET").arg(SHADOW).query_async(&mut redis).await.expect("Redis answers");
    let record = String::from_utf8(record).expect("JSON");
    let wait_for_error = async |error: &str| {
        wait_until(error, async || {
            let status = fleet.succeeds(&["status"]).await;
            status["nodes"][0].to_string().contains(error)
        })
        .await;
    };
    let other = record.replace(&digest_of(&started), &format!("sha256:{}", "0".repeat(64)));
    let too_large = format!("{record}{}", " ".repeat(1 << 20));
    for (text, error) in [
        ("{", "EOF"),
        (&*other, "does not have sha256:000"),
        (&too_large, "more than 16384"),
        ("\u{0}", "expected value"),
    ] {
        let () = cmd("SET").arg(SHADOW).arg(text).query_async(&mut redis).await.expect("Redis answers");
        wait_for_error(error).await;
    }
    fleet.fails(&["shadow"], "cannot be read").await;
    assert_eq!(fleet.succeeds(&["shadow", "--stop"]).await, json!({ "unreadable": true }));
    // A key of another type does not affect the other records in the store.
    let () = cmd("RPUSH").arg(SHADOW).arg("x").query_async(&mut redis).await.expect("Redis answers");
    wait_for_error("another type of value").await;
    fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!(status(a.data).await, 200);
    fleet.fails(&["promote"], "another type of value").await;
    let started = fleet.succeeds(&["shadow", "deny.wasm"]).await;
    assert!(node_in(&started, "a")["since"].is_u64(), "{started}");
    wait_until("the node reports no error", async || fleet.succeeds(&["status"]).await["nodes"][0]["error"].is_null())
        .await;
}
