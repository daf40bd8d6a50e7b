//! Options that change without a restart: each is put in a configuration that is followed, and seen to have its effect.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::children::{Gateway, until, within};
use crate::client::Wire;
use crate::control_port::{JSON, WASM, ask};
use crate::guests::component;
use crate::rollout::{Desk, asks, distinct};

/// A gateway in a folder, whose configuration is these lines, at the top level.
struct Node {
    desk: Desk,
    gateway: Gateway,
    token: &'static str,
}

impl Node {
    async fn start(policy: &str, lines: &str) -> Self {
        let desk = Desk::new();
        desk.write("policy.wasm", component(policy));
        write(&desk, lines);
        let (process, dir) = desk.launch();
        Self { desk, gateway: Gateway::when_up(process, dir).await, token: "" }
    }

    async fn told(&self) -> Value {
        let header = format!("authorization: Bearer {}\r\n", self.token);
        ask(self.gateway.control, "GET", "/v1/policy", &header, b"").await.1["configuration"].clone()
    }

    /// Writes the configuration anew, and has what is told of it when it was read. With another token from then on.
    async fn configure(&mut self, lines: &str, token: &'static str) -> Value {
        let before = self.told().await["read"].clone();
        write(&self.desk, lines);
        let mut told = Value::Null;
        until("the configuration is read", async || {
            told = self.told().await;
            if told.is_null() {
                // Another token is asked for by now.
                self.token = token;
            }
            told["read"].is_u64() && told["read"] != before
        })
        .await;
        told
    }

    /// The same, of a configuration without a mistake that needs no restart.
    async fn takes(&mut self, lines: &str) {
        let told = self.configure(lines, self.token).await;
        assert_eq!((&told["error"], &told["needs_restart"]), (&Value::Null, &json!([])), "{lines}: {told}");
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.desk.at(file)).unwrap_or_default();
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Opens a stream, and waits until a file has so many lines.
    async fn decides(&self, file: &str, lines: usize) -> Vec<Value> {
        assert_eq!(asks(&self.gateway, "c").await.0, 200);
        until(file, async || self.lines(file).len() >= lines).await;
        let told = self.lines(file);
        assert_eq!(told.len(), lines, "{file}: {told:?}");
        told
    }
}

fn write(desk: &Desk, lines: &str) {
    let ports = "listen = '127.0.0.1:0'\ncontrol.listen = '127.0.0.1:0'\nstore = 'memory:'";
    let drain = if lines.contains("drain.delay") { "" } else { "drain.delay = '0s'" };
    let cache = desk.at("cache");
    desk.replace(
        "node.toml",
        format!("{ports}\ncache-dir = {cache:?}\n{drain}\npolicy.file = 'policy.wasm'\n{lines}\n"),
    );
}

#[tokio::test]
async fn what_is_written_of_decisions() {
    let mut node = Node::start("allow", "").await;
    node.takes("decisions.log = 'one'").await;
    assert_eq!(node.decides("one", 1).await[0]["channels"], json!(["c"]));
    node.takes("decisions.log = 'one'\ndecisions.mask = ['channels']").await;
    let masked = node.decides("one", 2).await[1]["channels"].clone();
    assert!(masked[0].as_str().is_some_and(|name| name.starts_with('~')), "{masked}");
    node.takes("decisions.log = 'two'\ndecisions.mask = ['channels', 'subject']").await;
    // The key is the process's own, whatever is masked.
    assert_eq!(node.decides("two", 1).await[0]["channels"], masked);
    assert_eq!(node.lines("one").len(), 2);
    // What cannot be written is a mistake, and then all is as it was: also what would have been right.
    let told = node.configure("decisions.log = 'none/three'\ncontrol.token = 'one'", "").await;
    let error = told["error"].as_str().unwrap_or_default();
    assert!(error.contains("decisions.log") && error.contains("none/three"), "{told}");
    node.decides("two", 2).await;
    assert!(node.told().await["read"].is_u64(), "no token is asked for");
    // And so is what is wrong elsewhere.
    let told = node.configure("decisions.log = 'three'\npolicy.timeout = 'soon'", "").await;
    assert!(told["error"].is_string() && !node.desk.at("three").exists(), "{told}");
    node.decides("two", 3).await;

    let record = "decisions.log = 'two'\ndecisions.record = 'recording'\ndecisions.record-share";
    node.takes(&format!("{record} = 1")).await;
    node.decides("recording", 1).await;
    node.takes(&format!("{record} = 0")).await;
    node.decides("two", 5).await;
    node.takes(&format!("{record} = 1.0")).await;
    node.decides("recording", 2).await;
    node.takes("decisions.log = 'two'").await;
    node.decides("two", 7).await;
    assert_eq!(node.lines("recording").len(), 2);
    node.takes("decisions.record = 'recording'\ndecisions.record-share = 1").await;
    node.decides("recording", 3).await;
    assert_eq!(node.lines("two").len(), 7, "the log is off");
}

