//! Options that are reloaded: each takes effect after a change of the configuration file, without a restart.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Wire;
use crate::control_port::{JSON, WASM, send_request};
use crate::guests::component;
use crate::processes::{Gateway, run, tidegate, wait_until, with_timeout};
use crate::rollout::{ConfigDir, distinct, request_stream};

/// A gateway with a configuration file that the test replaces.
struct Node {
    config_dir: ConfigDir,
    gateway: Gateway,
    token: &'static str,
}

impl Node {
    async fn start(policy: &str, lines: &str) -> Self {
        let config_dir = ConfigDir::new();
        config_dir.write("policy.wasm", component(policy));
        write(&config_dir, lines);
        let (process, dir) = config_dir.launch();
        Self { config_dir, gateway: Gateway::wait_until_ready(process, dir).await, token: "" }
    }

    async fn configuration(&self) -> Value {
        let header = format!("authorization: Bearer {}\r\n", self.token);
        send_request(self.gateway.control, "GET", "/v1/policy", &header, b"").await.1["configuration"].clone()
    }

    /// Replaces the configuration, and returns its status once it has been read. Later requests use this token.
    async fn configure(&mut self, lines: &str, token: &'static str) -> Value {
        let before = self.configuration().await["read_at"].clone();
        write(&self.config_dir, lines);
        let mut reply = Value::Null;
        wait_until("the configuration is read", async || {
            reply = self.configuration().await;
            if reply.is_null() {
                // The control port requires the new token already.
                self.token = token;
            }
            reply["read_at"].is_u64() && reply["read_at"] != before
        })
        .await;
        reply
    }

    /// Like [`Self::configure`], for a valid configuration that needs no restart.
    async fn apply(&mut self, lines: &str) {
        let reply = self.configure(lines, self.token).await;
        assert_eq!((&reply["error"], &reply["needs_restart"]), (&Value::Null, &json!([])), "{lines}: {reply}");
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.config_dir.at(file)).unwrap_or_default();
        let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
        complete.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Requests a decision, and waits until a file has this many lines.
    async fn decide(&self, file: &str, lines: usize) -> Vec<Value> {
        assert_eq!(request_stream(&self.gateway, "c").await.0, 200);
        wait_until(file, async || self.lines(file).len() >= lines).await;
        let reply = self.lines(file);
        assert_eq!(reply.len(), lines, "{file}: {reply:?}");
        reply
    }
}

fn write(config_dir: &ConfigDir, lines: &str) {
    let ports = "listen = '127.0.0.1:0'\ncontrol.listen = '127.0.0.1:0'\nstore = 'memory:'";
    let drain = if lines.contains("drain.delay") { "" } else { "drain.delay = '0s'" };
    let cache = config_dir.at("cache");
    config_dir.replace(
        "node.toml",
        format!("{ports}\ncache-dir = {cache:?}\n{drain}\npolicy.file = 'policy.wasm'\n{lines}\n"),
    );
}

#[tokio::test]
async fn decision_log_options_are_reloaded() {
    let mut node = Node::start("allow", "").await;
    node.apply("decisions.log = 'one'").await;
    assert_eq!(node.decide("one", 1).await[0]["channels"], json!(["c"]));
    node.apply("decisions.log = 'one'\ndecisions.masked-fields = ['channels']").await;
    let masked = node.decide("one", 2).await[1]["channels"].clone();
    assert!(masked[0].as_str().is_some_and(|name| name.starts_with('~')), "{masked}");
    node.apply("decisions.log = 'two'\ndecisions.masked-fields = ['channels', 'subject']").await;
    // The masking key belongs to the process, and does not depend on the masked fields.
    assert_eq!(node.decide("two", 1).await[0]["channels"], masked);
    assert_eq!(node.lines("one").len(), 2);
    // An unwritable log is an error, and then no part of the new configuration is applied.
    let reply = node.configure("decisions.log = 'none/three'\ncontrol.token = 'one'", "").await;
    let error = reply["error"].as_str().unwrap_or_default();
    assert!(error.contains("decisions.log") && error.contains("none/three"), "{reply}");
    node.decide("two", 2).await;
    assert!(node.configuration().await["read_at"].is_u64(), "no token is required");
    // An error elsewhere in the configuration has the same effect.
    let reply = node.configure("decisions.log = 'three'\npolicy.timeout = 'soon'", "").await;
    assert!(reply["error"].is_string() && !node.config_dir.at("three").exists(), "{reply}");
    node.decide("two", 3).await;

    let record = "decisions.log = 'two'\ndecisions.recording.file = 'recording'\ndecisions.recording.share";
    node.apply(&format!("{record} = 1")).await;
    node.decide("recording", 1).await;
    node.apply(&format!("{record} = 0")).await;
    node.decide("two", 5).await;
    node.apply(&format!("{record} = 1.0")).await;
    node.decide("recording", 2).await;
    node.apply("decisions.log = 'two'").await;
    node.decide("two", 7).await;
    assert_eq!(node.lines("recording").len(), 2);
    node.apply("decisions.recording.file = 'recording'\ndecisions.recording.share = 1").await;
    node.decide("recording", 3).await;
    assert_eq!(node.lines("two").len(), 7, "the decision log is disabled");
}

