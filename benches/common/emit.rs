//! Emitters, one for each kind of server.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::pipe;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::clients::{Clients, MARK};

/// The text of an event.
const TEXT: &str = "the quick brown fox jumps over the lazy dog, and the gateway tells of it";

pub enum Emitter {
    /// Like the npm package: an entry, then its notification.
    Redis { connection: MultiplexedConnection, channel: &'static str },
    /// A POST for each event, on one connection.
    Post { connection: TcpStream, target: String },
    /// A command to the baseline with the number of events and the size of each.
    Baseline { connection: TcpStream, size: usize },
}

impl Emitter {
    pub async fn post(to: SocketAddr, target: &str) -> Self {
        let connection = TcpStream::connect(to).await.expect("a connection");
        connection.set_nodelay(true).expect("an option");
        Self::Post { connection, target: format!("POST {target} HTTP/1.1\r\nHost: {to}\r\n") }
    }

    /// Emits this many events at once.
    pub async fn emit(&mut self, clients: &Clients, events: usize) {
        (0..events).for_each(|_| clients.record_emission());
        match self {
            Self::Redis { connection, channel } => {
                let data = json!({ "text": TEXT, "mark": char::from(MARK) });
                let mut entries = pipe();
                for _ in 0..events {
                    let text = data.to_string();
                    entries.cmd("XADD").arg(*channel).arg("*").arg("data").arg(text);
                    entries.arg("event").arg("fox").arg("channel").arg(*channel);
                }
                let ids: Vec<String> = entries.query_async(connection).await.expect("Redis adds entries");
                let mut notifications = pipe();
                for id in ids {
                    let notification = json!({ "data": data, "event": "fox", "channel": channel, "id": id });
                    notifications.cmd("PUBLISH").arg(*channel).arg(notification.to_string());
                }
                notifications.exec_async(connection).await.expect("Redis publishes notifications");
            }
            Self::Post { connection, target } => {
                // The frame of a client of Tidegate, without the channel and the id.
                let data = json!({ "data": { "text": TEXT, "mark": char::from(MARK) }, "event": "fox" }).to_string();
                let request = format!("{target}Content-Length: {}\r\n\r\n{data}", data.len()).repeat(events);
                connection.write_all(request.as_bytes()).await.expect("the server reads");
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
