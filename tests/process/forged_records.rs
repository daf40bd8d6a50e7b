//! What someone does who can write to the fleet's keys in Redis but has no key: an operator's command neither signs it nor shows it as the
//! operator's own, and it blocks no later push.

use redis::aio::MultiplexedConnection;
use redis::cmd;
use serde_json::{Value, json};
use tidegate::artifact::digest::Digest;

use crate::fleet::{Fleet, digest, status};
use crate::guests::component;
use crate::processes::{Gateway, ProcessOutput, wait_until};

const ACTIVE: &str = "tidegate:{default}:policy:active";
const HISTORY: &str = "tidegate:{default}:policy:history";
const SHADOW: &str = "tidegate:{default}:policy:shadow";
const HUGE: u64 = 9_007_199_254_740_990;

/// A signed fleet of one node, with `deny` (1) and `trap` (2) pushed, and someone who writes to its Redis.
struct Attacked {
    fleet: Fleet,
    node: Gateway,
    redis: MultiplexedConnection,
}

impl Attacked {
    async fn start() -> Self {
        let fleet = Fleet::signed().await;
        let node = fleet.node("a").await;
        for name in ["deny", "trap", "allow"] {
            fleet.write(&format!("{name}.wasm"), component(name));
        }
        fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem"]).await;
        fleet.succeeds(&["push", "trap.wasm", "--key", "release.pem"]).await;
        assert_eq!(fleet.run(&["policy", "keygen", "-o", "other"]).await.code(), Some(0));
        let redis = fleet.redis.connect().await;
        let mut attacked = Self { fleet, node, redis };
        let allow = component("allow");
        attacked
            .redis(&["SET", &format!("tidegate:{{default}}:policy:blobs:{}", Digest::of(&allow).hex())], &allow)
            .await;
        attacked
    }

    /// Runs a command of Redis that ends with this value.
    async fn redis(&mut self, command: &[&str], value: impl AsRef<[u8]>) {
        let mut to_send = cmd(command[0]);
        to_send.arg(&command[1..]).arg(value.as_ref());
        let _: redis::Value = to_send.query_async(&mut self.redis).await.expect("Redis answers");
    }