#[tokio::test]
async fn mistakes_show_no_secrets_in_errors_log_and_status() {
    const SECRET: &str = "S3cretMarker";
    let mistakes = [
        ("[policy.settings]\napi-key = \"S3cretMarker", "line 8, column "),
        ("[policy.settings]\napi-key = S3cretMarker", "line 8, column "),
        ("control = { lisen = 'x', token = 'S3cretMarker' }", "node.toml: "),
        ("redis-rest.tokens = 'S3cretMarker'", "redis-rest.tokens: expected a list"),
        ("policy.tokens.app = { secrt = 'S3cretMarker' }", "policy.tokens.app.secrt: not an option"),
        ("policy.tokens.app = { secret = ['S3cretMarker'] }", "policy.tokens.app.secret: expected a string"),
        ("policy.egress.hosts = ['https://u:S3cretMarker@h']", "policy.egress.hosts[0]: "),
        ("memory-store.seed.s = ['S3cretMarker', 5]", "memory-store.seed.s: expected"),
    ];
    let mut node = Node::start("allow", "").await;
    for (lines, says) in mistakes {
        let reply = node.configure(lines, "").await;
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(error.contains(says) && !error.contains(SECRET), "{lines}: {error}");
        for command in ["check", "serve"] {
            let file = node.config_dir.at("node.toml");
            let ended = run(tidegate(&[command, "--config", file.to_str().expect("a path")]), None).await;
            assert!(ended.code() == Some(2) && ended.stderr.contains(says), "{lines}: {ended:?}");
            assert!(!ended.all().contains(SECRET), "{lines}: {ended:?}");
        }
    }
    let log = &node.gateway.process.stderr;
    let all_logged = log.wait_for(|log| log.matches("the configuration has a mistake").count() >= mistakes.len());
    assert!(with_timeout("the mistakes are logged", all_logged).await);
    assert!(!log.text_so_far().contains(SECRET), "{}", log.text_so_far());
    for (name, value) in [("STORE", "redis://u:S3cretMarker@h:99999"), ("POLICY_SETTINGS", "{ a = 'S3cretMarker'")] {
        let mut command = tidegate(&["check", "--allow-all"]);
        command.env(format!("TIDEGATE_{name}"), value);
        let ended = run(command, None).await;
        assert!(ended.code() == Some(2) && !ended.all().contains(SECRET), "{name}: {ended:?}");
    }
    for args in [["serve", "redis://u:S3cretMarker@h"], ["check", "--store=http://u:S3cretMarker@h"]] {
        let ended = run(tidegate(&args), None).await;
        assert!(ended.code() == Some(2) && !ended.all().contains(SECRET), "{ended:?}");
    }
}

