//! Emitters, one kind for each server.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use redis::pipe;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::crowd::{Crowd, MARK};

/// The data of an event, apart from its mark.
const WORDS: &str = "the quick brown fox jumps over the lazy dog, and the gateway tells of it";

pub enum Emitter {
    /// Like the npm package: an entry, then a notification.
    Redis { connection: MultiplexedConnection, channel: &'static str },
    /// A POST for each event, on one connection.
    Post { connection: TcpStream, target: String },
    /// A command to the baseline, with number and size of the events.
    Baseline { connection: TcpStream, size: usize },
}

impl Emitter {
    pub async fn post(to: SocketAddr, target: &str) -> Self {
        let connection = TcpStream::connect(to).await.expect("a connection");
        connection.set_nodelay(true).expect("an option");
        Self::Post { connection, target: format!("POST {target} HTTP/1.1\r\nHost: {to}\r\n") }
    }

    /// Emits this many events at once.
    pub async fn emit(&mut self, crowd: &Crowd, events: usize) {
        (0..events).for_each(|_| crowd.emitting());
        match self {
            Self::Redis { connection, channel } => {
                let data = json!({ "text": WORDS, "mark": char::from(MARK) });
                let mut entries = pipe();
                for _ in 0..events {
                    let text = data.to_string();
                    entries.cmd("XADD").arg(*channel).arg("*").arg("data").arg(text);
                    entries.arg("event").arg("fox").arg("channel").arg(*channel);
                }
                let ids: Vec<String> = entries.query_async(connection).await.expect("Redis takes entries");
                let mut bells = pipe();
                for id in ids {
                    let bell = json!({ "data": data, "event": "fox", "channel": channel, "id": id });
                    bells.cmd("PUBLISH").arg(*channel).arg(bell.to_string());
                }
                bells.exec_async(connection).await.expect("Redis takes notifications");
            }
            Self::Post { connection, target } => {
                // The frame of a Tidegate client, without the fields for channel and event.
                let data = json!({ "data": { "text": WORDS, "mark": char::from(MARK) }, "event": "fox" }).to_string();
                let request = format!("{target}Content-Length: {}\r\n\r\n{data}", data.len()).repeat(events);
                connection.write_all(request.as_bytes()).await.expect("the server reads");
                // Each answer contains `HTTP/1.1 2…` once.
                let (mut answers, mut text) = (0, Vec::new());
                while answers < events {
                    assert_ne!(connection.read_buf(&mut text).await.expect("an answer"), 0, "the connection ended");
                    let text = String::from_utf8_lossy(&text);
                    answers = text.matches("HTTP/1.1 2").count();
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
