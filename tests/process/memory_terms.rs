//! The terms of docs/configuration.md#memory, each with a workload that is N and then 2 N in size.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::client::Wire;
use crate::control_port::{JSON, metric, send_request};
use crate::guests;
use crate::memory::{allocated, assert_term, peak_during};
use crate::processes::{ChildProcess, Gateway, path, tidegate, wait_until, with_timeout};
use crate::redis_server::Redis;

/// `server.max-header-size`.
const HEAD: usize = 32 << 10;
/// The term of a stream, and of a connection.
const STREAM_TERM: usize = 2 * HEAD + (96 << 10);
pub const TOKEN: &str = "a-token-of-the-test";
pub const MIB: usize = 1 << 20;

/// A gateway with this policy.
pub async fn with_policy(policy: &[u8], toml: &str) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = path(dir.path(), "policy.wasm");
    std::fs::write(&file, policy).expect("the policy is written");
    (Gateway::start(&format!("store = \"memory:\"\npolicy.file = {file:?}\n{toml}")).await, dir)
}

/// Sends a head and a body without waiting for the answer. The client's receive buffer is small.
pub async fn send(to: SocketAddr, path: &str, length: usize, body: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    let mut socket = socket.connect(to).await.expect("the port is open");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {to}\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("the head is sent");
    // The gateway does not read a body for which it has no memory.
    let _ = tokio::time::timeout(Duration::from_millis(300), socket.write_all(body)).await;
    socket
}

/// The status of the answer.
async fn status(socket: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    with_timeout("an answer", socket.read_exact(&mut head)).await.expect("an answer");
    String::from_utf8_lossy(&head[9..]).parse().expect("a status")
}

/// Sends this many requests at once, and returns the statuses of their answers.
async fn requests(to: SocketAddr, count: usize) -> Vec<u16> {
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        tasks.spawn(
            async move { Wire::get(to, "/api/realtime?channel=c", None, None).await.expect("an answer").status },
        );
    }
    tasks.join_all().await
}

const REALLOC: &str = r#"
  (global $heap (mut i32) (i32.const 0x10000))
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get $size))))"#;

