//! An HTTP/1.1 client, and an `EventSource` that exposes what a browser hides.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::Value;
use tidegate::event::StreamId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::with_timeout;

/// Names in lower case, in the order of the wire.
type Headers = Vec<(String, String)>;

/// A complete answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Headers,
    pub body: String,
}

impl Reply {
    /// All values of a header, joined.
    pub fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The code of one of Tidegate's errors.
    pub fn code(&self) -> String {
        let json = self.json();
        assert!(json["error"]["message"].is_string(), "{json}");
        json["error"]["code"].as_str().expect("an error has a code").to_owned()
    }
}

fn joined(headers: &[(String, String)], name: &str) -> String {
    let values: Vec<&str> = headers.iter().filter(|(n, _)| n == name).map(|(_, v)| &**v).collect();
    values.join(", ")
}

/// Sends one request and reads its answer to the end.
pub async fn send_request(to: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    send_request_bytes(to, method, target, headers, body.as_bytes()).await
}

/// Like [`send_request`], with a binary body.
pub async fn send_request_bytes(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let head = head(to, method, target, headers, body.len(), "close");
    with_timeout("an answer", async {
        let mut socket = TcpStream::connect(to).await.expect("the port is open");
        let sent = async {
            socket.write_all(head.as_bytes()).await?;
            socket.write_all(body).await
        };
        // A server may answer and close before it has read the whole request.
        let _ = sent.await;
        let mut wire = Vec::new();
        let _ = socket.read_to_end(&mut wire).await;
        let (status, headers, from) = parse_head(&wire).unwrap_or_else(|| panic!("{method} {target} has no answer"));
        let rest = &wire[from..];
        let body = if joined(&headers, "transfer-encoding") == "chunked" {
            let mut chunks = Chunks::default();
            chunks.take(rest);
            chunks.text
        } else {
            rest.to_vec()
        };
        Reply { status, headers, body: String::from_utf8(body).expect("the body is text") }
    })
    .await
}

fn head(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    length: usize,
    connection: &str,
) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += &format!("host: {to}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if length > 0 || method == "POST" {
        head += &format!("content-length: {length}\r\n");
    }
    head + &format!("connection: {connection}\r\n\r\n")
}

/// The status, the headers and the offset of the body.
fn parse_head(wire: &[u8]) -> Option<(u16, Headers, usize)> {
    let end = wire.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&wire[..end]).expect("a head is text");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    Some((status, headers.collect(), end + 4))
}

/// A chunked body, decoded as it arrives.
#[derive(Default)]
struct Chunks {
    wire: Vec<u8>,
    text: Vec<u8>,
    ended: bool,
}

impl Chunks {
    fn take(&mut self, bytes: &[u8]) {
        self.wire.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(line) = self.wire[from..].windows(2).position(|two| two == b"\r\n") {
            let size = std::str::from_utf8(&self.wire[from..from + line]).expect("a chunk's size is text");
            let size = usize::from_str_radix(size, 16).expect("a chunk's size is a number");
            let start = from + line + 2;
            if self.wire.len() < start + size + 2 {
                break;
            }
            self.text.extend_from_slice(&self.wire[start..start + size]);
            self.ended |= size == 0;
            from = start + size + 2;
        }
        self.wire.drain(..from);
    }
}

/// One block of an event stream.
#[derive(Clone, Debug)]
pub struct Block {
    pub id: Option<String>,
    pub json: Option<Value>,
}

impl Block {
    pub fn parse(text: &str) -> Self {
        let mut block = Self { id: None, json: None };
        assert!(text.contains("data: "), "many clients hand on an empty message for a block without data: {text:?}");
        for line in text.lines() {
            match line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is not a field")) {
                ("id", id) => assert_eq!(block.id.replace(id.into()), None, "one id per block: {text}"),
                ("data", json) => {
                    let json = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
                    assert_eq!(block.json.replace(json), None, "one line of data per block: {text}");
                }
                ("retry", ms) => assert!(ms.parse::<u32>().is_ok(), "{line}"),
                _ => panic!("{line:?} is not a field that browsers know"),
            }
        }
        block
    }

    pub fn kind(&self) -> &str {
        self.json.as_ref().and_then(|json| json["type"].as_str()).unwrap_or_default()
    }
}

/// The complete blocks of a text. An incomplete one is lost when the connection breaks, as in a browser.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<&str> = text.split("\n\n").collect();
    blocks.pop();
    blocks.into_iter().map(Block::parse).collect()
}

/// An open event stream.
pub struct Sse {
    to: SocketAddr,
    target: String,
    headers: Headers,
    pub response: Headers,
    pub last_event_id: Option<String>,
    /// The whole text that was received.
    pub text: String,
    socket: TcpStream,
    chunks: Chunks,
    ready: VecDeque<Block>,
    /// No block ends before this offset in the text of the chunks.
    searched: usize,
}

impl Sse {
    pub async fn open(to: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        Self::open_with(to, target, headers, None).await
    }

