//! An emit whose reply gets lost is tried again, and adds no second event.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::control_port::{JSON, send_request};
use crate::processes::{Gateway, ProcessOutput, run_tidegate};
use crate::redis_server::Redis;

/// A way to a Redis that cuts a connection in place of a reply, after Redis has executed the command.
struct CuttingRelay {
    port: u16,
    cuts: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

/// What `emit.lua` replies after it has added an entry, or found that of an earlier attempt.
const OUTCOMES: [&[u8]; 2] = [b"\r\nadded\r\n", b"\r\nfound\r\n"];

impl CuttingRelay {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let cuts = Arc::<AtomicUsize>::default();
        let (mut task, mut connections, left) = (JoinSet::new(), JoinSet::new(), Arc::clone(&cuts));
        task.spawn(async move {
            loop {
                let (near, _) = listener.accept().await.expect("a connection");
                let far = TcpStream::connect(("127.0.0.1", to)).await.expect("Redis answers");
                connections.spawn(relay(near, far, Arc::clone(&left)));
            }
        });
        Self { port, cuts, _task: task }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Cuts the connection in place of each of the next replies to emits.
    fn cut(&self, count: usize) {
        self.cuts.store(count, Ordering::Relaxed);
    }

    /// Whether all of these replies were lost.
    fn has_cut(&self) -> bool {
        self.cuts.load(Ordering::Relaxed) == 0
    }
}

async fn relay(near: TcpStream, far: TcpStream, cuts: Arc<AtomicUsize>) {
    let (mut from_client, mut to_client) = near.into_split();
    let (mut from_redis, mut to_redis) = far.into_split();
    let requests = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_redis).await;
    };
    let replies = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_redis.read(&mut bytes).await {
            let is_emit = bytes[..read].windows(OUTCOMES[0].len()).any(|part| OUTCOMES.contains(&part));
            let take = |left: usize| left.checked_sub(1);
            if is_emit && cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                return;
            }
            if to_client.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = requests => {}, () = replies => {} }
}

fn json_of(ended: &ProcessOutput) -> Value {
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

async fn published(redis: &Redis) -> i64 {
    let info: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut redis.connect().await).await.expect("a text");
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls=")).unwrap_or("0,");
    line.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number")
}

#[tokio::test]
async fn emit_whose_reply_is_lost_adds_one_event() {
    let redis = Redis::start(&[]).await;
    let relay = CuttingRelay::start(redis.port).await;
    let gateway = Gateway::start(&format!("store = \"{}\"\nallow-all = true", relay.url())).await;
    let control = gateway.control.to_string();
    let before = published(&redis).await;
    for cuts in 1..=2 {
        let channel = format!("c{cuts}");
        for target in [["--store", &*relay.url()], ["--control", &control]] {
            relay.cut(cuts);
            let emitted =
                json_of(&run_tidegate(&[&["emit", &channel, "e", "1", "--json"], &target[..]].concat()).await);
            assert!(relay.has_cut(), "the replies were lost");
            let (last, _) = redis.entries(&channel).await.pop().expect("the event");
            assert_eq!(emitted, json!({ "id": last.to_string() }), "{target:?}");
        }
        assert_eq!(redis.entries(&channel).await.len(), 2, "one event for each emit");
    }
    // Each attempt publishes, because the notification may be lost as well.
    assert!(published(&redis).await - before >= 8, "{} notifications", published(&redis).await);
}

