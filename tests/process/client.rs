//! Event streams over plain sockets, cheap enough for hundreds of them.

use std::io::{BufRead, Error, Result};
use std::net::SocketAddr;

use serde_json::Value;
use tidegate::event::StreamId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::processes::with_timeout;

pub type Id = StreamId;

/// A response: its head, and the decoded body.
pub struct Wire {
    socket: TcpStream,
    pub status: u16,
    pub head: String,
    raw: Vec<u8>,
    text: Vec<u8>,
    /// Missing bytes of the current chunk, including its line break.
    missing: usize,
    pub ended: bool,
}

/// One block of an event stream, borrowed from the receive buffer.
#[derive(Default)]
pub struct Block<'a> {
    pub id: Option<&'a str>,
    pub data: &'a str,
}

impl Wire {
    /// Sends a request and reads the head of the answer. `buffer` is the size of the receive buffer.
    pub async fn get(to: SocketAddr, target: &str, last_event_id: Option<&str>, buffer: Option<u32>) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut socket = socket.connect(to).await?;
        let resume = last_event_id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET {target} HTTP/1.1\r\nhost: {to}\r\naccept: text/event-stream\r\n{resume}\r\n");
        socket.write_all(head.as_bytes()).await?;
        let mut raw = Vec::new();
        let end = loop {
            if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut raw).await? == 0 {
                return Err(Error::other("the connection ended within the head"));
            }
        };
        let head = String::from_utf8_lossy(&raw[..end]).to_lowercase();
        raw.drain(..end);
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
        let status = status.ok_or_else(|| Error::other("no status"))?;
        let mut wire = Self { socket, status, head, raw, text: Vec::new(), missing: 0, ended: false };
        if wire.head.contains("transfer-encoding: chunked") {
            wire.unchunk();
        } else {
            // Tidegate's own rejections have a length, and no caller reads further.
            wire.text = std::mem::take(&mut wire.raw);
            wire.ended = true;
        }
        Ok(wire)
    }

    /// Reads available bytes, up to a limit. False after the last chunk.
    pub async fn read_more(&mut self, limit: u64) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if (&mut self.socket).take(limit).read_buf(&mut self.raw).await? == 0 {
            return Err(Error::other("the connection ended before the last chunk"));
        }
        self.unchunk();
        Ok(true)
    }

    fn unchunk(&mut self) {
        let mut at = 0;
        loop {
            let rest = &self.raw[at..];
            if self.missing > 0 {
                let available = self.missing.min(rest.len());
                // The last two bytes are a line break, which is not part of the text.
                let text = available.min(self.missing.saturating_sub(2));
                self.text.extend_from_slice(&rest[..text]);
                at += available;
                self.missing -= available;
                if self.missing > 0 {
                    break;
                }
                continue;
            }
            let Some(size) = line(rest) else { break };
            at += size.len();
            let size = std::str::from_utf8(size).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
            let size = size.expect("a chunk begins with its size");
            self.ended |= size == 0;
            self.missing = size + 2;
        }
        self.raw.drain(..at);
    }

    /// Calls `each` for each complete block. An incomplete one is lost when the connection breaks, as in a browser.
    pub fn blocks(&mut self, mut each: impl FnMut(Block<'_>)) {
        let (mut at, mut block_start) = (0, 0);
        let mut block = Block::default();
        while let Some(line) = line(&self.text[at..]) {
            at += line.len();
            let text = std::str::from_utf8(line).expect("a stream is UTF-8").trim_end_matches('\n');
            if let Some(data) = text.strip_prefix("data: ") {
                assert!(block.data.is_empty(), "one line of data per block");
                block.data = data;
            } else if let Some(id) = text.strip_prefix("id: ") {
                assert!(block.id.replace(id).is_none(), "one id per block");
            } else if text.is_empty() {
                assert!(!block.data.is_empty(), "many clients hand on an empty message for a block without data");
                each(std::mem::take(&mut block));
                block_start = at;
            } else {
                assert!(text.starts_with("retry: "), "{text:?} is not a field");
            }
        }
        self.text.drain(..block_start);
    }

    pub fn body(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// The first line with its line break. The standard library finds it, as a loop here would be slow without optimisation.
fn line(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    let length = rest.skip_until(b'\n').ok()?;
    let line = &text[..length];
    line.ends_with(b"\n").then_some(line)
}

/// A stream that is read frame by frame.
pub struct Sse {
    wire: Wire,
    ready: std::collections::VecDeque<Value>,
    /// The `id:` of the last block that was read.
    pub last_event_id: String,
}

impl Sse {
    /// Opens a stream, which the policy must allow. `query` begins after the `?`.
    pub async fn open(to: SocketAddr, query: &str) -> Self {
        let target = format!("/api/realtime?{query}");
        let wire = with_timeout("the head of a stream", Wire::get(to, &target, None, None)).await.expect("an answer");
        assert_eq!(wire.status, 200, "{query} is allowed: {}", wire.body());
        Self { wire, ready: std::collections::VecDeque::new(), last_event_id: String::new() }
    }

    /// The next frame other than a ping; `None` after the end.
    pub async fn next(&mut self) -> Option<Value> {
        with_timeout("the next frame of a stream", async {
            loop {
                let (ready, id) = (&mut self.ready, &mut self.last_event_id);
                self.wire.blocks(|block| {
                    block.id.into_iter().for_each(|new| new.clone_into(id));
                    if !block.data.is_empty() && !block.data.starts_with(r#"{"type":"ping""#) {
                        ready.push_back(serde_json::from_str(block.data).expect("JSON"));
                    }
                });
                if let Some(frame) = self.ready.pop_front() {
                    return Some(frame);
                }
                if !self.wire.read_more(64 << 10).await.expect("the connection stays open") {
                    return None;
                }
            }
        })
        .await
    }

    pub async fn frame(&mut self) -> Value {
        self.next().await.expect("the stream goes on")
    }

    pub async fn connected(&mut self, channel: &str) {
        let frame = self.frame().await;
        assert_eq!((&frame["type"], &frame["channel"]), (&"connected".into(), &channel.into()), "{frame}");
    }

    /// Reads the next frame, which must be an event, and returns its data.
    pub async fn data(&mut self) -> Value {
        let mut frame = self.frame().await;
        assert!(frame["event"].is_string(), "{frame}");
        frame["data"].take()
    }
}

/// Percent-encodes a channel's name.
pub fn encoded(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}
