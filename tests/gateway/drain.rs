//! Drain of a node: what clients, load balancers and operators receive, and when.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Sse, send_request};
use crate::harness::{Gateway, wait_until, with_timeout};

const STREAM: &str = "/api/realtime?channel=c";

/// Waits until the port accepts no more connections: a connect is refused, or pending.
async fn wait_until_closed(to: std::net::SocketAddr) {
    let connects = async || tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(to)).await;
    with_timeout("the port closes", async { while let Ok(Ok(_)) = connects().await {} }).await;
}

#[tokio::test]
async fn node_reports_not_ready_and_keeps_serving_before_the_listener_closes() {
    let gateway = Gateway::start("drain.delay = '1500ms'\ndrain.duration = '1ms'").await;
    let (data, control, store) = (gateway.data, gateway.control, gateway.store.clone());
    let mut before = gateway.open("channel=c").await;
    before.connected("c").await;
    assert_eq!(send_request(data, "GET", "/healthz", &[], "").await.status, 200);
    let served = gateway.stop();
    // The node is not ready as soon as its task runs.
    with_timeout("the node reports not ready", async {
        while send_request(control, "GET", "/readyz", &[], "").await.status == 200 {}
    })
    .await;
    let ready = send_request(control, "GET", "/readyz", &[], "").await;
    let expect = json!({"ready": false, "store": "ok", "policy": "ok", "draining": true});
    assert_eq!((ready.status, ready.json()), (503, expect));
    let health = send_request(data, "GET", "/healthz", &[], "").await;
    assert_eq!(
        (health.status, health.json()),
        (503, json!({"status": "draining"})),
        "load balancers check the data port"
    );
    assert_eq!(send_request(control, "GET", "/healthz", &[], "").await.status, 200, "the process is alive");

    let mut late = Sse::open(data, STREAM, &[]).await;
    late.connected("c").await;
    assert_eq!(late.header("connection"), "close", "the client must not reuse the connection");
    let id = store.emit_stock("c", "e", &json!(1)).await;
    for sse in [&mut before, &mut late] {
        assert_eq!(sse.ids("c", 1).await, [id]);
        assert_eq!(sse.frame().await["type"], "reconnect");
        assert!(sse.next().await.is_none());
    }
    wait_until_closed(data).await;
    with_timeout("the server ends", served).await.expect("no panic");
    assert!(TcpStream::connect(control).await.is_err(), "the control port is closed");
}

#[tokio::test]
async fn control_port_answers_until_the_drain_ends() {
    let gateway = Gateway::start("drain.duration = '1ms'").await;
    let (data, control) = (gateway.data, gateway.control);
    // A client with an open stream that it does not close.
    let open_stream = Sse::open_with(data, STREAM, &[], Some(4096)).await;
    for _ in 0..2_000 {
        gateway.store.emit_own("c", "e", &json!("x".repeat(4096))).await;
        tokio::task::yield_now().await;
    }
    let served = gateway.stop();
    wait_until_closed(data).await;
    assert_eq!(send_request(control, "GET", "/readyz", &[], "").await.status, 503);
    with_timeout("the server ends", served).await.expect("no panic");
    drop(open_stream);
}