#[tokio::test]
async fn attempts_with_one_key_add_one_event() {
    let redis = Redis::start(&[]).await;
    let gateway = Gateway::start(&format!("store = \"{}\"\nallow-all = true", redis.url())).await;
    let emit = async |key: &str, body: Value| {
        let headers = format!("{JSON}Idempotency-Key: {key}\r\n");
        send_request(gateway.control, "POST", "/v1/emit", &headers, body.to_string().as_bytes()).await
    };
    let event = |data: &str| json!({"channel": "c", "event": "e", "data": data});
    let (status, first) = emit("first", event("first")).await;
    assert_eq!((status, &first["uncertain"]), (200, &Value::Null), "{first}");
    // Another event is added between the attempts.
    assert_eq!(emit("second", event("second")).await.0, 200);
    for _ in 0..2 {
        assert_eq!(emit("first", event("first")).await, (200, first.clone()));
    }
    let (status, error) = emit("first", event("other")).await;
    assert_eq!((status, &error["error"]["code"]), (422, &json!("idempotency_key_reused")), "{error}");
    let (status, error) = emit(&"x".repeat(129), event("first")).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("invalid_parameter")), "{error}");
    let data: Vec<String> = redis.entries("c").await.into_iter().map(|(_, data)| data).collect();
    assert_eq!(data, ["first", "second"]);
    // The same without Redis.
    let memory = Gateway::start("store = \"memory:\"\nallow-all = true").await;
    let headers = format!("{JSON}Idempotency-Key: k\r\n");
    let attempt = async || {
        let body = event("first").to_string();
        send_request(memory.control, "POST", "/v1/emit", &headers, body.as_bytes()).await
    };
    assert_eq!(attempt().await, attempt().await);
}

#[tokio::test]
async fn attempt_after_the_entry_may_have_been_trimmed_is_uncertain() {
    let redis = Redis::start(&[]).await;
    let gateway = Gateway::start(&format!("store = \"{}\"\nallow-all = true", redis.url())).await;
    let mut admin = redis.connect().await;
    let emit = async |key: &str, channel: &str, options: Value| {
        let headers = format!("{JSON}Idempotency-Key: {key}\r\n");
        let mut body = json!({"channel": channel, "event": "e", "data": key});
        body.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        let (status, answer) =
            send_request(gateway.control, "POST", "/v1/emit", &headers, body.to_string().as_bytes()).await;
        assert_eq!(status, 200, "{answer}");
        answer["uncertain"] == true
    };
    // A new channel, and one from which nothing was trimmed.
    assert!(!emit("a", "short", json!({})).await && !emit("b", "short", json!({})).await);
    // The stream keeps one entry, and the next emit trims it.
    assert!(!emit("a", "trimmed", json!({"max_length": 1})).await);
    assert!(!emit("a", "trimmed", json!({"max_length": 1})).await, "it is found");
    assert!(!emit("b", "trimmed", json!({"max_length": 1})).await, "nothing was trimmed yet");
    assert!(emit("a", "trimmed", json!({"max_length": 1})).await, "it was trimmed");
    // Trimmed, but the stream reaches further back than a minute.
    let old = |minutes: u64| (tidegate::util::clock::now_ms() - minutes * 60_000).to_string();
    for minutes in [9, 6, 3] {
        let add = ["XADD", "old", "MAXLEN", "2", &old(minutes), "event", "e", "data", "1"];
        let _: String = redis::cmd(add[0]).arg(&add[1..]).query_async(&mut admin).await.expect("added");
    }
    assert!(!emit("a", "old", json!({})).await && !emit("b", "old", json!({})).await);
    // More entries than an attempt looks at.
    assert!(!emit("a", "busy", json!({})).await);
    for _ in 0..256 {
        let add = ["XADD", "busy", "*", "event", "e", "data", "1"];
        let _: String = redis::cmd(add[0]).arg(&add[1..]).query_async(&mut admin).await.expect("added");
    }
    assert!(emit("a", "busy", json!({})).await);
    // Bytes count as well.
    assert!(!emit("a", "large", json!({})).await);
    for _ in 0..5 {
        let large = "x".repeat(1 << 20);
        let add = ["XADD", "large", "*", "event", "e", "data", &large];
        let _: String = redis::cmd(add[0]).arg(&add[1..]).query_async(&mut admin).await.expect("added");
    }
    assert!(emit("a", "large", json!({})).await);
    // A stream that expires within a minute may have expired since.
    assert!(emit("a", "expired", json!({"expire_seconds": 5})).await);
    assert!(!emit("a", "expired later", json!({"expire_seconds": 60})).await);
}
