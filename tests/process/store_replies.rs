//! `/redis` and a real Redis: the words of its errors, and restarts.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Sse;
use crate::control_port::{JSON, metric, send_request};
use crate::processes::{Gateway, wait_until, with_timeout};
use crate::redis_server::{DURABLE, Redis};

const TOKEN: &str = "a-token-of-the-tests";

async fn start_gateway(store: &str) -> Gateway {
    Gateway::start(&format!("store = \"{store}\"\nallow-all = true\nredis-rest.tokens = [\"{TOKEN}\"]")).await
}

/// Posts a command or a pipeline to `/redis`.
async fn post(gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    send_request(gateway.data, "POST", path, &bearer, body.to_string().as_bytes()).await
}

/// Redis refuses writes and `PING` while it cannot write to its disk, and answers reads.
#[tokio::test]
async fn gateway_serves_streams_while_redis_cannot_write_to_its_disk() {
    let redis = Redis::start(&["--save", "3600 1"]).await;
    std::fs::remove_dir(redis.dir.path()).expect("an empty directory");
    wait_until("Redis cannot write", async || {
        let replies = replies(&redis, &["BGSAVE", "PING"]).await;
        replies[1].starts_with("-MISCONF ")
    })
    .await;
    let gateway = start_gateway(&redis.url()).await;
    let (status, ready) = send_request(gateway.control, "GET", "/readyz", "", b"").await;
    assert_eq!(status, 200, "{ready}");
    let mut stream = Sse::open(gateway.data, "channel=news").await;
    stream.connected("news").await;
    // Both connections ping every 5 s.
    let mut admin = redis.connect().await;
    let mut refused = async || {
        let info: String = redis::cmd("INFO").arg("commandstats").query_async(&mut admin).await.expect("Redis answers");
        let pings = info.lines().find(|line| line.starts_with("cmdstat_ping:")).expect("pings");
        let count = pings.split(',').find_map(|part| part.strip_prefix("rejected_calls="));
        count.and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let before = refused().await;
    wait_until("both connections are checked", async || refused().await >= before + 4).await;
    assert!(metric(gateway.control, "tidegate_store_pubsub_failures_total").await == 0.0);

    replies(&redis, &["CONFIG SET stop-writes-on-bgsave-error no"]).await;
    let (status, answer) = post(&gateway, "/redis", &json!(["XADD", "news", "*", "data", "1"])).await;
    assert_eq!(status, 200, "{answer}");
}

/// The replies of Redis itself to inline commands over one connection, in its own words.
async fn replies(redis: &Redis, commands: &[&str]) -> Vec<String> {
    let mut socket = BufReader::new(TcpStream::connect(("127.0.0.1", redis.port)).await.expect("a connection"));
    let mut lines = Vec::new();
    for command in commands {
        socket.write_all(format!("{command}\r\n").as_bytes()).await.expect("sent");
        let mut line = String::new();
        with_timeout("a reply", socket.read_line(&mut line)).await.expect("a line");
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[tokio::test]
async fn errors_of_redis_keep_their_words() {
    const LOGIN: &str = "AUTH limited secret";
    let redis = Redis::start(&[]).await;
    let run = async |commands: &[&str]| replies(&redis, commands).await;
    let ready = run(&["ACL SETUSER limited on >secret ~* &* +@all", "SET text 1", "XADD c 5-5 a b"]).await;
    assert!(ready[0] == "+OK" && ready[1] == "+OK", "{ready:?}");
    let gateway = start_gateway(&format!("redis://limited:secret@127.0.0.1:{}", redis.port)).await;
    let check = async |command: &str, code: &str, status: u16| {
        let theirs = run(&[LOGIN, command]).await.remove(1);
        assert!(theirs.starts_with(&format!("-{code} ")), "{command}: {theirs}");
        let command = json!(command.split(' ').collect::<Vec<_>>());
        let (answered, ours) = post(&gateway, "/redis", &command).await;
        assert_eq!((answered, &ours), (status, &json!({ "error": theirs[1..] })), "{command}");
        let (_, ours) = post(&gateway, "/redis/pipeline", &json!([command])).await;
        assert_eq!(ours, json!([{ "error": theirs[1..] }]), "{command}");
    };
    check("XADD c 1-1 a b", "ERR", 400).await;
    check("XADD c 0-0 a b", "ERR", 400).await;
    check("XADD c 4-* a b", "ERR", 400).await;
    check("XADD text * a b", "WRONGTYPE", 400).await;
    check("XRANGE text - +", "WRONGTYPE", 400).await;
    for (begin, end, code, status) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM", 502),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0", "NOREPLICAS", 502),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "READONLY", 503),
        ("ACL SETUSER limited -xadd", "ACL SETUSER limited +xadd", "NOPERM", 502),
    ] {
        assert_eq!(run(&[begin]).await, ["+OK"]);
        check("XADD c * a b", code, status).await;
        assert_eq!(run(&[end]).await, ["+OK"]);
    }
    // A command in a script has the same words.
    assert_eq!(run(&["ACL SETUSER limited -xrange"]).await, ["+OK"]);
    let (status, error) = post(&gateway, "/redis", &json!(["XRANGE", "c", "-", "+"])).await;
    let text = error["error"].as_str().unwrap_or_default();
    assert!(status == 502 && !text.contains("user_script") && !text.contains("script: "), "{error}");
    assert_eq!(
        post(&gateway, "/redis", &json!(["XADD", "c", "6-6", "a", "b"])).await,
        (200, json!({ "result": "6-6" }))
    );

    let memory = start_gateway("memory:").await;
    assert_eq!(run(&["DEL c", "XADD c 5-5 a b"]).await[0], ":1");
    post(&memory, "/redis", &json!(["XADD", "c", "5-5", "a", "b"])).await;
    for id in ["0-0", "1-1", "5-5", "1-*"] {
        let theirs = run(&[&format!("XADD c {id} a b")]).await.remove(0);
        let ours = post(&memory, "/redis", &json!(["XADD", "c", id, "a", "b"])).await;
        assert_eq!(ours, (400, json!({ "error": theirs[1..] })), "{id}");
    }
}

