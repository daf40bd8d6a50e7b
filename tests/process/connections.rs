//! More connections than a node can have.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::control_port::{JSON, metric, send_request};
use crate::memory::{allocated, assert_term, peak_during};
use crate::processes::{ChildProcess, Gateway, run, tidegate, wait_until, with_descriptor_limit, with_timeout};
use crate::redis_server::Redis;

const DESCRIPTORS: usize = 1_024;
/// The term of the formula for a connection.
const CONNECTION_BYTES: usize = 48 << 10;

/// The status of `GET /healthz`.
async fn health(to: SocketAddr) -> u16 {
    send_request(to, "GET", "/healthz", "", b"").await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_leave_room_for_operators_clients_and_the_store() {
    // They are descriptors of this process, too.
    tidegate::util::descriptors::raise_limit().expect("the limit is raised");
    let redis = Redis::start(&[]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let toml = format!(
        "store = \"{}\"\nallow-all = true\nlisten = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"\ndrain.delay = \"0s\"\n\
         server.head-timeout = \"5s\"",
        redis.url()
    );
    std::fs::write(dir.path().join("tidegate.toml"), toml).expect("the configuration is written");
    let mut command = with_descriptor_limit(&tidegate(&["serve"]), DESCRIPTORS);
    command.current_dir(dir.path());
    let gateway = Gateway::wait_until_ready(ChildProcess::start(command), dir).await;
    let connects = metric(gateway.control, "tidegate_store_pubsub_connects_total").await;
    let mut silent = Vec::new();
    let mut operators_served = 0;
    for n in 0..1_100 {
        silent.push(with_timeout("a connection", TcpStream::connect(gateway.data)).await.expect("the kernel accepts"));
        if n % 100 == 99 {
            assert_eq!(health(gateway.control).await, 200);
            assert_eq!(health(gateway.data).await, 200, "the oldest silent connection makes room");
            operators_served += 1;
        }
    }
    assert_eq!(operators_served, 11);
    assert!(metric(gateway.control, "process_open_fds").await < 700.0, "some are left for the store and for files");
    // A link to Redis that breaks is made again.
    let mut connection = redis.connect().await;
    let killed: i64 =
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut connection).await.expect("killed");
    assert!(killed > 0);
    wait_until("the node subscribes again", async || {
        metric(gateway.control, "tidegate_store_pubsub_connects_total").await > connects
    })
    .await;
    let closed = silent.iter_mut().map(|socket| async { socket.read(&mut [0]).await });
    let closed = with_timeout("all are closed", futures_util::future::join_all(closed)).await;
    assert!(closed.iter().all(|read| matches!(read, Ok(0) | Err(_))));
    wait_until("only those of the tests are open", async || metric(gateway.control, "process_open_fds").await < 100.0)
        .await;
    let log = gateway.process.stderr.text_so_far();
    assert!(log.contains("connections=576 descriptors=1024"), "{log}");
    assert!(log.contains("stream.max-streams is 20000, but the data port can have only 576 connections"), "{log}");
    assert!(log.lines().count() < 30, "the log is not flooded: {log}");
}

#[tokio::test]
async fn check_warns_of_streams_that_do_not_fit() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = with_descriptor_limit(&tidegate(&["check", "--store", "memory:", "--allow-all"]), DESCRIPTORS);
    command.current_dir(dir.path());
    let checked = run(command, None).await;
    assert_eq!(checked.code(), Some(0), "{}", checked.all());
    let expect = "tidegate: warning: configuration: stream.max-streams is 20000, but the data port can have only 576";
    assert!(checked.stderr.contains(expect), "{}", checked.stderr);
}

/// A gateway whose connections stay, for as long as a test measures.
async fn patient_gateway(toml: &str) -> Gateway {
    Gateway::start(&format!(
        "store = \"memory:\"\nlog.filter = \"warn\"\nserver.head-timeout = \"5m\"\nserver.idle-timeout = \"5m\"\n\
         server.http2-idle-timeout = \"5m\"\nserver.response-timeout = \"5m\"\n{toml}"
    ))
    .await
}

/// Connections that have sent this, and received an answer if there is one.
async fn open(gateway: &Gateway, count: usize, bytes: &[u8], is_answered: bool) -> Vec<TcpStream> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
        // A connection that gets no memory is closed.
        let _ = socket.write_all(bytes).await;
        if is_answered {
            with_timeout("an answer", socket.read(&mut [0; 256])).await.expect("an answer");
        }
        sockets.push(socket);
    }
    sockets
}

/// An HTTP/2 connection with this many requests, whose streams have this window.
fn http2_gets(path: &str, requests: u32, window: u32) -> Vec<u8> {
    let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4][..], &window.to_be_bytes()].concat();
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*settings].concat();
    // Without Huffman codes.
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'h']);
    for stream in (1..2 * requests).step_by(2) {
        bytes.extend([0, 0, u8::try_from(block.len()).expect("a short block"), 1, 5]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(&block);
    }
    bytes
}

