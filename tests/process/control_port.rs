//! Requests to a control port, over a plain socket.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::processes::{wait_until, with_timeout};

pub const WASM: &str = "content-type: application/wasm\r\n";
pub const JSON: &str = "content-type: application/json\r\n";

/// Sends a request; returns the status and the JSON of the answer, or its text as a string. `headers` are whole lines.
pub async fn send_request(to: SocketAddr, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, Value) {
    let (status, body) = send_for_text(to, method, target, headers, body).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|_| body.into()))
}

/// The value of a metric without labels.
pub async fn metric(control: SocketAddr, name: &str) -> f64 {
    let (status, text) = get_text(control, "/metrics").await;
    assert_eq!(status, 200, "{text}");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no metric {name}: {text}"))
}

/// The status and the text of the answer to a `GET`.
async fn get_text(to: SocketAddr, target: &str) -> (u16, String) {
    send_for_text(to, "GET", target, "", b"").await
}

async fn send_for_text(to: SocketAddr, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    let answer = async {
        let mut socket = TcpStream::connect(to).await.expect("the port is open");
        socket.write_all(head.as_bytes()).await.expect("the head is sent");
        socket.write_all(body).await.expect("the body is sent");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("the answer is read");
        String::from_utf8(answer).expect("it is text")
    };
    let answer = with_timeout("an answer of the control port", answer).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("the response head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// The answer of `GET /v1/policy`.
pub async fn policy(control: SocketAddr) -> Value {
    let (status, reply) = send_request(control, "GET", "/v1/policy", "", b"").await;
    assert_eq!(status, 200, "{reply}");
    reply
}

/// Waits until the answer of `GET /v1/policy` fulfils a condition, and returns the answer.
pub async fn wait_for_policy(control: SocketAddr, condition: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut reply = Value::Null;
    wait_until(condition, async || {
        reply = policy(control).await;
        holds(&reply)
    })
    .await;
    reply
}
