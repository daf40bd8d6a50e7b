//! Trust in a fleet: signatures, pushes through gateways, and the local copy that a node starts with.

use redis::cmd;
use serde_json::Value;
use tidegate::artifact::digest::Digest;

use crate::fleet::{Fleet, digest, status};
use crate::guests::component;
use crate::processes::{Gateway, run, tidegate, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_policy_is_activated_only_with_a_new_signature() {
    let fleet = Fleet::signed().await;
    let a = fleet.node("a").await;
    fleet.write("deny.wasm", component("deny"));
    fleet.write("allow.wasm", component("allow"));
    assert_eq!(fleet.run(&["policy", "keygen", "-o", "other"]).await.code(), Some(0));
    fleet.fails(&["push", "deny.wasm"], "the policy is not signed").await;
    fleet.fails(&["push", "deny.wasm", "--key", "other.pem"], "no trusted key").await;
    fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    let mut redis = fleet.redis.connect().await;
    let get = async |redis: &mut redis::aio::MultiplexedConnection, key: &str| -> Vec<u8> {
        cmd("GET").arg(key).query_async(redis).await.expect("Redis answers")
    };
    let first = get(&mut redis, "tidegate:{default}:policy:active").await;
    let second = fleet.succeeds(&["push", "allow.wasm", "--key", "release.pem", "--sequence", "7"]).await;
    assert_eq!(status(a.data).await, 200);
    fleet.fails(&["push", "deny.wasm", "--key", "release.pem", "--sequence", "6"], "not greater than 7").await;

    // Write access to the store alone activates neither an old policy nor a new one.
    let set = async |redis: &mut redis::aio::MultiplexedConnection, key: &str, value: &[u8]| {
        let () = cmd("SET").arg(key).arg(value).query_async(redis).await.expect("Redis answers");
    };
    // The node reports it, and then writes the record of its own policy back.
    let is_refused = async |node: &Gateway, redis: &mut redis::aio::MultiplexedConnection, own: &[u8], reason: &str| {
        node.process.stderr.wait_for_text(reason).await;
        wait_until("the record is written back", async || get(redis, "tidegate:{default}:policy:active").await == own)
            .await;
    };
    let current = get(&mut redis, "tidegate:{default}:policy:active").await;
    set(&mut redis, "tidegate:{default}:policy:active", &first).await;
    is_refused(&a, &mut redis, &current, "sequence number 1 is less than 7").await;
    // The first sequence in the text is that of the record; the second is that of the signature.
    let text = String::from_utf8(first.clone()).expect("JSON");
    set(
        &mut redis,
        "tidegate:{default}:policy:active",
        text.replacen("\"sequence\":1,", "\"sequence\":8,", 1).as_bytes(),
    )
    .await;
    is_refused(&a, &mut redis, &current, "its sequence number is not the one that was signed").await;
    set(&mut redis, "tidegate:{default}:policy:active", b"{").await;
    is_refused(&a, &mut redis, &current, "cannot be parsed").await;
    assert_eq!(status(a.data).await, 200, "the active policy stays");
    // The same holds after a restart.
    a.process.kill().await;
    set(&mut redis, "tidegate:{default}:policy:active", &first).await;
    let a = fleet.node("a").await;
    assert_eq!(status(a.data).await, 200, "the local copy is active");
    is_refused(&a, &mut redis, &current, "sequence number 1 is less than 7").await;

    fleet.fails(&["rollback", "--key", "other.pem"], "no trusted key").await;
    let ended = fleet.policy(&["rollback"]).await;
    assert!(ended.code() == Some(2) && ended.stderr.contains("--key"), "{ended:?}");
    let rolled_back = fleet.succeeds(&["rollback", "--key", "release.pem"]).await;
    assert_eq!((rolled_back["sequence"].as_u64(), status(a.data).await), (Some(8), 418));
    assert_ne!(digest(&rolled_back), digest(&second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_starts_with_its_local_copy_during_a_store_outage() {
    let mut fleet = Fleet::signed().await;
    let a = fleet.node("a").await;
    fleet.write("deny.wasm", component("deny"));
    fleet.write("allow.wasm", component("allow"));
    let pushed = fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    assert_eq!(status(a.data).await, 418);
    a.process.kill().await;
    fleet.redis.kill().await;
    let a = fleet.node("a").await;
    assert_eq!(status(a.data).await, 418);
    // After the outage the node receives the policies that it missed.
    fleet.redis.restart().await;
    fleet.wait_for_digest(1, &digest(&pushed)).await;
    fleet.succeeds(&["push", "allow.wasm", "--key", "release.pem"]).await;
    assert_eq!(status(a.data).await, 200);
    a.process.kill().await;

    // A modified local copy is fetched again; without the store all requests are refused.
    let blobs = fleet.path("cache/a/blobs");
    let modify_local_copy = || {
        for entry in std::fs::read_dir(&blobs).expect("it exists") {
            let path = entry.expect("an entry").path();
            if path.extension().is_none() {
                std::fs::write(path, component("deny")).expect("written");
            }
        }
    };
    modify_local_copy();
    let a = fleet.node("a").await;
    assert_eq!(status(a.data).await, 200);
    a.process.kill().await;
    modify_local_copy();
    fleet.redis.kill().await;
    let a = fleet.node("a").await;
    assert_eq!(status(a.data).await, 503);
    a.process.stderr.wait_for_text("the content was changed").await;
    // A component that was changed in the store is not activated.
    fleet.redis.restart().await;
    wait_until("the node fetches the policy", async || status(a.data).await == 200).await;
    a.process.kill().await;
    modify_local_copy();
    let mut redis = fleet.redis.connect().await;
    let keys: Vec<String> =
        cmd("KEYS").arg("tidegate:{default}:policy:blobs:*").query_async(&mut redis).await.expect("keys");
    for key in keys {
        let () = cmd("SET").arg(key).arg(component("deny")).query_async(&mut redis).await.expect("set");
    }
    let a = fleet.node("a").await;
    assert_eq!(status(a.data).await, 503);
    a.process.stderr.wait_for_text("it was changed there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_through_a_gateway_reaches_the_fleet() {
    let fleet = Fleet::signed().await;
    let [a, b] = [fleet.node("a").await, fleet.node("b").await];
    let control = a.control.to_string();
    let run_through_gateway =
        async |args: &[&str]| fleet.run(&[&["policy"], args, &["--control", &control, "--json"]].concat()).await;
    let succeeds = async |args: &[&str]| -> Value {
        let ended = run_through_gateway(args).await;
        assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    fleet.write("deny.wasm", component("deny"));
    fleet.write("allow.wasm", component("allow"));
    let refused = run_through_gateway(&["push", "deny.wasm"]).await;
    assert!(refused.code() == Some(1) && refused.stderr.contains("the policy is not signed"), "{refused:?}");
    let dry = succeeds(&["push", "deny.wasm", "--key", "release.pem", "--dry-run"]).await;
    assert_eq!(dry["activated"], false, "{dry}");
    assert_eq!(status(b.data).await, 503);
    let pushed = succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
    assert_eq!((&pushed["sequence"], status(b.data).await), (&1.into(), 418), "{pushed}");
    succeeds(&["push", "allow.wasm", "--key", "release.pem"]).await;
    assert_eq!((status(a.data).await, status(b.data).await), (200, 200));
    let refused = run_through_gateway(&["rollback"]).await;
    assert!(refused.code() == Some(2) && refused.stderr.contains("--key"), "{refused:?}");
    let rolled_back = succeeds(&["rollback", "--key", "release.pem"]).await;
    assert_eq!((&rolled_back["sequence"], status(b.data).await), (&3.into(), 418), "{rolled_back}");
    let list = succeeds(&["list"]).await;
    assert_eq!(list["history"].as_array().map(Vec::len), Some(3), "{list}");
    let nodes = succeeds(&["status"]).await["nodes"].clone();
    assert_eq!((&nodes[0]["name"], &nodes[1]["sequence"]), (&"a".into(), &3.into()), "{nodes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_with_a_policy_file_accepts_a_push() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("policy.wasm");
    std::fs::write(&file, component("deny")).expect("written");
    std::fs::write(dir.path().join("allow.wasm"), component("allow")).expect("written");
    let node = Gateway::start(&format!("store = \"memory:\"\npolicy.file = {file:?}\n")).await;
    let control = node.control.to_string();
    let run_through_gateway = async |args: &[&str]| {
        let mut command = tidegate(&["policy"]);
        command.args(args).args(["--control", &control]).current_dir(dir.path());
        run(command, None).await
    };
    let succeeds = async |args: &[&str]| {
        let ended = run_through_gateway(args).await;
        assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
        ended.stdout
    };
    let deny = Digest::of(&component("deny")).to_string();
    assert!(succeeds(&["status"]).await.starts_with(&deny));
    assert!(succeeds(&["push", "allow.wasm", "--dry-run"]).await.contains("can be activated"));
    assert_eq!(status(node.data).await, 418);
    assert!(succeeds(&["push", "allow.wasm"]).await.contains("is active"));
    assert_eq!(status(node.data).await, 200);
    assert!(succeeds(&["rollback"]).await.starts_with(&format!("{deny} is active")));
    assert_eq!(status(node.data).await, 418);
    let refused = run_through_gateway(&["rollback", "2"]).await;
    assert!(refused.code() == Some(2) && refused.stderr.contains("returns to the previous one only"), "{refused:?}");
    let refused = run_through_gateway(&["list"]).await;
    assert!(refused.code() == Some(1) && refused.stderr.contains("no fleet"), "{refused:?}");
}