async fn restart(redis: &mut Redis, gateway: &Gateway) {
    redis.kill().await;
    redis.restart().await;
    let is_ready = async || send_request(gateway.control, "GET", "/readyz", "", b"").await.0 == 200;
    wait_until("the gateway is ready", is_ready).await;
}

#[tokio::test]
async fn first_command_after_a_restart_of_redis_succeeds() {
    let mut redis = Redis::start(DURABLE).await;
    let gateway = start_gateway(&redis.url()).await;
    let add = json!(["XADD", "c", "*", "data", 1, "event", "e", "channel", "c"]);
    let range = json!(["XRANGE", "c", "-", "+"]);
    let emit: &[u8] = br#"{"channel":"c","event":"e","data":1}"#;
    for round in 0..6 {
        // Each connection is open when Redis ends.
        for (path, command) in [("/redis", &add), ("/redis", &range)] {
            let (status, answer) = post(&gateway, path, command).await;
            assert_eq!(status, 200, "round {round}, before: {answer}");
        }
        restart(&mut redis, &gateway).await;
        let (status, answer) = match round % 3 {
            0 => post(&gateway, "/redis", &add).await,
            1 => post(&gateway, "/redis/pipeline", &json!([add])).await,
            _ => send_request(gateway.control, "POST", "/v1/emit", JSON, emit).await,
        };
        assert!(status == 200 && !answer.to_string().contains("error"), "round {round}: {status} {answer}");
        let (status, answer) = post(&gateway, "/redis", &range).await;
        let entries = answer["result"].as_array().map(Vec::len);
        assert_eq!((status, entries), (200, Some(2 * (round + 1))), "round {round}: {answer}");
    }
}

/// A way to a Redis on which connections can get lost without a sign, as through a firewall that forgets them.
struct SilentRelay {
    port: u16,
    silence: watch::Sender<()>,
    _task: JoinSet<()>,
}

impl SilentRelay {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (silence, silenced) = watch::channel(());
        let (mut task, mut connections) = (JoinSet::new(), JoinSet::new());
        task.spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.expect("a connection");
                let mut far = TcpStream::connect(("127.0.0.1", to)).await.expect("Redis answers");
                let mut silenced = silenced.clone();
                silenced.mark_unchanged();
                connections.spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        // Both sockets stay open.
                        _ = silenced.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, silence, _task: task }
    }

    /// Nothing passes over the present connections any more.
    fn silence(&self) {
        self.silence.send_replace(());
    }
}

#[tokio::test]
async fn connection_that_was_lost_without_a_sign_is_replaced() {
    let redis = Redis::start(&[]).await;
    let relay = SilentRelay::start(redis.port).await;
    let store = format!("redis://127.0.0.1:{}", relay.port);
    let toml = format!("store-timeout = \"200ms\"\nstore = \"{store}\"");
    let gateway = Gateway::start(&format!("{toml}\nallow-all = true\nredis-rest.tokens = [\"{TOKEN}\"]")).await;
    let add = json!(["XADD", "c", "*", "data", 1, "event", "e", "channel", "c"]);
    assert_eq!(post(&gateway, "/redis", &add).await.0, 200);
    relay.silence();
    let (status, answer) = post(&gateway, "/redis", &add).await;
    assert_eq!(status, 503, "it may have been executed, so it is not repeated: {answer}");
    wait_until("an emit succeeds", async || post(&gateway, "/redis", &add).await.0 == 200).await;
}

/// An emitter repeats nothing here, so each number is added at most once, and exactly once if that was confirmed.
#[tokio::test]
async fn no_emit_is_applied_twice_when_redis_is_killed() {
    let mut redis = Redis::start(DURABLE).await;
    let gateway = start_gateway(&redis.url()).await;
    let data = gateway.data;
    let (stop, stopped) = watch::channel(false);
    let mut emitters = JoinSet::new();
    for emitter in 0..4 {
        let stopped = stopped.clone();
        emitters.spawn(async move {
            let (mut results, bearer) = (Vec::new(), format!("authorization: Bearer {TOKEN}\r\n"));
            for n in 0.. {
                if *stopped.borrow() {
                    break;
                }
                let text = format!("{emitter}.{n}");
                let add = json!(["XADD", "c", "*", "data", text, "event", "e", "channel", "c"]);
                let (status, _) = send_request(data, "POST", "/redis", &bearer, add.to_string().as_bytes()).await;
                results.push((text, status == 200));
            }
            results
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        restart(&mut redis, &gateway).await;
    }
    stop.send_replace(true);
    let sent: HashMap<String, bool> = emitters.join_all().await.into_iter().flatten().collect();
    let mut added = HashMap::<String, usize>::new();
    for (_, text) in redis.entries("c").await {
        *added.entry(text).or_default() += 1;
    }
    let confirmed = sent.values().filter(|confirmed| **confirmed).count();
    assert!(confirmed > 0, "{confirmed} of {} confirmed", sent.len());
    for (text, confirmed) in &sent {
        let count = added.get(text).copied().unwrap_or(0);
        assert!(count == 1 || (count == 0 && !confirmed), "{text} was added {count} times; confirmed: {confirmed}");
    }
}
