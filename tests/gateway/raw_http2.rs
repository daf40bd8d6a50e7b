//! Frames of HTTP/2 as bytes, for clients that do not behave.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Settings with this window for each stream.
pub fn settings(window: u32) -> Vec<u8> {
    let [a, b, c, d] = window.to_be_bytes();
    frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d])
}

/// The header block of a `GET`, without Huffman codes.
pub fn get_block(path: &str) -> Vec<u8> {
    let path_length = u8::try_from(path.len()).expect("a short path");
    let mut block = vec![0x82, 0x86, 0x04, path_length];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'h']);
    block
}

pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get_block(path))
}

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection that has sent its preface and settings.
pub struct RawClient {
    pub socket: TcpStream,
}

impl RawClient {
    pub async fn connect(to: SocketAddr, window: u32) -> Self {
        let mut socket = TcpStream::connect(to).await.expect("the port is open");
        socket.write_all(&[PREFACE, &settings(window)].concat()).await.expect("the preface is sent");
        Self { socket }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.expect("the frames are sent");
    }

    /// The next frame; pings and settings are answered. `None` when the connection ends.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.socket.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.socket.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            if matches!(frame.kind, PING | SETTINGS) {
                if frame.flags & ACK == 0 {
                    let payload: &[u8] = if frame.kind == PING { &frame.payload } else { &[] };
                    let _ = self.socket.write_all(&self::frame(frame.kind, ACK, 0, payload)).await;
                }
                continue;
            }
            return Some(frame);
        }
    }
}