    /// Opens a stream with a receive buffer of this size. The gateway notices soon that a client with a small buffer is stalled.
    pub async fn open_with(to: SocketAddr, target: &str, headers: &[(&str, &str)], buffer: Option<u32>) -> Self {
        let request = head(to, "GET", target, headers, 0, "keep-alive");
        let (socket, status, response, chunks) = with_timeout("the head of a stream", async {
            let socket = TcpSocket::new_v4().expect("a socket");
            if let Some(bytes) = buffer {
                socket.set_recv_buffer_size(bytes).expect("a buffer of this size");
            }
            let mut socket = socket.connect(to).await.expect("the port is open");
            socket.write_all(request.as_bytes()).await.expect("the request is sent");
            let mut wire = Vec::new();
            loop {
                if let Some((status, headers, from)) = parse_head(&wire) {
                    let mut chunks = Chunks::default();
                    if status == 200 {
                        chunks.take(&wire[from..]);
                    }
                    break (socket, status, headers, chunks);
                }
                let read = socket.read_buf(&mut wire).await.expect("the head is read");
                assert!(read > 0, "the head is complete");
            }
        })
        .await;
        assert_eq!(status, 200, "{target} is allowed");
        assert_eq!(joined(&response, "content-type"), "text/event-stream");
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let last_event_id = None;
        let mut sse = Self {
            to,
            target: target.into(),
            headers,
            response,
            last_event_id,
            text: String::new(),
            socket,
            chunks,
            ready: VecDeque::new(),
            searched: 0,
        };
        sse.split();
        sse
    }

    /// Reconnects as a browser does: the same URL, and the last event id.
    pub async fn reconnect(self) -> Self {
        let Self { to, target, headers, last_event_id, socket, .. } = self;
        drop(socket);
        Self::resume(to, &target, &headers, last_event_id).await
    }

    /// Reconnects a stream of another client: its URL, headers and last event id.
    pub async fn resume(to: SocketAddr, target: &str, headers: &[(String, String)], id: Option<String>) -> Self {
        let mut headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        headers.retain(|(name, _)| *name != "last-event-id");
        if let Some(id) = &id {
            headers.push(("last-event-id", id));
        }
        let mut sse = Self::open(to, target, &headers).await;
        sse.last_event_id = id;
        sse
    }

    pub fn header(&self, name: &str) -> String {
        joined(&self.response, name)
    }

    /// Whether the stream has ended and all its blocks were read.
    pub fn is_over(&self) -> bool {
        self.chunks.ended && self.ready.is_empty()
    }

    fn split(&mut self) {
        let text = &mut self.chunks.text;
        let mut from = 0;
        while let Some(end) = text[self.searched..].windows(2).position(|two| two == b"\n\n") {
            let end = self.searched + end + 2;
            let block = std::str::from_utf8(&text[from..end]).expect("a stream is UTF-8");
            self.text.push_str(block);
            self.ready.push_back(Block::parse(&block[..block.len() - 2]));
            (from, self.searched) = (end, end);
        }
        self.searched = (text.len() - from).saturating_sub(1);
        text.drain(..from);
    }

    /// The next block of any kind, `None` after the last one.
    pub async fn block(&mut self) -> Option<Block> {
        let mut wire = Vec::with_capacity(64 << 10);
        let block = with_timeout("the next block of a stream", async {
            loop {
                if let Some(block) = self.ready.pop_front() {
                    break Some(block);
                }
                if self.chunks.ended {
                    break None;
                }
                wire.clear();
                let read = self.socket.read_buf(&mut wire).await.expect("the connection stays open");
                assert!(read > 0, "the connection ended before the last chunk");
                self.chunks.take(&wire);
                self.split();
            }
        })
        .await;
        if let Some(id) = block.as_ref().and_then(|block| block.id.clone()) {
            self.last_event_id = Some(id);
        }
        block
    }

    /// The next frame other than a ping, `None` after the last one.
    pub async fn next(&mut self) -> Option<Value> {
        // Pings must not extend the timeout.
        let next = async {
            loop {
                let block = self.block().await?;
                if block.kind() != "ping"
                    && let Some(json) = block.json
                {
                    break Some(json);
                }
            }
        };
        with_timeout("the next frame of a stream", next).await
    }

    pub async fn frame(&mut self) -> Value {
        self.next().await.expect("the stream goes on")
    }

    /// Reads the frame that opens this channel, and returns its cursor.
    pub async fn connected(&mut self, channel: &str) -> StreamId {
        let frame = self.frame().await;
        assert_eq!((&frame["type"], &frame["channel"]), (&"connected".into(), &channel.into()), "{frame}");
        frame["cursor"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no cursor: {frame}"))
    }

    /// Reads the next frame, which must be an event.
    pub async fn event(&mut self) -> Value {
        let frame = self.frame().await;
        let fields: Vec<&String> = frame.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["channel", "data", "event", "id"], "{frame}");
        frame
    }

    /// Reads events of this channel, and returns their ids.
    pub async fn ids(&mut self, channel: &str, count: usize) -> Vec<StreamId> {
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let event = self.event().await;
            assert_eq!(event["channel"], channel, "{event}");
            ids.push(id_of(&event));
        }
        ids
    }

    /// Reads a gap of this channel, and returns its reason, whether it is certain, and its ends, of which the first may be unknown.
    pub async fn gap(&mut self, channel: &str) -> (String, bool, Option<StreamId>, StreamId) {
        let frame = self.frame().await;
        assert_eq!((&frame["type"], &frame["channel"]), (&"gap".into(), &channel.into()), "{frame}");
        let id = |name: &str| frame[name].as_str().map(|id| id.parse().expect("an end of a gap is an id"));
        let reason = frame["reason"].as_str().expect("a gap has a reason").to_owned();
        (
            reason,
            frame["certain"].as_bool().expect("a gap is certain or not"),
            id("after"),
            id("resumed").expect("an id"),
        )
    }
}

pub fn id_of(event: &Value) -> StreamId {
    event["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no id: {event}"))
}