#[tokio::test]
async fn what_is_logged() {
    let mut node = Node::start("allow", "log.filter = 'error'").await;
    let log = |node: &Node| node.gateway.process.stderr.so_far();
    assert_eq!(asks(&node.gateway, "silent").await.0, 200);
    node.takes("log.filter = 'warn,tidegate::authz=info'").await;
    until("it is logged", async || {
        assert_eq!(asks(&node.gateway, "loud").await.0, 200);
        log(&node).contains("loud")
    })
    .await;
    let told = node.configure("log.filter = 'tidegate=loud'", "").await;
    assert!(told["error"].as_str().is_some_and(|error| error.contains("log.filter")), "{told}");
    node.takes("log.filter = 'error'").await;
    // What is refused is an error, and so says that all before it is in the log that shall be there.
    let mut number = 0;
    until("nothing more is logged", async || {
        number += 1;
        assert_eq!(asks(&node.gateway, &format!("quiet-{number}")).await.0, 200);
        assert_eq!(ask(node.gateway.control, "PUT", "/v1/policy", WASM, b"none").await.0, 422);
        let refused = |log: &str| log.matches("policy activation failed").count() >= number;
        assert!(within("a line in the log", node.gateway.process.stderr.wait_for(refused)).await);
        !log(&node).contains(&format!("quiet-{number}\""))
    })
    .await;
    assert!(!log(&node).contains("silent"));
}

/// The status of a command at `/redis` with this token.
async fn rest(node: &Node, token: &str) -> u16 {
    let headers = format!("{JSON}authorization: Bearer {token}\r\n");
    ask(node.gateway.data, "POST", "/redis", &headers, b"[\"PUBLISH\", \"other\", \"1\"]").await.0
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
        let read = within("a subscription", socket.read_buf(&mut text)).await.expect("an answer");
        assert!(read > 0, "{}", String::from_utf8_lossy(&text));
    }
    socket
}

#[tokio::test]
async fn tokens() {
    let mut node = Node::start("allow", "").await;
    assert_eq!(rest(&node, "a").await, 404);
    node.takes("redis-rest.tokens = ['a', 'b']").await;
    assert_eq!((rest(&node, "a").await, rest(&node, "c").await), (200, 401));
    let (mut a, mut b) = (subscribe(node.gateway.data, "a").await, subscribe(node.gateway.data, "b").await);
    node.takes("redis-rest.tokens = ['b', 'c']").await;
    assert_eq!((rest(&node, "a").await, rest(&node, "b").await, rest(&node, "c").await), (401, 200, 200));
    // Whoever followed a channel with it does not go on; the others do.
    let mut rest_of_it = Vec::new();
    within("the end of a subscription", a.read_to_end(&mut rest_of_it)).await.expect("an end");
    let emit = json!({ "channel": "c", "event": "e", "data": 1 }).to_string();
    assert_eq!(ask(node.gateway.control, "POST", "/v1/emit", JSON, emit.as_bytes()).await.0, 200);
    let mut text = Vec::new();
    within("a message", b.read_buf(&mut text)).await.expect("an answer");
    assert!(String::from_utf8_lossy(&text).contains("message,c,"), "{}", String::from_utf8_lossy(&text));

    let status = async |node: &Node, token: &str| {
        let header = format!("authorization: Bearer {token}\r\n");
        ask(node.gateway.control, "GET", "/v1/status", &header, b"").await.0
    };
    node.configure("control.token = 'one'", "one").await;
    assert_eq!((status(&node, "").await, status(&node, "one").await), (401, 200));
    node.configure("control.token = 'two'", "two").await;
    assert_eq!((status(&node, "one").await, status(&node, "two").await), (401, 200));
}

