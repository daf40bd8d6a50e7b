//! The terms of docs/configuration.md#memory for data between the store and clients: messages, notifications, and the embedded store.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::Sse;
use crate::control_port::{metric, send_request};
use crate::guests;
use crate::memory::{allocated, assert_term};
use crate::memory_terms::{MIB, TOKEN, send, with_policy};
use crate::processes::{Gateway, wait_until, with_timeout};
use crate::redis_server::Redis;

/// What sockets, requests and log lines take meanwhile.
const NOISE: usize = MIB;

/// Has the gateway execute a command this often, in one request.
async fn pipeline(gateway: &Gateway, command: &str, times: usize) {
    let body = format!("[{}]", vec![command; times].join(","));
    let headers = format!("authorization: Bearer {TOKEN}\r\n");
    let (status, answer) = send_request(gateway.data, "POST", "/redis/pipeline", &headers, body.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_slow_subscribers_stay_within_their_bound() {
    const SUBSCRIBERS: usize = 6;
    const MESSAGE: usize = 64 << 10;
    // One subscriber stays below its own limit of 8 MiB, if the socket takes none.
    const MESSAGES: usize = 120;
    const BOUND: usize = 32 * MIB;
    let toml = format!(
        "store = \"memory:\"\nallow-all = true\nredis-rest.tokens = [\"{TOKEN}\"]\nserver.body-memory = \"100MiB\"\nlog.filter = \"error\""
    );
    let gateway = Gateway::start(&toml).await;
    let idle = allocated(&gateway).await;
    let subscribe = async |name: &str| {
        let mut socket = send(gateway.data, &format!("/redis/subscribe/{name}"), 0, b"").await;
        let mut received = Vec::new();
        while !String::from_utf8_lossy(&received).contains("data: subscribe,") {
            assert_ne!(with_timeout("a frame", socket.read_buf(&mut received)).await.expect("a response"), 0);
        }
        socket
    };
    let mut held: Vec<TcpStream> = Vec::new();
    for round in 1..=3 {
        for n in 0..SUBSCRIBERS {
            // On channels of their own: subscribers of one channel share its messages.
            let channel = format!("c{round}-{n}");
            held.push(subscribe(&channel).await);
            let publish = format!(r#"["PUBLISH","{channel}","{}"]"#, "x".repeat(MESSAGE));
            for _ in 0..MESSAGES / 12 {
                pipeline(&gateway, &publish, 12).await;
            }
        }
        let grown = allocated(&gateway).await.saturating_sub(idle);
        println!("memory: {} slow subscribers: {grown} bytes more, bound {BOUND}", round * SUBSCRIBERS);
        assert!(grown <= BOUND + held.len() * 4 * MESSAGE + NOISE, "{grown} bytes for {} subscribers", held.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_wait_for_a_read_stay_within_their_bound() {
    // Small ones cost more than their bytes.
    const COUNT: u64 = 30_000;
    const BOUND: usize = 8 * MIB;
    let redis = Redis::start(&[]).await;
    let toml = format!("store = \"{}\"\nallow-all = true\nlog.filter = \"off\"", redis.url());
    let gateway = Gateway::start(&toml).await;
    let mut stream = Sse::open(gateway.data, "channel=c").await;
    stream.connected("c").await;
    let mut connection = redis.connect().await;
    // A key that is not a stream of commands stops all reads.
    let mut stop = redis::pipe();
    let commands = "tidegate:{default}:commands";
    stop.cmd("DEL").arg(commands).ignore().cmd("SET").arg(commands).arg("x").ignore();
    stop.cmd("PUBLISH").arg(commands).arg("x").ignore();
    stop.exec_async(&mut connection).await.expect("the commands are gone");
    wait_until("the node cannot read commands", async || {
        send_request(gateway.control, "GET", "/readyz", "", b"").await.0 == 503
    })
    .await;
    let idle = allocated(&gateway).await;
    let mut after = Vec::new();
    for round in 0..2 {
        for first in (0..COUNT).step_by(1000) {
            let mut publish = redis::pipe();
            for n in first..first + 1000 {
                let id = 99_999_999_999_999 + round * COUNT + n;
                let payload = format!(r#"{{"data":"{}","event":"e","channel":"c","id":"{id}-0"}}"#, "x".repeat(100));
                publish.cmd("PUBLISH").arg("c").arg(payload).ignore();
            }
            publish.exec_async(&mut connection).await.expect("published");
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        after.push(allocated(&gateway).await.saturating_sub(idle));
    }
    println!("memory: {COUNT} and {} notifications: {after:?} bytes more, bound {BOUND}", 2 * COUNT);
    assert!(after[0] > 2 * MIB, "they wait: {after:?}");
    assert!(after.iter().all(|grown| *grown <= BOUND + NOISE), "{after:?}");
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outbound_requests_stay_within_their_buffers() {
    const COUNT: usize = 32;
    // Both buffers of the connection; and the client's connection, its request and the host's part of the decision.
    const TERM: usize = (2 * 64 + 128) << 10;
    // Responses that begin and never end.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 900000\r\n\r\n";
                let _ = socket.write_all(&[head.as_bytes(), &vec![b'x'; 800_000]].concat()).await;
                std::future::pending::<()>().await;
            });
        }
    });
    let toml = format!(
        "policy.timeout = \"30s\"\npolicy.egress.timeout = \"30s\"\nlog.filter = \"error\"\n\
         policy.egress.hosts = [{{ url = \"http://{address}\", allow-private = true }}]"
    );
    let (gateway, _dir) = with_policy(&guests::component("fetch"), &toml).await;
    let request = format!("GET /api/realtime?channel=c HTTP/1.1\r\nhost: h\r\nx-to: {address}\r\nx-times: 1\r\n\r\n");
    let mut requested = 0.0;
    assert_term(&gateway, "outbound requests", COUNT, TERM, async |count| {
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = TcpStream::connect(gateway.data).await.expect("the port is open");
            client.write_all(request.as_bytes()).await.expect("sent");
            clients.push(client);
        }
        requested += count as f64;
        wait_until("the requests are sent", async || {
            metric(gateway.control, "tidegate_decisions_in_progress").await >= requested
        })
        .await;
        clients
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_store_stays_within_its_size() {
    const SIZE: usize = 8 * MIB;
    let toml = format!(
        "store = \"memory:\"\nallow-all = true\nmemory-store.max-size = \"8MiB\"\nredis-rest.tokens = [\"{TOKEN}\"]\nlog.filter = \"error\""
    );
    let gateway = Gateway::start(&toml).await;
    let idle = allocated(&gateway).await;
    let mut after = Vec::new();
    for (bytes, events) in [(100, 30_000), (100, 30_000), (64 << 10, 200)] {
        let data = "x".repeat(bytes);
        let batch = (MIB / (bytes + 200)).min(1000);
        for first in (0..events).step_by(batch) {
            let add = format!(r#"["XADD","c{}","*","data","{data}","event","e","channel","c"]"#, first % 7);
            pipeline(&gateway, &add, batch.min(events - first)).await;
        }
        after.push(allocated(&gateway).await.saturating_sub(idle));
    }
    println!("memory: an embedded store of {SIZE} bytes takes {after:?}");
    assert!(after[0] > SIZE / 4, "events are kept: {after:?}");
    assert!(after.iter().all(|grown| *grown <= SIZE + NOISE), "{after:?}");
}