#[tokio::test]
async fn log_filter_is_reloaded() {
    let mut node = Node::start("allow", "log.filter = 'error'").await;
    let log = |node: &Node| node.gateway.process.stderr.text_so_far();
    assert_eq!(request_stream(&node.gateway, "silent").await.0, 200);
    node.apply("log.filter = 'warn,tidegate::authz=info'").await;
    wait_until("the decision is logged", async || {
        assert_eq!(request_stream(&node.gateway, "loud").await.0, 200);
        log(&node).contains("loud")
    })
    .await;
    let reply = node.configure("log.filter = 'tidegate=loud'", "").await;
    assert!(reply["error"].as_str().is_some_and(|error| error.contains("log.filter")), "{reply}");
    node.apply("log.filter = 'error'").await;
    // A failed activation is logged as an error, which shows that all earlier lines have been written.
    let mut number = 0;
    wait_until("nothing more is logged", async || {
        number += 1;
        assert_eq!(request_stream(&node.gateway, &format!("quiet-{number}")).await.0, 200);
        assert_eq!(send_request(node.gateway.control, "PUT", "/v1/policy", WASM, b"none").await.0, 422);
        let is_logged = |log: &str| log.matches("policy activation failed").count() >= number;
        assert!(with_timeout("the log line is written", node.gateway.process.stderr.wait_for(is_logged)).await);
        !log(&node).contains(&format!("quiet-{number}\""))
    })
    .await;
    assert!(!log(&node).contains("silent"));
}

/// The status of a command at `/redis` with this token.
async fn rest(node: &Node, token: &str) -> u16 {
    let headers = format!("{JSON}authorization: Bearer {token}\r\n");
    send_request(node.gateway.data, "POST", "/redis", &headers, b"[\"PUBLISH\", \"other\", \"1\"]").await.0
}

