//! Fleet-managed nodes on one Redis: pushes to all of them or to none, restarts, rollback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Wire;
use crate::guests::component;
use crate::processes::{ChildProcess, Gateway, ProcessOutput, run, tidegate, wait_until};
use crate::redis_server::{DURABLE, Redis};
use crate::rollout::distinct;

/// The option for a fleet without signatures.
const UNSIGNED: &str = "policy.allow-unsigned = true";

/// A fleet's Redis, or its other store, with a directory for the operator's files and the nodes' caches.
pub struct Fleet<S = Redis> {
    pub redis: S,
    url: String,
    dir: TempDir,
    /// The line of each node's configuration about signatures.
    trust: String,
}

impl Fleet {
    pub async fn unsigned() -> Self {
        let redis = Redis::start(DURABLE).await;
        let url = redis.url();
        Self { redis, url, dir: tempfile::tempdir().expect("a directory"), trust: UNSIGNED.into() }
    }

    pub async fn signed() -> Self {
        let redis = Redis::start(DURABLE).await;
        let url = redis.url();
        Self::signed_on(redis, url).await
    }
}

impl<S> Fleet<S> {
    /// A fleet whose policies are signed with `release.pem`.
    pub async fn signed_on(store: S, url: String) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut fleet = Self { redis: store, url, dir, trust: UNSIGNED.into() };
        assert_eq!(fleet.run(&["policy", "keygen", "-o", "release"]).await.code(), Some(0));
        fleet.trust = format!("policy.trusted-keys = [{:?}]", fleet.path("release.pub.pem"));
        fleet
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).expect("written");
    }

    pub fn toml(&self, node: &str) -> String {
        format!(
            "store = {:?}\ncache-dir = {:?}\nfleet.node-name = {node:?}\npolicy.source = \"fleet\"\n{}\n",
            self.url,
            self.path("cache").join(node),
            self.trust
        )
    }

    pub async fn node(&self, name: &str) -> Gateway {
        Gateway::start(&self.toml(name)).await
    }

    pub async fn nodes(&self) -> [Gateway; 3] {
        [self.node("a").await, self.node("b").await, self.node("c").await]
    }

    /// Runs a command in the fleet's directory.
    pub async fn run(&self, args: &[&str]) -> ProcessOutput {
        let mut command = tidegate(args);
        command.current_dir(self.dir.path());
        run(command, None).await
    }

    /// Starts a command in the fleet's directory.
    pub fn start_command(&self, args: &[&str]) -> ChildProcess {
        let mut command = tidegate(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        ChildProcess::start(command)
    }

    /// Runs `tidegate policy` on the fleet's store.
    pub async fn policy(&self, args: &[&str]) -> ProcessOutput {
        self.run(&[&["policy"], args, &["--store", &self.url, "--json"]].concat()).await
    }

    pub async fn succeeds(&self, args: &[&str]) -> Value {
        let ended = self.policy(args).await;
        assert_eq!(ended.code(), Some(0), "{args:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).expect("JSON")
    }

    pub async fn fails(&self, args: &[&str], reason: &str) -> ProcessOutput {
        let ended = self.policy(args).await;
        assert!(ended.code() == Some(1) && ended.stderr.contains(reason), "{args:?}: {reason}: {ended:?}");
        ended
    }

    /// Each node's digest, from the node status.
    async fn digests(&self) -> Vec<Option<String>> {
        let status = self.succeeds(&["status"]).await;
        let nodes = status["nodes"].as_array().expect("a list").iter();
        nodes.map(|node| node["digest"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until this many nodes report this policy.
    pub async fn wait_for_digest(&self, count: usize, digest: &str) {
        wait_until("every node has the policy", async || self.digests().await == vec![Some(digest.to_owned()); count])
            .await;
    }
}

/// The status of a stream request.
pub async fn status(data: SocketAddr) -> u16 {
    Wire::get(data, "/api/realtime?channel=c", None, None).await.expect("an answer").status
}

/// The answer of `GET /readyz`.
pub async fn ready(control: SocketAddr) -> String {
    let mut socket = TcpStream::connect(control).await.expect("the port is open");
    let head = format!("GET /readyz HTTP/1.1\r\nhost: {control}\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("the request is sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

pub fn digest(record: &Value) -> String {
    record["component"].as_str().expect("a digest").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_is_active_on_all_nodes_and_survives_restarts() {
    let fleet = Fleet::unsigned().await;
    let [a, b, c] = fleet.nodes().await;
    // Before the first push all requests are refused, and `/readyz` reports the reason.
    for node in [&a, &b, &c] {
        assert_eq!(status(node.data).await, 503);
        let ready = ready(node.control).await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("nothing was pushed"), "{ready}");
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/rust-role-based/policy.wasm");
    fleet.write("rust.wasm", std::fs::read(example).expect("it is committed"));
    let pushed = fleet.succeeds(&["push", "rust.wasm"]).await;
    assert_eq!((&pushed["activated"], pushed["nodes"].as_array().map(Vec::len)), (&true.into(), Some(3)), "{pushed}");
    assert!(pushed["duration_ms"].is_u64(), "{pushed}");
    for node in [&a, &b, &c] {
        assert_eq!(status(node.data).await, 401, "no session");
        assert!(ready(node.control).await.starts_with("HTTP/1.1 200"));
    }
    // One node dies; the push waits for it only until its heartbeat expires.
    b.process.kill().await;
    fleet.write("deny.wasm", component("deny"));
    let pushed = fleet.succeeds(&["push", "deny.wasm"]).await;
    assert_eq!(pushed["nodes"].as_array().map(Vec::len), Some(2), "{pushed}");
    let b = fleet.node("b").await;
    assert_eq!(status(b.data).await, 418, "the node starts with the new policy");
    fleet.wait_for_digest(3, &digest(&pushed)).await;

    let list = fleet.succeeds(&["list"]).await;
    assert_eq!(list["history"].as_array().map(Vec::len), Some(2));
    assert_eq!(list["current"], list["history"][0]);
    fleet.succeeds(&["rollback"]).await;
    for node in [&a, &b, &c] {
        assert_eq!(status(node.data).await, 401);
    }
    let list = fleet.succeeds(&["list"]).await;
    assert_eq!(
        (&list["current"]["sequence"], &list["current"]["component"]),
        (&3.into(), &list["history"][2]["component"])
    );
    fleet.succeeds(&["rollback", "2"]).await;
    assert_eq!(status(a.data).await, 418);
    fleet.fails(&["rollback", "17"], "17 is not in the history").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_that_fails_on_one_node_changes_no_node() {
    let fleet = Fleet::unsigned().await;
    // The second node's timeout is shorter than the policy needs.
    let [a, c] = [fleet.node("a").await, fleet.node("c").await];
    let b = Gateway::start(&format!("{}policy.timeout = \"5ms\"", fleet.toml("b"))).await;
    fleet.write("deny.wasm", component("deny"));
    let pushed = fleet.succeeds(&["push", "deny.wasm"]).await;
    let case =
        |expect: &str| format!("[[case]]\nname = \"the channel is allowed\"\nchannels = [\"c\"]\nexpect.{expect}\n");
    fleet.write("allow.wasm", component("allow"));
    fleet.write("allow.cases.toml", case("status = 403"));
    let ended = fleet.fails(&["push", "allow.wasm"], "nothing was changed anywhere").await;
    let refused: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let refused = refused["failures"].as_array().expect("a list");
    // One failing node is enough.
    assert!(!refused.is_empty() && refused.iter().all(|failure| failure["stage"] == "tested"), "{ended:?}");
    fleet.write("slow.wasm", component("slow"));
    fleet.write("slow.cases.toml", case("allow = true"));
    let ended = fleet.fails(&["push", "slow.wasm"], "node b refuses it").await;
    assert!(ended.stdout.contains("\"name\":\"b\"") && !ended.stdout.contains("\"name\":\"a\""), "{ended:?}");
    fleet.fails(&["push", "slow.wasm", "--dry-run"], "node b refuses it").await;
    fleet.write("core.wasm", component("core-module"));
    fleet.fails(&["push", "core.wasm"], "is a core module").await;
    fleet.write("allow.cases.toml", case("allow = true"));
    assert_eq!(fleet.succeeds(&["push", "allow.wasm", "--dry-run"]).await["activated"], false);
    for node in [&a, &b, &c] {
        assert_eq!(status(node.data).await, 418);
    }
    fleet.wait_for_digest(3, &digest(&pushed)).await;
    assert_eq!(fleet.succeeds(&["list"]).await["current"]["push_id"], pushed["push_id"]);
    let error = fleet.succeeds(&["status"]).await["nodes"][1]["error"].clone();
    assert!(error.as_str().is_some_and(|error| error.contains("core module")), "{error}");
    assert_eq!(fleet.succeeds(&["push", "allow.wasm"]).await["activated"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_pushes_are_serialized() {
    let fleet = Fleet::unsigned().await;
    let _nodes = fleet.nodes().await;
    let names: Vec<String> = (0..6).map(|n| format!("{n}.wasm")).collect();
    for (n, name) in names.iter().enumerate() {
        // Each has distinct bytes: a custom section after the policy.
        let mut bytes = component("deny");
        bytes.extend([0, 3, 1, b'n', u8::try_from(n).expect("few")]);
        fleet.write(name, bytes);
    }
    let [one, two, three, four, five, six] = &names[..] else { panic!("six names") };
    let push = async |name: &str| fleet.policy(&["push", name]).await;
    let ended = tokio::join!(push(one), push(two), push(three), push(four), push(five), push(six));
    let ended = [ended.0, ended.1, ended.2, ended.3, ended.4, ended.5];
    let (succeeded, failed): (Vec<_>, Vec<_>) = ended.iter().partition(|ended| ended.code() == Some(0));
    assert!(!succeeded.is_empty(), "{ended:?}");
    for ended in failed {
        let reasons = ["another push is in progress", "another push was committed first", "is not greater than"];
        assert!(reasons.iter().any(|reason| ended.stderr.contains(reason)), "{ended:?}");
    }
    let list = fleet.succeeds(&["list"]).await;
    assert_eq!(list["history"].as_array().map(Vec::len), Some(succeeded.len()), "each successful push was active");
    fleet.wait_for_digest(3, &digest(&list["current"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returning_node_activates_the_policy_that_it_missed() {
    let fleet = Fleet::unsigned().await;
    let [a, b] = [fleet.node("a").await, fleet.node("b").await];
    fleet.write("deny.wasm", component("deny"));
    fleet.write("allow.wasm", component("allow"));
    fleet.succeeds(&["push", "deny.wasm"]).await;
    // The node is suspended, as during a migration of its machine: the push waits for it until its heartbeat expires.
    b.process.signal("STOP").await;
    fleet.fails(&["push", "allow.wasm", "--timeout", "2s"], "it is not prepared on b").await;
    assert_eq!(status(a.data).await, 418, "nothing was changed anywhere");
    let pushed = fleet.succeeds(&["push", "allow.wasm"]).await;
    assert_eq!(pushed["nodes"].as_array().map(Vec::len), Some(1), "{pushed}");
    assert_eq!(status(a.data).await, 200);
    b.process.signal("CONT").await;
    wait_until("the node has the new policy", async || status(b.data).await == 200).await;
    fleet.wait_for_digest(2, &digest(&pushed)).await;
    // Two nodes with the same name are detected and reported.
    let other = fleet.node("b").await;
    for node in [&b, &other] {
        node.process.stderr.wait_for_text("another node has this name too").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_to_a_fleet_without_nodes_is_tested_by_the_command() {
    let fleet = Fleet::unsigned().await;
    fleet.write("core.wasm", component("core-module"));
    fleet.fails(&["push", "core.wasm"], "no node is alive").await;
    fleet.write("deny.wasm", component("deny"));
    let pushed = fleet.succeeds(&["push", "deny.wasm"]).await;
    assert_eq!((&pushed["activated"], &pushed["nodes"]), (&true.into(), &Value::Array(Vec::new())));
    let a = fleet.node("a").await;
    assert_eq!(status(a.data).await, 418);
    // A node with its own policy reports its status, and takes no part in the push.
    let toml = format!("store = {:?}\nfleet.node-name = \"own\"\nallow-all = true\n", fleet.redis.url());
    let own = Gateway::start(&toml).await;
    let pushed = fleet.succeeds(&["push", "deny.wasm"]).await;
    assert_eq!(pushed["nodes"].as_array().map(Vec::len), Some(1), "{pushed}");
    wait_until("both nodes report their status", async || fleet.digests().await.len() == 2).await;
    assert_eq!(status(own.data).await, 200);
}

#[tokio::test]
async fn fleet_requires_signatures_or_allow_unsigned() {
    let redis = Redis::unstarted(&[]);
    let toml = format!("store = {:?}\npolicy.source = \"fleet\"\n", redis.url());
    let exit = async |process: ChildProcess| {
        let ended = process.end().await;
        (ended.code(), ended.stderr)
    };
    let (process, _dir) = Gateway::launch(&toml, &[]);
    let (code, stderr) = exit(process).await;
    assert!(code == Some(2) && stderr.contains("--allow-unsigned"), "{stderr}");
    // With the flag only the store is missing.
    let (process, _dir) = Gateway::launch(&toml, &["--allow-unsigned"]);
    let (code, stderr) = exit(process).await;
    assert!(code == Some(1) && stderr.contains("--wait-for-store"), "{stderr}");
}

/// The store keeps the components of 16 pushes. The first component stays as well, because it is the shadow policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn component_is_removed_with_the_last_record_that_references_it() {
    let fleet = Fleet::unsigned().await;
    let _a = fleet.node("a").await;
    let mut digests = Vec::new();
    for number in 0..18 {
        fleet.write("policy.wasm", distinct(&component("deny"), number));
        digests.push(digest(&fleet.succeeds(&["push", "policy.wasm"]).await));
        if number == 0 {
            fleet.succeeds(&["shadow", "policy.wasm"]).await;
        }
    }
    let mut redis = fleet.redis.connect().await;
    let mut ttl = async |number: usize| -> i64 {
        let key = format!("tidegate:{{default}}:policy:blobs:{}", digests[number].trim_start_matches("sha256:"));
        redis::cmd("PTTL").arg(key).query_async(&mut redis).await.expect("Redis answers")
    };
    let (missing, kept) = (-2, -1);
    assert_eq!((ttl(0).await, ttl(1).await, ttl(2).await, ttl(17).await), (kept, missing, kept, kept));
    fleet.succeeds(&["shadow", "--stop"]).await;
    assert!(ttl(0).await > 0, "the component expires");
}
