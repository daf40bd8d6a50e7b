//! Streams over HTTP/1, whose sockets the gateway takes from its HTTP library once the head is written: what the wire shows.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::send_request;
use crate::harness::{Gateway, wait_until, with_timeout};
use crate::raw_http2::{PREFACE, get, settings};

const STREAM: &str = "GET /api/realtime?channel=c HTTP/1.1\r\nhost: h\r\n\r\n";
const REVOKE: &str = r#"{"channel":"c"}"#;

/// A connection whose bytes are read as they are.
struct Raw {
    socket: TcpStream,
    text: String,
}

impl Raw {
    async fn send(gateway: &Gateway, bytes: &str) -> Self {
        let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
        socket.write_all(bytes.as_bytes()).await.expect("sent");
        Self { socket, text: String::new() }
    }

    /// Reads until this text has arrived.
    async fn until(&mut self, text: &str) {
        with_timeout(text, async {
            while !self.text.contains(text) {
                assert_ne!(self.read().await, 0, "{text} comes before the end: {}", self.text);
            }
        })
        .await;
    }

    async fn read(&mut self) -> usize {
        let mut bytes = [0; 4096];
        let count = self.socket.read(&mut bytes).await.expect("no reset");
        self.text.push_str(std::str::from_utf8(&bytes[..count]).expect("ASCII"));
        count
    }

    /// Reads until the gateway ends the connection.
    async fn into_text(mut self) -> String {
        with_timeout("the end", async { while self.read().await > 0 {} }).await;
        self.text
    }
}

async fn revoke(gateway: &Gateway) {
    let reply = send_request(gateway.control, "POST", "/v1/revoke", &[("content-type", "application/json")], REVOKE);
    assert_eq!(reply.await.status, 200);
}

#[tokio::test]
async fn stream_of_http_1_0_has_no_chunks_and_ends_with_its_connection() {
    let gateway = Gateway::start("").await;
    // As nginx requests it by default.
    let request = "GET /api/realtime?channel=c HTTP/1.0\r\nhost: h\r\nconnection: close\r\n\r\n";
    let mut client = Raw::send(&gateway, request).await;
    client.until("connected").await;
    for n in 0..3 {
        gateway.store.emit_stock("c", "e", &json!(n)).await;
        client.until(&format!("\"data\":{n},")).await;
    }
    revoke(&gateway).await;
    let text = client.into_text().await;
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && !head.contains("transfer-encoding"), "{head}");
    assert!(body.starts_with("retry: ") && !body.contains('\r') && body.ends_with("}\n\n"), "{body}");
    assert!(body.contains(r#""type":"reconnect""#), "{body}");
}

#[tokio::test]
async fn requests_after_that_of_a_stream_are_not_answered() {
    let gateway = Gateway::start("").await;
    let mut client = Raw::send(&gateway, &format!("{STREAM}GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")).await;
    client.until("connected").await;
    client.socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await.expect("sent");
    gateway.store.emit_stock("c", "e", &json!("event")).await;
    client.until("event").await;
    revoke(&gateway).await;
    let text = client.into_text().await;
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    assert!(text.contains("connection: close\r\n") && text.contains("reconnect"), "{text}");
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn client_that_sends_a_lot_after_its_request_is_disconnected() {
    let gateway = Gateway::start("").await;
    let mut client = Raw::send(&gateway, STREAM).await;
    client.until("connected").await;
    let _ = client.socket.write_all(&[b'x'; 17 << 10]).await;
    wait_until("the stream is closed", || gateway.app.streams.count() == 0).await;
}

#[tokio::test]
async fn client_that_closes_its_half_ends_its_stream() {
    let gateway = Gateway::start("").await;
    let mut client = Raw::send(&gateway, STREAM).await;
    client.until("connected").await;
    client.socket.shutdown().await.expect("an open connection");
    let text = client.into_text().await;
    assert!(!text.contains("reconnect"), "{text}");
    wait_until("the stream is closed", || gateway.app.streams.count() == 0).await;
}

#[tokio::test]
async fn proxy_that_reuses_connections_learns_that_a_stream_closes_its() {
    let gateway = Gateway::start("").await;
    let mut client = Raw::send(&gateway, "GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n").await;
    client.until(r#"{"status":"ok"}"#).await;
    assert!(!client.text.contains("connection: close"), "{}", client.text);
    client.socket.write_all(STREAM.as_bytes()).await.expect("sent");
    client.until("connected").await;
    revoke(&gateway).await;
    let text = client.into_text().await;
    let (_, answer) = text.split_once(r#"{"status":"ok"}"#).expect("the first answer");
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn drain_ends_streams_with_a_last_frame_and_without_a_reset() {
    let gateway = Gateway::start("drain.duration = '1ms'").await;
    let mut client = Raw::send(&gateway, STREAM).await;
    client.until("connected").await;
    // Bytes that are not read would make the close a reset.
    client.socket.write_all(b"more").await.expect("sent");
    let served = gateway.stop();
    let text = client.into_text().await;
    assert!(text.contains(r#""type":"reconnect""#) && text.ends_with("\r\n0\r\n\r\n"), "{text}");
    with_timeout("the server ends", served).await.expect("no panic");
}

#[tokio::test]
async fn revoked_client_that_does_not_read_is_cut_and_counted() {
    let gateway = Gateway::start("").await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("an option");
    let mut socket = socket.connect(gateway.data).await.expect("the port is open");
    socket.write_all(STREAM.as_bytes()).await.expect("sent");
    wait_until("the stream is open", || gateway.app.streams.count() == 1).await;
    let sent = || gateway.app.metrics.stream_sent_bytes.get();
    let mut before = 0;
    // Until the socket takes no more: then the stream is not asked for more either.
    loop {
        for _ in 0..200 {
            gateway.store.emit_own("c", "e", &json!("x".repeat(8_000))).await;
            tokio::task::yield_now().await;
        }
        if std::mem::replace(&mut before, sent()) == sent() {
            break;
        }
    }
    revoke(&gateway).await;
    wait_until("the connection is cut", || gateway.app.metrics.slow_client_disconnects.get() == 1).await;
    assert!(gateway.app.streams.count() == 0);
    drop(socket);
}

#[tokio::test]
async fn first_bytes_may_come_one_by_one() {
    let gateway = Gateway::start("").await;
    let mut client = Raw::send(&gateway, "").await;
    // Begins like HTTP/2.
    for byte in b"PRI * HTTP/2.0\r\n\r\nX" {
        client.socket.write_all(&[*byte]).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let text = client.into_text().await;
    assert!(!text.contains("200 OK"), "{text}");
    let mut client = Raw::send(&gateway, "").await;
    for byte in b"PROPFIND /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n" {
        client.socket.write_all(&[*byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    assert!(client.into_text().await.starts_with("HTTP/1.1 "));
    let mut socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    for byte in [PREFACE, &settings(65_535), &get(1, "/healthz")].concat() {
        socket.write_all(&[byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut received = Vec::new();
    with_timeout("an answer over HTTP/2", async {
        while !received.windows(15).any(|part| part == br#"{"status":"ok"}"#) {
            assert_ne!(socket.read_buf(&mut received).await.expect("no reset"), 0);
        }
    })
    .await;
}
