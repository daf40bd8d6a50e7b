//! Several streams on one HTTP/2 connection, as a proxy opens them for many clients.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::send_request;
use crate::harness::{Gateway, wait_until, with_timeout};

type Client = SendRequest<Empty<Bytes>>;

/// A client with this flow-control window in bytes for each stream.
async fn client(gateway: &Gateway, window: u32) -> Client {
    let socket = TcpStream::connect(gateway.data).await.expect("the port is open");
    let handshake =
        Builder::new(TokioExecutor::new()).initial_stream_window_size(window).handshake(TokioIo::new(socket));
    let (client, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    client
}

async fn open(client: &mut Client, channel: &str) -> Incoming {
    let target = format!("http://h/api/realtime?channel={channel}");
    let request = http::Request::get(target).body(Empty::new()).expect("a request");
    let response = with_timeout("an answer", client.send_request(request)).await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// Reads until the text contains this.
async fn read_until(body: &mut Incoming, expected: &str) {
    let mut text = String::new();
    with_timeout(expected, async {
        while !text.contains(expected) {
            let frame = body.frame().await.expect("the stream goes on").expect("no error");
            text.push_str(&String::from_utf8_lossy(frame.data_ref().expect("bytes")));
        }
    })
    .await;
}

#[tokio::test]
async fn stalled_stream_is_reset_without_other_streams_of_its_connection() {
    let gateway = Gateway::start("").await;
    let mut client = client(&gateway, 1000).await;
    let mut other = open(&mut client, "d").await;
    read_until(&mut other, "connected").await;
    for round in 0..3 {
        let mut revoked = open(&mut client, "c").await;
        read_until(&mut revoked, "connected").await;
        // More than the stream's window holds, so that the client does not receive the reconnect frame.
        gateway.store.emit_own("c", "e", &json!("x".repeat(5000))).await;
        let revoke = |headers| send_request(gateway.control, "POST", "/v1/revoke", headers, r#"{"channel":"c"}"#);
        assert_eq!(revoke(&[("content-type", "application/json")]).await.json()["streams"], 1);
        wait_until("the stream has ended", || gateway.app.streams.count() == 1).await;
        assert!(with_timeout("the stream ends", revoked.collect()).await.is_err(), "the stream is reset");
        gateway.store.emit_own("d", "e", &json!(format!("round {round}"))).await;
        read_until(&mut other, &format!("round {round}")).await;
    }
}