/// Follows a channel at `/redis`.
async fn subscribe(to: SocketAddr, token: &str) -> TcpStream {
    let head = format!(
        "POST /redis/subscribe/c HTTP/1.1\r\nhost: {to}\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let mut socket = TcpStream::connect(to).await.expect("the port is open");
    socket.write_all(head.as_bytes()).await.expect("it is sent");
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("subscribe,c,1") {
        let read = with_timeout("a subscription", socket.read_buf(&mut text)).await.expect("an answer");
        assert!(read > 0, "{}", String::from_utf8_lossy(&text));
    }
    socket
}

#[tokio::test]
async fn access_tokens_are_reloaded() {
    let mut node = Node::start("allow", "").await;
    assert_eq!(rest(&node, "a").await, 404);
    node.apply("redis-rest.tokens = ['a', 'b']").await;
    assert_eq!((rest(&node, "a").await, rest(&node, "c").await), (200, 401));
    let (mut a, mut b) = (subscribe(node.gateway.data, "a").await, subscribe(node.gateway.data, "b").await);
    node.apply("redis-rest.tokens = ['b', 'c']").await;
    assert_eq!((rest(&node, "a").await, rest(&node, "b").await, rest(&node, "c").await), (401, 200, 200));
    // Subscriptions with the removed token end; the others continue.
    let mut remaining = Vec::new();
    with_timeout("the subscription ends", a.read_to_end(&mut remaining)).await.expect("the command ends");
    let emit = json!({ "channel": "c", "event": "e", "data": 1 }).to_string();
    assert_eq!(send_request(node.gateway.control, "POST", "/v1/emit", JSON, emit.as_bytes()).await.0, 200);
    let mut text = Vec::new();
    with_timeout("a message", b.read_buf(&mut text)).await.expect("an answer");
    assert!(String::from_utf8_lossy(&text).contains("message,c,"), "{}", String::from_utf8_lossy(&text));

    let status = async |node: &Node, token: &str| {
        let header = format!("authorization: Bearer {token}\r\n");
        send_request(node.gateway.control, "GET", "/v1/status", &header, b"").await.0
    };
    node.configure("control.token = 'one'", "one").await;
    assert_eq!((status(&node, "").await, status(&node, "one").await), (401, 200));
    node.configure("control.token = 'two'", "two").await;
    assert_eq!((status(&node, "one").await, status(&node, "two").await), (401, 200));
}

#[tokio::test]
async fn removal_of_the_control_token_needs_a_restart() {
    let config_dir = ConfigDir::new();
    config_dir.write("policy.wasm", component("allow"));
    write(&config_dir, "control.token = 'one'");
    let (process, dir) = config_dir.launch();
    let mut node = Node { config_dir, gateway: Gateway::wait_until_ready(process, dir).await, token: "one" };
    node.configure("control.token = 'two'", "two").await;
    let reply = node.configure("", "two").await;
    assert_eq!(reply["needs_restart"], json!(["control.token"]), "{reply}");
    assert_eq!(send_request(node.gateway.control, "GET", "/v1/status", "", b"").await.0, 401);
}

#[tokio::test]
async fn rotation_and_drain_times_are_reloaded() {
    let mut node =
        Node::start("allow", "policy.rotation-window = 'off'\ndrain.delay = '1h'\ndrain.duration = '1h'").await;
    let open = Wire::get(node.gateway.data, "/api/realtime?channel=c", None, None);
    let mut stream = with_timeout("a stream", open).await.expect("a stream");
    let next = distinct(&component("allow"), 2);
    assert_eq!(send_request(node.gateway.control, "PUT", "/v1/policy", WASM, &next).await.0, 200);
    // The stream had no rotation; with the new window it is rotated.
    node.apply("policy.rotation-window = '0s'\ndrain.delay = '1h'\ndrain.duration = '1h'").await;
    let end = async { while stream.read_more(u64::MAX).await.expect("it is read") {} };
    with_timeout("the stream of the retired policy ends", end).await;
    assert!(stream.body().contains("reconnect"), "{}", stream.body());

    node.apply("drain.delay = '0s'\ndrain.duration = '0s'").await;
    let open = Wire::get(node.gateway.data, "/api/realtime?channel=c", None, None);
    let _stream = with_timeout("a stream", open).await.expect("a stream");
    node.gateway.process.signal("TERM").await;
    let ended = node.gateway.process.end().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[tokio::test]
async fn channel_rules_and_cors_origins_are_reloaded() {
    let mut node = Node::start("allow", "").await;
    assert_eq!(request_stream(&node.gateway, "c").await.0, 200);
    node.apply("channels.deny = ['c']\ncors.origins = ['https://app.example']").await;
    assert_eq!((request_stream(&node.gateway, "c").await.0, request_stream(&node.gateway, "d").await.0), (403, 200));
    let wire = Wire::get(node.gateway.data, "/api/realtime?channel=d", None, None).await.expect("an answer");
    assert!(!wire.head.contains("access-control-allow-origin: *"), "{}", wire.head);
    node.apply("").await;
    let wire = Wire::get(node.gateway.data, "/api/realtime?channel=c", None, None).await.expect("an answer");
    assert!(wire.status == 200 && wire.head.contains("access-control-allow-origin: *"), "{}", wire.head);
}

#[tokio::test]
async fn values_without_an_effect_change_nothing_at_a_reload() {
    let mut node = Node::start("allow", "channels.deny = ['c']").await;
    for (lines, says) in [
        ("channels.allow = ['tidegate:*']", "channels.allow[0]: "),
        ("channels.allow = ['d']\nchannels.deny = ['c']", "channels.deny[0]: "),
        ("cors.origins = ['https://*.example.com']", "cors.origins[0]: "),
        ("policy.lookup.prefixes = ['session:*']", "policy.lookup.prefixes[0]: "),
        ("policy.egress.hosts = ['https://*.example.com']", "policy.egress.hosts[0]: "),
    ] {
        let reply = node.configure(lines, "").await;
        assert!(reply["error"].as_str().is_some_and(|error| error.contains(says)), "{lines}: {reply}");
        assert_eq!(
            (request_stream(&node.gateway, "c").await.0, request_stream(&node.gateway, "d").await.0),
            (403, 200)
        );
    }
    node.apply("cors.headers = ['x-tenant']").await;
    assert_eq!(request_stream(&node.gateway, "c").await.0, 200);
}

#[tokio::test]
async fn configured_shadow_policy_is_reloaded() {
    let mut node = Node::start("allow", "").await;
    node.config_dir.write("next.wasm", component("deny"));
    let shadow = async |node: &Node| send_request(node.gateway.control, "GET", "/v1/policy/shadow", "", b"").await;
    assert_eq!(shadow(&node).await.0, 404);
    for share in [1.0, 0.5] {
        node.apply(&format!("policy.shadow.file = 'next.wasm'\npolicy.shadow.share = {share:?}")).await;
        wait_until("a shadow policy is active", async || shadow(&node).await.1["share"] == share).await;
    }
    node.apply("").await;
    wait_until("no shadow policy is active", async || shadow(&node).await.0 == 404).await;
}
