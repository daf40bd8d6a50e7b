//! Emitters, one for each kind of server.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::pipe;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::clients::{Clients, MARK};

/// The text of an event.
const TEXT: &str = "the quick brown fox jumps over the lazy dog, and the gateway tells of it";

pub enum Emitter {
    /// Like the npm package: an entry, then its notification.
    Redis { connection: MultiplexedConnection, channel: &'static str },
    /// A POST for each event, on one connection.
    Post { to: SocketAddr, connection: Option<TcpStream>, request: String },
    /// A command to the baseline with the number of events and the size of each.
    Baseline { connection: TcpStream, size: usize },
}

impl Emitter {
    /// `fields` are the lines of further headers, and `body` makes the body from the event's data.
    pub fn post(to: SocketAddr, target: &str, fields: &str, body: impl FnOnce(Value) -> String) -> Self {
        let body = body(data());
        let length = body.len();
        let request = format!("POST {target} HTTP/1.1\r\nHost: {to}\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
        Self::Post { to, connection: None, request }
    }

    /// Connects again: a server may have closed a connection that was idle between two rounds.
    pub async fn connect(&mut self) {
        if let Self::Post { to, connection, .. } = self {
            let socket = TcpStream::connect(*to).await.expect("a connection");
            socket.set_nodelay(true).expect("an option");
            *connection = Some(socket);
        }
    }

    /// Emits this many events at once.
    pub async fn emit(&mut self, clients: &Clients, events: usize) {
        (0..events).for_each(|_| clients.record_emission());
        match self {
            Self::Redis { connection, channel } => {
                let channels: Vec<&str> = (0..events).map(|_| *channel).collect();
                emit_to(connection, &channels).await;
            }
            Self::Post { connection, request, .. } => {
                let connection = connection.as_mut().expect("it is connected");
                connection.write_all(request.repeat(events).as_bytes()).await.expect("the server reads");
                // Each response contains `HTTP/1.1 2…` once.
                let (mut responses, mut text) = (0, Vec::new());
                while responses < events {
                    assert_ne!(connection.read_buf(&mut text).await.expect("a response"), 0, "the connection ended");
                    let text = String::from_utf8_lossy(&text);
                    responses = text.matches("HTTP/1.1 2").count();
                    assert!(!text.contains("HTTP/1.1 4") && !text.contains("HTTP/1.1 5"), "{text}");
                }
            }
            Self::Baseline { connection, size } => {
                let line = format!("write {events} {size}\n");
                connection.write_all(line.as_bytes()).await.expect("the baseline reads");
            }
        }
    }
}

/// Emits an event to each of these channels at once, like the npm package.
pub async fn emit_to(connection: &mut MultiplexedConnection, channels: &[&str]) {
    let ids = add_to(connection, channels).await;
    let mut notifications = pipe();
    for (id, channel) in ids.iter().zip(channels) {
        let notification = json!({ "data": data(), "event": "fox", "channel": channel, "id": id });
        notifications.cmd("PUBLISH").arg(*channel).arg(notification.to_string());
    }
    notifications.exec_async(connection).await.expect("Redis publishes notifications");
}

/// Adds an entry to each of these channels without a notification. Returns the ids.
pub async fn add_to(connection: &mut MultiplexedConnection, channels: &[&str]) -> Vec<String> {
    let (mut entries, text) = (pipe(), data().to_string());
    for channel in channels {
        entries.cmd("XADD").arg(*channel).arg("*").arg("data").arg(&text);
        entries.arg("event").arg("fox").arg("channel").arg(*channel);
    }
    entries.query_async(connection).await.expect("Redis adds entries")
}

fn data() -> Value {
    json!({ "text": TEXT, "mark": char::from(MARK) })
}
