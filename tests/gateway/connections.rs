//! Connections that hold room without a use of it: silent, half-open, idle, or with responses that they do not read.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::{Sse, send_request};
use crate::guests::component;
use crate::harness::{Gateway, with_timeout};
use crate::raw_http2::{
    CONTINUATION, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, RawClient, WINDOW_UPDATE, frame, get, get_block,
    settings,
};

const STREAM: &str = "/api/realtime?channel=c";

/// The value of a metric; `series` has the labels.
async fn metric(gateway: &Gateway, series: &str) -> u64 {
    let text = send_request(gateway.control, "GET", "/metrics", &[], "").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().expect("a number")
}

async fn wait_for_metric(gateway: &Gateway, series: &str, holds: impl Fn(u64) -> bool) {
    with_timeout(series, async {
        while !holds(metric(gateway, series).await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn connect_from(source: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source, 0)).expect("a loopback address");
    with_timeout("a connection", socket.connect(to)).await.expect("the port is open")
}

/// Sends `first`, and then `rest` again and again, until the gateway closes the connection.
async fn until_closed(to: SocketAddr, first: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(to).await.expect("the port is open");
    let _ = socket.write_all(first).await;
    let (mut receive, mut send) = socket.split();
    let mut received = Vec::new();
    let repeat = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !rest.is_empty() && send.write_all(rest).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = receive.read_to_end(&mut received) => {}
        () = repeat => {}
    }
    received
}

#[tokio::test]
async fn connections_without_a_complete_request_end_in_every_protocol() {
    // A stream has to outlive them.
    let gateway = Gateway::start(
        "server.head-timeout = '400ms'\nserver.idle-timeout = '400ms'\nserver.http2-idle-timeout = '400ms'\n\
         server.response-timeout = '400ms'",
    )
    .await;
    let mut stream = gateway.open("channel=c").await;
    stream.connected("c").await;
    let begun = [PREFACE, &settings(65_535)].concat();
    let begun_part = [&*begun, b"\0\0"].concat();
    let unfinished = [&*begun, &frame(HEADERS, END_STREAM, 1, &get_block("/healthz"))].concat();
    let cases: &[(&str, &[u8], &[u8])] = &[
        ("nothing", b"", b""),
        ("P", b"P", b""),
        ("23 bytes of the preface", &PREFACE[..23], b""),
        ("the preface in single bytes", b"", b"P"),
        ("no settings", PREFACE, b""),
        ("settings only", &begun, b""),
        ("pings", &begun, &frame(PING, 0, 0, &[7; 8])),
        ("window updates", &begun, &frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("no end of the headers", &unfinished, b""),
        ("continuations without an end", &unfinished, &frame(CONTINUATION, 0, 1, b"")),
        ("a part of a frame", &begun_part, b""),
        ("a part of a head", b"GET / HTTP/1.1\r\nHo", b""),
        ("a head in single bytes", b"GET /", b"x"),
        ("headers without an end", b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        ("blank lines", b"\r\n", b"\r\n"),
    ];
    for port in [gateway.data, gateway.control] {
        let closed = cases.iter().map(|(name, first, rest)| async move {
            with_timeout(name, until_closed(port, first, rest)).await;
        });
        futures_util::future::join_all(closed).await;
    }
    for port in ["data", "control"] {
        let series = format!("tidegate_connections_ended_total{{port=\"{port}\",reason=\"head_timeout\"}}");
        // Too many empty continuations end a connection by themselves.
        assert!(metric(&gateway, &series).await >= cases.len() as u64 - 1, "{port}");
    }
    gateway.store.emit_own("c", "e", &json!(1)).await;
    assert_eq!(stream.event().await["data"], 1, "streams are not ended");
}

#[tokio::test]
async fn kept_connections_end_when_no_further_request_comes() {
    let gateway = Gateway::start(
        "server.head-timeout = '400ms'\nserver.idle-timeout = '300ms'\nserver.http2-idle-timeout = '300ms'",
    )
    .await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n";
    let http2 = [PREFACE, &settings(65_535), &get(1, "/healthz")].concat();
    let ping = frame(PING, 0, 0, &[7; 8]);
    let cases: &[(&str, &[u8], &[u8], &str)] = &[
        ("silent", request, b"", "idle_timeout"),
        ("the next head in single bytes", request, b"x", "head_timeout"),
        ("blank lines", request, b"\r\n", "head_timeout"),
        ("HTTP/2", &http2, b"", "idle_timeout"),
        ("HTTP/2 with pings", &http2, &ping, "idle_timeout"),
    ];
    for port in [gateway.data, gateway.control] {
        for (name, first, rest, reason) in cases {
            let kind = if port == gateway.data { "data" } else { "control" };
            let series = format!("tidegate_connections_ended_total{{port=\"{kind}\",reason=\"{reason}\"}}");
            let before = metric(&gateway, &series).await;
            let received = with_timeout(name, until_closed(port, first, rest)).await;
            assert!(!received.is_empty(), "{name} has its answer");
            wait_for_metric(&gateway, &series, |now| now > before).await;
        }
    }
    // An HTTP/2 connection with a stream stays.
    let mut client = RawClient::connect(gateway.data, 65_535).await;
    client.send(&[get(1, STREAM), get(3, "/healthz")].concat()).await;
    with_timeout("an idle connection ends", until_closed(gateway.data, &http2, b"")).await;
    gateway.store.emit_own("c", "e", &json!("late")).await;
    with_timeout("the stream goes on", async {
        loop {
            let frame = client.next().await.expect("the connection stays open");
            if String::from_utf8_lossy(&frame.payload).contains("late") {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn http2_responses_that_are_not_read_end_without_their_connection() {
    const EXCHANGES: u32 = 40;
    let policy = component("large-rejection");
    let gateway = Gateway::with_policy(&policy, "server.response-timeout = '300ms'").await;
    let memory = "tidegate_connection_memory_bytes{port=\"data\"}";
    // The last window is larger than a body, so that the window of the connection is used up.
    for window in [0, 1, 20_000, 1 << 20] {
        let mut client = RawClient::connect(gateway.data, window).await;
        let requests: Vec<u8> = (0..EXCHANGES).flat_map(|n| get(2 * n + 1, STREAM)).collect();
        client.send(&requests).await;
        if window == 0 {
            wait_for_metric(&gateway, memory, |bytes| bytes >= u64::from(EXCHANGES) << 16).await;
        }
        let (mut resets, mut ends) = (0, 0);
        with_timeout("all exchanges end", async {
            while resets + ends < EXCHANGES {
                let frame = client.next().await.expect("the connection stays open");
                resets += u32::from(frame.kind == RST_STREAM);
                ends += u32::from(frame.kind == crate::raw_http2::DATA && frame.flags & END_STREAM != 0);
            }
        })
        .await;
        assert!(ends <= 1, "window {window}: {ends} were read");
        wait_for_metric(&gateway, memory, |bytes| bytes == 0).await;
        // The connection serves further requests.
        client.send(&frame(WINDOW_UPDATE, 0, 0, &[0, 16, 0, 0])).await;
        let next = 2 * EXCHANGES + 1;
        client.send(&[get(next, "/healthz"), frame(WINDOW_UPDATE, 0, next, &[0, 0, 64, 0])].concat()).await;
        with_timeout("an answer", async {
            loop {
                let frame = client.next().await.expect("the connection stays open");
                if frame.stream == next && frame.flags & END_STREAM != 0 {
                    assert_ne!(frame.kind, RST_STREAM);
                    break;
                }
            }
        })
        .await;
    }
    assert_eq!(gateway.app.streams.count(), 0);
}

#[tokio::test]
async fn connection_whose_socket_takes_nothing_ends() {
    let policy = component("large-rejection");
    let gateway = Gateway::with_policy(&policy, "server.response-timeout = '200ms'").await;
    let connections = "tidegate_connections{port=\"data\"}";
    let small = |to| async move {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a buffer of this size");
        socket.connect(to).await.expect("the port is open")
    };
    // HTTP/1.1: far more than the buffers of the kernel take.
    let mut pipelined = small(gateway.data).await;
    let request = format!("GET {STREAM} HTTP/1.1\r\nhost: h\r\n\r\n");
    pipelined.write_all(request.repeat(400).as_bytes()).await.expect("sent");
    // HTTP/2, with windows for everything.
    let mut client = RawClient { socket: small(gateway.data).await };
    let windows = [PREFACE, &settings(1 << 24), &frame(WINDOW_UPDATE, 0, 0, &[0x40, 0, 0, 0])].concat();
    client.send(&windows).await;
    let requests: Vec<u8> = (0..90).flat_map(|n| get(2 * n + 1, STREAM)).collect();
    client.send(&requests).await;
    wait_for_metric(&gateway, connections, |open| open == 2).await;
    wait_for_metric(&gateway, connections, |open| open == 0).await;
    wait_for_metric(&gateway, "tidegate_connection_memory_bytes{port=\"data\"}", |bytes| bytes == 0).await;
}

#[tokio::test]
async fn memory_for_responses_is_bounded_and_shared() {
    let policy = component("large-rejection");
    let gateway = Gateway::with_policy(&policy, "server.connection-memory = '2MiB'").await;
    let memory = "tidegate_connection_memory_bytes{port=\"data\"}";
    let requests: Vec<u8> = (0..90).flat_map(|n| get(2 * n + 1, STREAM)).collect();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(gateway.data, 0).await;
        client.send(&requests).await;
        clients.push(client);
    }
    let refused = "tidegate_connections_ended_total{port=\"data\",reason=\"memory\"}";
    wait_for_metric(&gateway, refused, |count| count > 100).await;
    assert!(metric(&gateway, memory).await <= 2 << 20);
    // Another address is served from the memory of the one that holds most.
    for _ in 0..5 {
        let mut other = connect_from([127, 0, 0, 9].into(), gateway.data).await;
        let request = format!("GET {STREAM} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        other.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        with_timeout("an answer", other.read_to_end(&mut answer)).await.expect("it is read");
        assert!(answer.starts_with(b"HTTP/1.1 403") && answer.len() > 64 << 10, "{} bytes", answer.len());
    }
    assert!(metric(&gateway, memory).await <= 2 << 20);
}

#[tokio::test]
async fn large_heads_that_are_arriving_share_a_bounded_memory() {
    // Room for 20 heads of 96 KiB.
    let gateway = Gateway::start("server.connection-memory = '2MiB'").await;
    let memory = "tidegate_connection_memory_bytes{port=\"data\"}";
    // Over HTTP/2 a head can arrive while a response is not read.
    let mut client = RawClient::connect(gateway.data, 0).await;
    client.send(&get(1, "/nothing")).await;
    with_timeout("an answer", client.next()).await.expect("its head");
    let mut block = get_block(STREAM);
    // A literal header of 9,000 bytes.
    block.extend([0, 1, b'x', 0x7f, 0xa9, 0x45]);
    block.extend([b'y'; 9_000]);
    client.send(&frame(HEADERS, END_STREAM, 3, &block)).await;
    wait_for_metric(&gateway, memory, |bytes| bytes >= 96 << 10).await;
    let mut held = Vec::new();
    let begin = format!("GET {STREAM} HTTP/1.1\r\ncookie: {}", "x".repeat(9 << 10));
    for _ in 0..60 {
        let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
        // A connection that gets no memory is closed.
        let _ = socket.write_all(begin.as_bytes()).await;
        held.push(socket);
    }
    let refused = "tidegate_connections_ended_total{port=\"data\",reason=\"memory\"}";
    wait_for_metric(&gateway, refused, |count| count >= 39).await;
    let used = metric(&gateway, memory).await;
    assert!((1 << 20..=2 << 20).contains(&used), "{used}");
    // Smaller heads do not need it, and another address takes its share.
    Sse::open(gateway.data, STREAM, &[]).await.connected("c").await;
    with_timeout("another address sends a large head", async {
        loop {
            let mut other = connect_from([127, 0, 0, 9].into(), gateway.data).await;
            let _ = other.write_all(format!("{begin}\r\nhost: h\r\n\r\n").as_bytes()).await;
            let mut answer = [0; 12];
            if other.read_exact(&mut answer).await.is_ok() {
                assert_eq!(&answer, b"HTTP/1.1 200");
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn full_port_replaces_connections_without_a_request() {
    let gateway = Gateway::start("server.max-connections = 10").await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = gateway.open("channel=c").await;
        stream.connected("c").await;
        streams.push(stream);
    }
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(gateway.data).await.expect("the port is open"));
    }
    assert_eq!(send_request(gateway.data, "GET", "/healthz", &[], "").await.status, 200);
    assert!(metric(&gateway, "tidegate_connections{port=\"data\"}").await <= 10);
    // The oldest silent ones made room: 20 of them and one for the last request came to 7 rooms.
    let replaced = metric(&gateway, "tidegate_connections_ended_total{port=\"data\",reason=\"replaced\"}").await;
    assert_eq!(replaced, 14);
    for socket in &mut silent[..14] {
        with_timeout("it is closed", socket.read(&mut [0])).await.expect_err_or_end();
    }
    gateway.store.emit_own("c", "e", &json!(1)).await;
    for stream in &mut streams {
        assert_eq!(stream.event().await["data"], 1, "streams are not replaced");
    }
    // Where all have a request in progress, the next one is closed at once.
    while streams.len() < 10 {
        streams.push(gateway.open("channel=c").await);
    }
    let mut refused = TcpStream::connect(gateway.data).await.expect("the kernel accepts");
    with_timeout("it is closed", refused.read(&mut [0])).await.expect_err_or_end();
    assert_eq!(metric(&gateway, "tidegate_connections_refused_total{port=\"data\",reason=\"limit\"}").await, 1);
    assert_eq!(send_request(gateway.control, "GET", "/healthz", &[], "").await.status, 200);
}

/// The end of a connection: no more bytes, or a reset.
trait Ended {
    fn expect_err_or_end(self);
}

impl Ended for std::io::Result<usize> {
    fn expect_err_or_end(self) {
        assert!(matches!(self, Ok(0) | Err(_)), "{self:?}");
    }
}

#[tokio::test]
async fn address_with_most_connections_is_refused_first() {
    let shared = "tidegate_connections_refused_total{port=\"data\",reason=\"share\"}";
    let gateway = Gateway::start("server.max-connections = 20").await;
    let [large, other] = [[127, 0, 0, 2], [127, 0, 0, 3]].map(IpAddr::from);
    let mut held = vec![connect_from(other, gateway.data).await];
    for _ in 0..30 {
        held.push(connect_from(large, gateway.data).await);
    }
    wait_for_metric(&gateway, shared, |refused| refused == 15).await;
    // Another address has its share.
    for _ in 0..3 {
        let mut socket = connect_from(other, gateway.data).await;
        socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
        let mut answer = [0; 12];
        with_timeout("an answer", socket.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        held.push(socket);
    }
    assert_eq!(metric(&gateway, shared).await, 15);

    // A trusted proxy has no share, and its connections are not replaced.
    let gateway = Gateway::start("server.max-connections = 20\nserver.trusted-proxies = ['127.0.0.2/32']").await;
    let mut held = vec![connect_from(other, gateway.data).await];
    for _ in 0..19 {
        held.push(connect_from(large, gateway.data).await);
    }
    wait_for_metric(&gateway, "tidegate_connections{port=\"data\"}", |open| open == 20).await;
    assert_eq!(metric(&gateway, shared).await, 0);
    // The next one takes the room of the other address.
    let mut last = connect_from(large, gateway.data).await;
    last.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
    with_timeout("an answer", last.read_exact(&mut [0; 12])).await.expect("an answer");
    with_timeout("it is replaced", held[0].read(&mut [0])).await.expect_err_or_end();
}