/// `server.max-connections` × 48 KiB is the term of the formula.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_stay_within_their_term_of_memory() {
    tidegate::util::descriptors::raise_limit().expect("the limit is raised");
    let gateway = patient_gateway("allow-all = true").await;
    let head = |bytes: usize| format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(bytes)).into_bytes();
    let request = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n".to_vec();
    let http2 = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 0, 0, 4, 0, 0, 0, 0, 0][..]].concat();
    // HEADERS of 16 KiB, of which nearly 8 KiB arrive.
    let part = [&*http2, &[0, 0x40, 0, 1, 1, 0, 0, 0, 1], &vec![b'y'; 7_900]].concat();
    let mut held = Vec::new();
    for (what, bytes, is_answered) in [
        ("silent connections", Vec::new(), false),
        ("connections with the begin of a head", head(80), false),
        ("connections with a head of 8 KiB", head(8_000), false),
        ("kept HTTP/1.1 connections", request, true),
        ("kept HTTP/2 connections", http2, true),
        ("HTTP/2 connections with a part of a frame", part, true),
    ] {
        let add = async |count| open(&gateway, count, &bytes, is_answered).await;
        held.push(assert_term(&gateway, what, 200, CONNECTION_BYTES, add).await);
    }
}

/// `server.connection-memory` is the term of the formula, in addition to that of the connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_heads_stay_within_the_memory_for_connections() {
    const MEMORY: usize = 4 << 20;
    tidegate::util::descriptors::raise_limit().expect("the limit is raised");
    let gateway = patient_gateway("allow-all = true\nserver.connection-memory = \"4MiB\"").await;
    let head = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(95 << 10));
    let before = allocated(&gateway).await;
    let (sockets, peak) = peak_during(&gateway, open(&gateway, 400, head.as_bytes(), false)).await;
    // The others are closed at once.
    let held = MEMORY / (96 << 10);
    let (grown, bound) = (peak - before, MEMORY + held * CONNECTION_BYTES + (2 << 20));
    println!("{} large heads: {grown} bytes, bound {bound}", sockets.len());
    assert!(grown <= bound, "{grown}, bound {bound}");
    assert!(sockets.len() * (95 << 10) > 4 * bound, "without the bound it would be far more");
}

/// The attack: windows of 0, and rejections of 64 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_stay_within_the_memory_for_connections() {
    const MEMORY: usize = 8 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let policy = dir.path().join("policy.wasm");
    std::fs::write(&policy, crate::guests::component("large-rejection")).expect("the policy is written");
    let gateway =
        patient_gateway(&format!("policy.file = \"{}\"\nserver.connection-memory = \"8MiB\"", policy.display())).await;
    let bytes = http2_gets("/api/realtime", 100, 0);
    let before = allocated(&gateway).await;
    let attack = async {
        let sockets = open(&gateway, 50, &bytes, true).await;
        let ended = "tidegate_connections_ended_total{port=\"data\",reason=\"memory\"}";
        wait_until("all are decided", async || metric(gateway.control, ended).await >= 4_800.0).await;
        sockets
    };
    let (sockets, peak) = peak_during(&gateway, attack).await;
    let (grown, bound) = (peak - before, MEMORY + sockets.len() * CONNECTION_BYTES);
    println!("5,000 unread responses of 64 KiB: {grown} bytes, bound {bound}");
    // Responses of which the memory was refused, and the decisions of the moment.
    assert!(grown <= bound + (8 << 20), "{grown}, bound {bound}");
    assert_eq!(health(gateway.data).await, 200);
}

/// The attack: windows of 1 KiB, of which nothing is returned, and events that two of them fill the largest chunk. `stream.max-streams` × (2 ×
/// `server.max-header-size` + 96 KiB) is the term of the formula.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_streams_that_are_not_read_stay_within_their_term() {
    const STREAMS_PER_CONNECTION: u32 = 50;
    const HEAD: usize = 32 << 10;
    let toml = format!("allow-all = true\nstream.buffer-memory = \"1MiB\"\nserver.max-header-size = {HEAD}");
    let gateway = patient_gateway(&toml).await;
    let bytes = http2_gets("/api/realtime?channel=flood", STREAMS_PER_CONNECTION, 1 << 10);
    let event = json!({"channel": "flood", "event": "e", "data": "x".repeat(16_000)}).to_string();
    let add = async |count: usize| {
        let opened = metric(gateway.control, "tidegate_streams").await + count as f64;
        let sockets = open(&gateway, count / STREAMS_PER_CONNECTION as usize, &bytes, true).await;
        wait_until("the streams are open", async || metric(gateway.control, "tidegate_streams").await >= opened).await;
        for _ in 0..100 {
            let (status, answer) = send_request(gateway.control, "POST", "/v1/emit", JSON, event.as_bytes()).await;
            assert_eq!(status, 200, "{answer}");
        }
        sockets
    };
    assert_term(&gateway, "HTTP/2 streams that are not read", 200, 2 * HEAD + (96 << 10), add).await;
}