    async fn read(&mut self, command: &[&str]) -> Value {
        let mut to_send = cmd(command[0]);
        let text: String = to_send.arg(&command[1..]).query_async(&mut self.redis).await.expect("a record");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The command through the store and through the gateway.
    async fn run_both(&self, args: &[&str]) -> [ProcessOutput; 2] {
        let (url, control) = (self.fleet.redis.url(), self.node.control.to_string());
        let run = async |target: [&str; 2]| self.fleet.run(&[&["policy"], args, &target].concat()).await;
        [run(["--store", &url]).await, run(["--control", &control]).await]
    }

    /// The command is refused through the store and through the gateway, and nothing was signed.
    async fn refuses_to_sign(&mut self, args: &[&str], part: &str) {
        let before = self.read(&["GET", ACTIVE]).await;
        for ended in self.run_both(args).await {
            assert_eq!(ended.code(), Some(1), "{args:?} {part}: {ended:?}");
            for text in ["nothing proves that the key", "Push the policy's file again", part] {
                assert!(ended.stderr.contains(text), "{args:?} {text}: {ended:?}");
            }
        }
        assert_eq!(self.read(&["GET", ACTIVE]).await, before);
        assert_eq!(status(self.node.data).await, 500, "the active policy stays");
    }
}

/// A record whose component is another one. The signature names it, too.
fn with_component(record: &Value, digest: &str) -> Value {
    let own = record["component"].as_str().expect("a digest");
    serde_json::from_str(&record.to_string().replace(own, digest)).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollback_signs_only_what_a_known_key_signed() {
    let mut attacked = Attacked::start().await;
    let allow = Digest::of(&component("allow")).to_string();
    let genuine = attacked.read(&["LINDEX", HISTORY, "1"]).await;
    let forged = with_component(&genuine, &allow);
    let signed_by_another = {
        let sign = ["policy", "sign", "allow.wasm", "--key", "other.pem", "--sequence", "1", "--json"];
        let ended = attacked.fleet.run(&sign).await;
        std::fs::remove_file(attacked.fleet.path("allow.wasm.sig")).expect("it was signed");
        let mut signature = serde_json::from_str::<Value>(&ended.stdout).expect("JSON")["signature"].take();
        // It claims to be of the operator's key.
        signature["key"] = genuine["signature"]["key"].clone();
        let mut record = forged.clone();
        record["signature"] = signature;
        record
    };
    let change = |record: &Value, field: &str, value: Value| {
        let mut record = record.clone();
        record[field] = value;
        record
    };
    let other_cases = Digest::of(b"").to_string();
    for (record, part) in [
        (forged.clone(), "no trusted key made the signature"),
        (change(&genuine, "component", json!(allow)), "the signature is for another component"),
        (change(&genuine, "cases", json!(other_cases)), "the signature is for another table of cases"),
        (change(&forged, "signature", Value::Null), "it is not signed"),
        (signed_by_another, "no trusted key made the signature"),
    ] {
        attacked.redis(&["LSET", HISTORY, "1"], record.to_string()).await;
        attacked.refuses_to_sign(&["rollback", "--key", "release.pem"], part).await;
        let by_digest = record["component"].as_str().expect("a digest").to_owned();
        attacked.refuses_to_sign(&["rollback", &by_digest, "--key", "release.pem", "--sequence", "9"], part).await;
        // The list shows it as what it is.
        let keys = ["--trusted-keys", "release.pub.pem"];
        let list = attacked.fleet.succeeds(&[&["list"], &keys[..]].concat()).await;
        let verified = |n: usize| list["history"][n]["verification"]["verified"].clone();
        assert_eq!((verified(0), verified(1)), (json!(true), json!(false)), "{list}");
        for ended in attacked.run_both(&[&["list"], &keys[..]].concat()).await {
            let lines: Vec<&str> = ended.stdout.lines().collect();
            assert!(lines[0].contains("  key ") && !lines[0].contains("not verified"), "{ended:?}");
            assert!(lines[1].contains("not verified: ") && !lines[1].contains("  key "), "{ended:?}");
        }
    }
    // An older policy under the sequence of another one.
    attacked.redis(&["LSET", HISTORY, "1"], change(&genuine, "sequence", json!(7)).to_string()).await;
    attacked.refuses_to_sign(&["rollback", "7", "--key", "release.pem"], "sequence 7, but 1 was signed").await;

    attacked.redis(&["LSET", HISTORY, "1"], genuine.to_string()).await;
    // Another key signs what a trusted key signed; the nodes do not trust that key.
    attacked.refuses_to_sign(&["rollback", "--key", "other.pem"], "no trusted key made the signature").await;
    let rotated = ["rollback", "--key", "other.pem", "--trusted-keys", "release.pub.pem"];
    attacked.fleet.fails(&rotated, "node a refuses it (not verified): no trusted key").await;
    let rolled_back = attacked.fleet.succeeds(&["rollback", "--key", "release.pem"]).await;
    assert_eq!((digest(&rolled_back), status(attacked.node.data).await), (digest(&genuine), 418));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promote_signs_only_what_a_known_key_signed() {
    let mut attacked = Attacked::start().await;
    let allow = Digest::of(&component("allow")).to_string();
    let deny = Digest::of(&component("deny")).to_string();
    attacked.fleet.succeeds(&["shadow", "deny.wasm", "--key", "release.pem"]).await;
    let genuine = attacked.read(&["GET", SHADOW]).await;
    let forged = with_component(&genuine, &allow);
    let mut unsigned = forged.clone();
    unsigned["signature"] = Value::Null;
    for (record, part) in [(forged, "no trusted key made the signature"), (unsigned, "it is not signed")] {
        attacked.redis(&["SET", SHADOW], record.to_string()).await;
        attacked.refuses_to_sign(&["promote", "--key", "release.pem"], part).await;
        let shown = attacked.fleet.succeeds(&["shadow", "--trusted-keys", "release.pub.pem"]).await;
        assert_eq!(shown["verification"]["verified"], false, "{shown}");
        for ended in attacked.run_both(&["shadow", "--trusted-keys", "release.pub.pem"]).await {
            assert!(ended.code() == Some(0) && ended.stdout.contains("not verified: "), "{ended:?}");
        }
    }
    attacked.redis(&["SET", SHADOW], genuine.to_string()).await;
    for ended in attacked.run_both(&["promote", "--key", "release.pem", "--digest", &allow]).await {
        assert!(ended.code() == Some(1) && ended.stderr.contains(&format!("the shadow policy is {deny}")), "{ended:?}");
    }
    let promoted = attacked.fleet.succeeds(&["promote", "--key", "release.pem"]).await;
    assert_eq!((digest(&promoted), status(attacked.node.data).await), (deny, 418));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_and_status_verify_signatures() {
    let attacked = Attacked::start().await;
    let shown = |list: &Value| list["current"]["verification"].clone();
    for command in ["list", "status"] {
        let verified = attacked.fleet.succeeds(&[command, "--trusted-keys", "release.pub.pem"]).await;
        let key = verified["current"]["signature"]["key"].clone();
        assert_eq!(shown(&verified), json!({ "verified": true, "key": key, "reason": null }), "{verified}");
        // The key that the record names proves nothing.
        let unknown = attacked.fleet.succeeds(&[command]).await;
        assert_eq!((&shown(&unknown)["verified"], &shown(&unknown)["key"]), (&json!(false), &Value::Null), "{unknown}");
        let other = attacked.fleet.succeeds(&[command, "--trusted-keys", "other.pub.pem"]).await;
        assert_eq!(shown(&other)["verified"], false, "{other}");
        for (keys, text) in [(&["--trusted-keys", "release.pub.pem"][..], "key "), (&[], "not verified: ")] {
            for ended in attacked.run_both(&[&[command], keys].concat()).await {
                let line = ended.stdout.lines().next().unwrap_or_default();
                assert_eq!((ended.code(), line.contains(text)), (Some(0), true), "{ended:?}");
            }
        }
    }
    // The configuration of a gateway names its trusted keys.
    let toml = format!("[policy]\ntrusted-keys = [{:?}]\n", "release.pub.pem");
    attacked.fleet.write("tidegate.toml", toml);
    let verified = attacked.fleet.succeeds(&["list"]).await;
    assert_eq!(shown(&verified)["verified"], true, "{verified}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_sequences_block_no_push() {
    let mut attacked = Attacked::start().await;
    let genuine = attacked.read(&["GET", ACTIVE]).await;
    let with_sequence = |record: &Value| {
        let mut record = record.clone();
        record["sequence"] = json!(HUGE);
        record["signature"]["sequence"] = json!(HUGE);
        record
    };
    let mut unsigned = with_sequence(&genuine);
    unsigned["signature"] = Value::Null;
    let node_status = json!({
        "name": "x", "address": "10.9.9.9:1", "instance": "0000000000000000", "version": "0", "fleet_managed": false, "source": null,
        "digest": null, "generation": 1, "sequence": HUGE, "since": 0, "push_id": null, "error": null, "shadow": null, "last_seen": 0,
    });
    attacked.redis(&["SET", "tidegate:{default}:nodes:status:x"], node_status.to_string()).await;
    attacked.redis(&["ZADD", "tidegate:{default}:nodes", "1"], "x").await;
    let control = attacked.node.control.to_string();
    let mut sequence = 2;
    for record in [genuine.clone(), with_sequence(&genuine), unsigned] {
        attacked.redis(&["SET", ACTIVE], record.to_string()).await;
        attacked.redis(&["LPUSH", HISTORY], record.to_string()).await;
        for (target, name, answer) in
            [(["--store", &attacked.fleet.redis.url()], "allow", 200), (["--control", &control], "trap", 500)]
        {
            sequence += 1;
            let file = format!("{name}.wasm");
            let push = ["policy", "push", &file, "--key", "release.pem", "--json"];
            let pushed = attacked.fleet.run(&[&push, &target[..]].concat()).await;
            let json: Value = serde_json::from_str(&pushed.stdout).unwrap_or_default();
            assert_eq!((pushed.code(), &json["sequence"]), (Some(0), &json!(sequence)), "{pushed:?}");
            assert!(pushed.stderr.contains(&HUGE.to_string()), "the claim that does not count is named: {pushed:?}");
            assert_eq!(status(attacked.node.data).await, answer);
        }
    }
    let rolled_back = attacked.fleet.succeeds(&["rollback", "3", "--key", "release.pem"]).await;
    assert_eq!(rolled_back["sequence"], 9, "{rolled_back}");

    // A store without its data: the node writes its record back, which proves its sequence.
    let own = attacked.read(&["GET", ACTIVE]).await;
    attacked.redis(&["FLUSHALL"], "SYNC").await;
    wait_until("the record is back", async || {
        attacked.fleet.succeeds(&["status"]).await["current"]["push_id"] == own["push_id"]
    })
    .await;
    let pushed = attacked.fleet.succeeds(&["push", "deny.wasm", "--key", "release.pem", "--sequence", "5000"]).await;
    assert_eq!((pushed["sequence"].as_u64(), status(attacked.node.data).await), (Some(5_000), 418));
    attacked.redis(&["FLUSHALL"], "SYNC").await;
    wait_until("the record is back", async || {
        attacked.fleet.succeeds(&["status"]).await["current"]["sequence"] == 5_000
    })
    .await;
    let pushed = attacked.fleet.succeeds(&["push", "allow.wasm", "--key", "release.pem"]).await;
    assert_eq!(pushed["sequence"], 5_001, "{pushed}");
    assert_eq!(status(attacked.node.data).await, 200);
}