/// A policy that runs this code, waits for a second and allows the request; with 17 pages of memory.
fn slow(code: &str) -> Vec<u8> {
    guests::authorizer(&format!(
        r#"(module
          (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))
          (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
          (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
          (import "wasi:http/types@0.2.0" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
          (memory (export "memory") 17) (data (i32.const 256) "x") {REALLOC}
          (func (export "tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (local $i i32)
            {code}
            (call $block (call $subscribe (i64.const 1000000000)))
            (i32.const 64)))"#
    ))
}

/// Code that makes this number of header fields of 60,000 bytes in the host.
fn make_fields(count: usize) -> String {
    format!(
        "(memory.fill (i32.const 0x80000) (i32.const 0x61) (i32.const 60000))
         (loop $again
           (call $append (call $fields) (i32.const 256) (i32.const 1) (i32.const 0x80000) (i32.const 60000) (i32.const 1024))
           (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {count}))))"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_objects_of_policies_are_part_of_their_memory() {
    const COUNT: usize = 16;
    // The host's part of an instance; its linear memory is not in the figure of the allocator.
    const TERM: usize = 3 * MIB;
    let toml =
        "policy.max-memory = \"2MiB\"\npolicy.timeout = \"20s\"\npolicy.cpu-time = \"5s\"\nlog.filter = \"error\"";
    for (what, count, expected) in [("14 fields", 14, 200), ("250 fields", 250, 500)] {
        let (gateway, _dir) = with_policy(&slow(&make_fields(count)), toml).await;
        let what = format!("decisions with {what} of 60,000 bytes");
        let mut total = 0;
        assert_term(&gateway, &what, COUNT, TERM, async |count| {
            // Twice as many at once the second time.
            total += count;
            let statuses = requests(gateway.data, total).await;
            assert!(statuses.iter().all(|status| *status == expected), "{what}: {statuses:?}");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_decisions_stay_within_their_memory() {
    const COUNT: usize = 8;
    const MAX_MEMORY: usize = 8 * MIB;
    // Grows to the limit and fills all of it.
    let code =
        "(drop (memory.grow (i32.const 110))) (memory.fill (i32.const 0x10000) (i32.const 1) (i32.const 0x7d0000))";
    let toml =
        "policy.max-memory = \"8MiB\"\npolicy.timeout = \"20s\"\npolicy.cpu-time = \"5s\"\nlog.filter = \"error\"";
    let (gateway, _dir) = with_policy(&slow(code), toml).await;
    let idle = gateway.process.anonymous_memory() << 10;
    let peak = async |count| {
        let running = tokio::spawn(requests(gateway.data, count));
        let mut peak = 0;
        while !running.is_finished() {
            peak = peak.max(gateway.process.anonymous_memory() << 10);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(running.await.expect("no panic").iter().all(|status| *status == 200));
        peak
    };
    let (first, second) = (peak(COUNT).await, peak(2 * COUNT).await);
    println!("memory: decisions: {idle} bytes idle, {first} with {COUNT}, {second} with twice as many");
    assert!(first - idle >= COUNT * MAX_MEMORY / 2, "the decisions use their memory: {first}, {idle} when idle");
    // The stack, and what the host holds.
    let bound = COUNT * (MAX_MEMORY + 2 * MIB);
    assert!(second.saturating_sub(first) <= bound, "{COUNT} more decisions take {} bytes", second - first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_instances_keep_no_more_than_their_resident_part() {
    const COUNT: usize = 16;
    /// Threads, connections and the like, which stay after the first load.
    const OTHER: usize = 6 * MIB;
    // Each instance uses 12 MiB.
    let code =
        "(drop (memory.grow (i32.const 192))) (memory.fill (i32.const 0x10000) (i32.const 1) (i32.const 0xc00000))";
    for resident in [0, 4 * MIB] {
        let toml = format!(
            "policy.pool-resident = {resident}\npolicy.timeout = \"20s\"\npolicy.cpu-time = \"5s\"\nlog.filter = \"error\""
        );
        let (gateway, _dir) = with_policy(&slow(code), &toml).await;
        let start = gateway.process.anonymous_memory() << 10;
        let statuses = requests(gateway.data, COUNT).await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        // Not the pool's count of memories: it has prewarmed instances, and not those that give their pages back.
        wait_until("all instances are torn down", async || {
            metric(gateway.control, "tidegate_decisions_in_progress").await == 0.0
        })
        .await;
        let kept = (gateway.process.anonymous_memory() << 10).saturating_sub(start);
        println!("memory: idle instances: {start} bytes at the start, {kept} more after {COUNT} decisions");
        assert!(kept <= COUNT * resident + OTHER, "{COUNT} idle instances keep {kept} bytes");
        assert!(kept >= COUNT * resident / 2, "{COUNT} idle instances keep only {kept} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_decisions_stay_within_the_cache_size() {
    const COUNT: usize = 200;
    /// Evicted decisions are freed a little later.
    const EVICTED: usize = 6 * MIB;
    // A rejection with 50,000 bytes, cached by cookie.
    let policy = guests::authorizer(&format!(
        r#"(module
          (import "tidegate:policy/answer@0.1.0" "cache-for" (func $cache-for (param i32 i32 i32)))
          (memory (export "memory") 17)
          (data (i32.const 64) (i32 1 0) (i32 403) (i32 0 0) (i32 0x80000 50000))
          (data (i32.const 352) (i32 576 6))
          (data (i32.const 576) "cookie") {REALLOC}
          (func (export "tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (call $cache-for (i32.const 60) (i32.const 352) (i32.const 1))
            (i32.const 64)))"#
    ));
    let toml = "policy.cache-size = \"1MiB\"\nlog.filter = \"error\"";
    let (gateway, _dir) = with_policy(&policy, toml).await;
    let idle = allocated(&gateway).await;
    let mut number = 0;
    let mut add = async |count| {
        for _ in 0..count {
            number += 1;
            let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
            let cookie = format!("{number}-{}", "x".repeat(4_000));
            let head = format!("GET /api/realtime?channel=n HTTP/1.1\r\nhost: h\r\ncookie: {cookie}\r\n\r\n");
            socket.write_all(head.as_bytes()).await.expect("sent");
            assert_eq!(status(&mut socket).await, 403);
        }
    };
    for round in 1..=3 {
        let ((), peak) = peak_during(&gateway, add(COUNT)).await;
        println!("memory: {} cached decisions: {idle} bytes idle, {peak} at most", round * COUNT);
        assert!(peak <= idle + MIB + EVICTED, "{} bytes for {} decisions", peak - idle, round * COUNT);
    }
    let cached = metric(gateway.control, "tidegate_decision_cache_bytes").await as usize;
    assert!(cached > MIB / 2, "the cache is full: {cached} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_bodies_stay_within_the_body_memory() {
    const SIZE: usize = 2 * MIB;
    let (gateway, _dir) = with_policy(
        &guests::component("allow"),
        &format!(
            "stream.max-event-size = \"2MiB\"\nserver.body-memory = \"25MiB\"\nserver.max-header-size = {HEAD}\n\
             redis-rest.tokens = [\"{TOKEN}\"]\nlog.filter = \"error\""
        ),
    )
    .await;
    let idle = allocated(&gateway).await;
    let command = serde_json::json!(["XADD", "c", "*", "data", "x".repeat(SIZE - 100)]).to_string();
    let body = &command.as_bytes()[..command.len() - 1];
    let mut held = Vec::new();
    // The control port has 64 connections.
    for (to, path, count) in
        [(gateway.data, "/redis", 40), (gateway.data, "/redis/pipeline", 40), (gateway.control, "/v1/emit", 20)]
    {
        // Those that have no memory get an answer after a while; the second half finds none at all.
        let sockets = assert_term(&gateway, &format!("bodies of {path}"), count, STREAM_TERM, async |count| {
            let mut tasks = JoinSet::new();
            for _ in 0..count {
                let body = body.to_vec();
                tasks.spawn(async move { send(to, path, body.len() + 1, &body).await });
            }
            tasks.join_all().await
        })
        .await;
        held.extend(sockets.into_iter().flatten());
    }
    let used = allocated(&gateway).await;
    assert!(used <= idle + 25 * MIB + held.len() * STREAM_TERM, "{used} bytes, {idle} when idle");
    let mut refused = held.pop().expect("the last one");
    assert_eq!(status(&mut refused).await, 503);
    drop((refused, held));
    // The memory of clients that disconnect is free again.
    wait_until("a whole body is accepted", async || {
        let mut socket = send(gateway.data, "/redis", command.len(), command.as_bytes()).await;
        status(&mut socket).await == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_short_values_take_no_more_than_the_body_memory() {
    let (gateway, _dir) =
        with_policy(&guests::component("allow"), &format!("redis-rest.tokens = [\"{TOKEN}\"]\nlog.filter = \"error\""))
            .await;
    let idle = allocated(&gateway).await;
    let size = 8 * MIB;
    for (path, part) in [("/redis", "[],"), ("/redis", "1,"), ("/redis/pipeline", "[],"), ("/redis/pipeline", "\"\",")]
    {
        let body = format!("[{}1]", part.repeat(size / part.len()));
        let ((), peak) = peak_during(&gateway, async {
            let mut socket = send(gateway.data, path, body.len(), body.as_bytes()).await;
            assert_eq!(status(&mut socket).await, 400);
        })
        .await;
        println!("memory: {size} bytes of {part:?} to {path}: {idle} bytes idle, {peak} at most");
        assert!(peak <= idle + 4 * size, "{path} with {part:?}: {} bytes", peak - idle);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_stay_within_the_body_memory() {
    const COUNT: usize = 60;
    let redis = Redis::start(&[]).await;
    let gateway = Gateway::start(&format!(
        "store = \"{}\"\nallow-all = true\nstream.max-event-size = \"1MiB\"\nserver.body-memory = \"13MiB\"\n\
         server.max-header-size = {HEAD}\nredis-rest.tokens = [\"{TOKEN}\"]\nlog.filter = \"error\"",
        redis.url()
    ))
    .await;
    let mut connection = redis.connect().await;
    let mut add = redis::pipe();
    for _ in 0..100 {
        add.cmd("XADD").arg("big").arg("*").arg(&["data", &"x".repeat(200_000)]).ignore();
    }
    add.exec_async(&mut connection).await.expect("added");
    let idle = allocated(&gateway).await;
    let post = async |command: &str| {
        let headers = format!("authorization: Bearer {TOKEN}\r\n");
        send_request(gateway.data, "POST", "/redis", &headers, command.as_bytes()).await
    };
    // 20 MB at once are refused, and a page is not.
    let (status, error) = post(r#"["XRANGE","big","-","+"]"#).await;
    assert!(status == 400 && error["error"].as_str().is_some_and(|text| text.contains("COUNT")), "{error}");
    let page = r#"["XRANGE","big","-","+","COUNT","5"]"#;
    let (status, answer) = post(page).await;
    assert_eq!((status, answer["result"].as_array().map(Vec::len)), (200, Some(5)));
    // Clients that send requests one after the other, and read no answer of 1 MB. Without a limit a connection holds one of them.
    let request = format!(
        "POST /redis HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n{page}",
        page.len()
    );
    let (held, peak) = peak_during(&gateway, async {
        let mut sockets = Vec::new();
        for _ in 0..COUNT {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
            let mut socket = socket.connect(gateway.data).await.expect("the port is open");
            socket.write_all(request.repeat(6).as_bytes()).await.expect("the requests are sent");
            sockets.push(socket);
        }
        // Each has an answer, or was refused because the others hold all memory.
        for socket in &sockets {
            with_timeout("an answer", socket.peek(&mut [0])).await.expect("an answer");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        sockets
    })
    .await;
    // What the connection to the store receives is not part of it.
    let bound = 13 * MIB + 4 * MIB + COUNT * STREAM_TERM;
    println!(
        "memory: answers that no client reads: {idle} bytes idle, {peak} at most with {COUNT} clients, bound {bound} more"
    );
    assert!(peak <= idle + bound, "{} bytes; the bound is {bound}", peak - idle);
    drop(held);
    wait_until("a page is answered", async || post(page).await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stop_within_a_large_event_stay_within_their_term() {
    const COUNT: usize = 4;
    const SIZE: usize = 5 * MIB;
    // The store holds one of the events.
    let gateway = Gateway::start(&format!(
        "store = \"memory:\"\nmemory-store.max-size = \"8MiB\"\nallow-all = true\nserver.max-header-size = {HEAD}\n\
         stream.buffer-memory = \"1MiB\"\nstream.replay-memory = \"1MiB\"\nlog.filter = \"error\""
    ))
    .await;
    let mut channel = 0;
    let mut add = async || {
        let mut streams = Vec::new();
        for _ in 0..COUNT {
            channel += 1;
            let target = format!("/api/realtime?channel=c{channel}");
            let mut stream = Wire::get(gateway.data, &target, None, Some(16 << 10)).await.expect("an answer");
            let event = serde_json::json!({"channel": format!("c{channel}"), "event": "e", "data": "x".repeat(SIZE)});
            let (status, answer) =
                send_request(gateway.control, "POST", "/v1/emit", JSON, event.to_string().as_bytes()).await;
            assert_eq!(status, 200, "{answer}");
            // The client reads the beginning of the event, and then nothing more.
            while stream.body().len() < 100_000 {
                with_timeout("the event arrives", stream.read_more(64 << 10)).await.expect("the stream is open");
            }
            streams.push(stream);
        }
        streams
    };
    // Not the peak: emitting and reading an event takes several times its size for a moment.
    let first = add().await;
    let mut before = 0;
    wait_until("the events are sent", async || {
        before = allocated(&gateway).await;
        before < 4 * SIZE
    })
    .await;
    let second = add().await;
    let mut after = 0;
    wait_until("the streams that hold an event longest give it up", async || {
        after = allocated(&gateway).await;
        after <= before + COUNT * STREAM_TERM + MIB
    })
    .await;
    println!("memory: streams that stop within a large event: {before} bytes with {COUNT}, {after} with twice as many");
    drop((first, second));
}

/// The largest bodies are charged with what they take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_event_takes_its_part_of_the_body_memory() {
    const SIZE: usize = 7 * MIB;
    let redis = Redis::start(&[]).await;
    let gateway = Gateway::start(&format!(
        "store = \"{}\"\nallow-all = true\nredis-rest.tokens = [\"{TOKEN}\"]\nlog.filter = \"error\"",
        redis.url()
    ))
    .await;
    let data = "x".repeat(SIZE);
    let emit = serde_json::json!({"channel": "c", "event": "e", "data": data}).to_string();
    let add = serde_json::json!(["XADD", "c", "*", "data", data, "event", "e", "channel", "c"]).to_string();
    let publish = serde_json::json!([["PUBLISH", "c", data]]).to_string();
    for (to, path, body, factor) in [
        (gateway.data, "/redis", add, 6),
        (gateway.data, "/redis/pipeline", publish, 6),
        (gateway.control, "/v1/emit", emit, 12),
    ] {
        let idle = allocated(&gateway).await;
        let ((), peak) = peak_during(&gateway, async {
            let mut socket = send(to, path, body.len(), body.as_bytes()).await;
            assert_eq!(status(&mut socket).await, 200);
        })
        .await;
        println!(
            "memory: {SIZE} bytes to {path}: {idle} bytes idle, {peak} at most: {:.1} times",
            (peak - idle) as f64 / SIZE as f64
        );
        assert!(peak <= idle + factor * SIZE + MIB, "{path}: {} bytes, of at most {factor} times {SIZE}", peak - idle);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_that_wait_stay_within_their_bound() {
    const REQUESTS: usize = 250;
    let dir = tempfile::tempdir().expect("a directory");
    let policy = path(dir.path(), "policy.wasm");
    std::fs::write(&policy, guests::component("deny")).expect("the policy is written");
    let toml = format!(
        "listen = \"127.0.0.1:0\"\ncontrol.listen = \"127.0.0.1:0\"\nstore = \"memory:\"\npolicy.file = {policy:?}\n\
         drain.delay = \"0s\"\nlog.filter = \"debug\""
    );
    std::fs::write(dir.path().join("tidegate.toml"), toml).expect("the configuration is written");
    let (mut log, stderr) = std::io::pipe().expect("a pipe");
    let mut command = tidegate(&["serve"]);
    command.current_dir(dir.path()).stderr(stderr);
    let process = ChildProcess::start_without_log(command);
    let gateway = Gateway::wait_until_ready(process, dir).await;
    // A line has the names of the channels, 50 KB of them. The log is not read.
    let query: String = (0..100).map(|n| format!("channel={n}{}&", "x".repeat(500))).collect();
    let target = format!("/api/realtime?{query}");
    assert_term(&gateway, "log lines that wait", REQUESTS, 8 << 10, async |count| {
        // The first half fills the queue.
        let count = if allocated(&gateway).await < 8 * MIB { 2 * count } else { count };
        for _ in 0..count {
            Wire::get(gateway.data, &target, None, None).await.expect("an answer");
        }
    })
    .await;
    let dropped = metric(gateway.control, "tidegate_log_lines_total{result=\"dropped\"}").await;
    assert!(dropped > 0.0, "the queue was full");
    // The reader continues: the number of dropped lines and the end of the log arrive.
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut log, &mut text).map(|_| text)
    });
    gateway.process.signal("TERM").await;
    gateway.process.end().await;
    let text = reader.join().expect("no panic").expect("text");
    assert!(text.contains("lines of the log were dropped"), "{:.2000}", text);
    assert!(text.trim_end().ends_with("drained"), "the end is missing: {:?}", &text[text.len() - 300..]);
}