#[tokio::test]
async fn connection_without_a_complete_request_is_answered_during_the_drain() {
    let gateway = Gateway::start("drain.duration = '1ms'").await;
    let data = gateway.data;
    // One connection has sent half of its request head, the other one nothing.
    let mut half = TcpStream::connect(data).await.expect("the port is open");
    half.write_all(b"GET /api/realtime?channel=c&last_ack_c=17 HT").await.expect("sent");
    let mut silent = TcpStream::connect(data).await.expect("the port is open");
    let served = gateway.stop();
    wait_until_closed(data).await;
    half.write_all(b"TP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
    silent.write_all(b"GET /api/realtime?channel=c&last_ack_c=17 HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
    for mut socket in [half, silent] {
        let mut text = String::new();
        with_timeout("an answer", socket.read_to_string(&mut text)).await.expect("the connection ends cleanly");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "an EventSource does not reconnect after a 503: {text}");
        assert!(text.contains("connection: close\r\n"), "{text}");
        assert!(text.contains(r#""type":"reconnect""#), "{text}");
        assert!(text.ends_with("0\r\n\r\n"), "{text}");
    }
    with_timeout("the server ends", served).await.expect("no panic");
}

#[tokio::test]
async fn idle_keep_alive_connection_is_closed_by_the_drain() {
    let gateway = Gateway::start("drain.duration = '1ms'").await;
    let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
    let mut text = vec![0; 4096];
    let read = with_timeout("an answer", socket.read(&mut text)).await.expect("it is read");
    assert!(text[..read].starts_with(b"HTTP/1.1 200 OK\r\n"));
    let served = gateway.stop();
    assert_eq!(with_timeout("the connection ends", socket.read(&mut text)).await.expect("no reset"), 0);
    with_timeout("the server ends", served).await.expect("no panic");
}

#[tokio::test]
async fn http2_connection_completes_its_streams_and_takes_no_new_requests() {
    let gateway = Gateway::start("drain.duration = '1ms'").await;
    let socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let request = || {
        let request = http::Request::get(format!("http://h{STREAM}")).body(Empty::<Bytes>::new());
        request.expect("a request")
    };
    let response = with_timeout("a stream", client.send_request(request())).await.expect("an answer");
    assert_eq!(response.status(), 200);
    wait_until("the stream is registered", || gateway.app.streams.count() == 1).await;
    let served = gateway.stop();
    let body =
        with_timeout("the stream ends", response.into_body().collect()).await.expect("the connection ends cleanly");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    assert!(text.contains(r#""type":"reconnect""#), "{text}");
    with_timeout("the connection ends", connection).await.expect("no panic").expect("no error");
    assert!(client.send_request(request()).await.is_err(), "no further request on this connection");
    with_timeout("the server ends", served).await.expect("no panic");
}

#[tokio::test]
async fn pending_decision_completes_and_reconnect_keeps_the_requested_position() {
    let gateway = Gateway::with_lookups("drain.duration = '1ms'").await;
    let (data, app, store) = (gateway.data, gateway.app.clone(), gateway.store.clone());
    let held = store.hold_lookups().await;
    let opening = tokio::spawn(async move {
        let mut sse = Sse::open(data, "/api/realtime?channel=c&last_ack_c=1700000000000", &[]).await;
        (sse.frame().await, sse.next().await)
    });
    wait_until("the decision has begun", || app.authorizer.evaluating() == 1).await;
    let served = gateway.stop();
    wait_until_closed(data).await;
    drop(held);
    let (first, rest) = with_timeout("the stream", opening).await.expect("no panic");
    // With a later time the client would lose the events since its page was loaded.
    assert_eq!(first, json!({"type": "reconnect", "timestamp": 1_700_000_000_000_u64}));
    assert!(rest.is_none());
    with_timeout("the server ends", served).await.expect("no panic");
}

#[tokio::test]
async fn redis_rest_subscription_does_not_delay_the_drain() {
    let gateway = Gateway::start("drain.duration = '1ms'\nredis-rest.tokens = ['t']").await;
    let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    let request = "POST /redis/subscribe/c HTTP/1.1\r\nhost: h\r\nauthorization: Bearer t\r\ncontent-length: 0\r\n\r\n";
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut text = Vec::new();
    with_timeout("the subscription is confirmed", async {
        while !String::from_utf8_lossy(&text).contains("subscribe,c,1") {
            assert!(socket.read_buf(&mut text).await.expect("it is read") > 0);
        }
    })
    .await;
    let served = gateway.stop();
    with_timeout("the connection ends", socket.read_to_end(&mut text)).await.expect("the connection ends cleanly");
    assert!(text.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&text));
    with_timeout("the server ends", served).await.expect("no panic");
}