#[tokio::test]
async fn a_token_that_was_there_at_the_start_stays() {
    let desk = Desk::new();
    desk.write("policy.wasm", component("allow"));
    write(&desk, "control.token = 'one'");
    let (process, dir) = desk.launch();
    let mut node = Node { desk, gateway: Gateway::when_up(process, dir).await, token: "one" };
    node.configure("control.token = 'two'", "two").await;
    let told = node.configure("", "two").await;
    assert_eq!(told["needs_restart"], json!(["control.token"]), "{told}");
    assert_eq!(ask(node.gateway.control, "GET", "/v1/status", "", b"").await.0, 401);
}

#[tokio::test]
async fn the_times_of_rotation_and_drain() {
    let mut node = Node::start("allow", "policy.rotate-within = 'off'\ndrain.delay = '1h'\ndrain.time = '1h'").await;
    let open = Wire::get(node.gateway.data, "/api/realtime?channel=c", None, None);
    let mut stream = within("a stream", open).await.expect("a stream");
    let next = distinct(&component("allow"), 2);
    assert_eq!(ask(node.gateway.control, "PUT", "/v1/policy", WASM, &next).await.0, 200);
    // It was to stay; now it shall go.
    node.takes("policy.rotate-within = '0s'\ndrain.delay = '1h'\ndrain.time = '1h'").await;
    let end = async { while stream.more(u64::MAX).await.expect("it is read") {} };
    within("the end of a stream of the old version", end).await;
    assert!(stream.body().contains("reconnect"), "{}", stream.body());

    node.takes("drain.delay = '0s'\ndrain.time = '0s'").await;
    let open = Wire::get(node.gateway.data, "/api/realtime?channel=c", None, None);
    let _stream = within("a stream", open).await.expect("a stream");
    node.gateway.process.signal("TERM").await;
    let ended = node.gateway.process.end().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

#[tokio::test]
async fn which_channels_there_are_and_which_pages_may_read_them() {
    let mut node = Node::start("allow", "").await;
    assert_eq!(asks(&node.gateway, "c").await.0, 200);
    node.takes("channels.deny = ['c']\ncors.origins = ['https://app.example']").await;
    assert_eq!((asks(&node.gateway, "c").await.0, asks(&node.gateway, "d").await.0), (403, 200));
    let wire = Wire::get(node.gateway.data, "/api/realtime?channel=d", None, None).await.expect("an answer");
    assert!(!wire.head.contains("access-control-allow-origin: *"), "{}", wire.head);
    node.takes("").await;
    let wire = Wire::get(node.gateway.data, "/api/realtime?channel=c", None, None).await.expect("an answer");
    assert!(wire.status == 200 && wire.head.contains("access-control-allow-origin: *"), "{}", wire.head);
}

#[tokio::test]
async fn the_candidate_of_the_configuration() {
    let mut node = Node::start("allow", "").await;
    node.desk.write("next.wasm", component("deny"));
    let candidate = async |node: &Node| ask(node.gateway.control, "GET", "/v1/policy/candidate", "", b"").await;
    assert_eq!(candidate(&node).await.0, 404);
    for share in [1.0, 0.5] {
        node.takes(&format!("policy.shadow.file = 'next.wasm'\npolicy.shadow.share = {share:?}")).await;
        until("a candidate", async || candidate(&node).await.1["share"] == share).await;
    }
    node.takes("").await;
    until("no candidate", async || candidate(&node).await.0 == 404).await;
}
