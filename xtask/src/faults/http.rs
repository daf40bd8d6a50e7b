//! HTTP/1.1 over blocking sockets: single requests, and streams of server-sent events.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Sends a request without keep-alive and reads the whole answer.
pub fn request(port: u16, head: &str, body: &str, timeout: Duration) -> io::Result<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let length = body.len();
    let request = format!("{head}\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((status(head)?, body.to_owned()))
}

fn status(head: &str) -> io::Result<u16> {
    head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// An answer in chunks, read as blocks of an event stream.
pub struct Stream {
    socket: BufReader<TcpStream>,
    pub status: u16,
    /// Bytes of the current chunk that are not read yet, without its line break.
    missing: usize,
    /// The line of a chunk's size, as far as it has arrived.
    size: Vec<u8>,
    text: Vec<u8>,
}

/// A complete block.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub id: Option<String>,
    pub data: String,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Bytes,
    /// Nothing arrived in time.
    Nothing,
    /// The last chunk arrived.
    End,
}

impl Stream {
    /// Sends a request and reads the head of the answer, which must arrive within `timeout`. Later reads end after `tick`. A slow reader
    /// has a small receive buffer.
    pub fn open(
        port: u16,
        target: &str,
        last_event_id: Option<&str>,
        slow: bool,
        timeout: Duration,
        tick: Duration,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if slow {
            socket.set_recv_buffer_size(4 << 10)?;
        }
        socket.connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(), timeout)?;
        let mut socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))?;
        let resume = last_event_id.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head =
            format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\n{resume}\r\n");
        socket.write_all(head.as_bytes())?;
        // A slow reader takes small parts.
        let mut socket = BufReader::with_capacity(if slow { 512 } else { 16 << 10 }, socket);
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if socket.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            head += &line;
        }
        socket.get_ref().set_read_timeout(Some(tick))?;
        let mut status = status(&head)?;
        if status == 200 && !head.to_lowercase().contains("content-type: text/event-stream") {
            status = 0;
        }
        Ok(Self { socket, status, missing: 0, size: Vec::new(), text: Vec::new() })
    }

    /// Reads bytes that are there, or waits for some.
    pub fn read(&mut self) -> io::Result<Progress> {
        let bytes = match self.socket.fill_buf() {
            Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(Progress::Nothing);
            }
            Err(error) => return Err(error),
        };
        let mut used = 0;
        let mut ended = false;
        for (at, byte) in bytes.iter().enumerate() {
            if at < used {
                continue;
            }
            if self.missing > 0 {
                let part = self.missing.min(bytes.len() - at);
                self.text.extend_from_slice(&bytes[at..at + part]);
                self.missing -= part;
                used = at + part;
                continue;
            }
            used = at + 1;
            // The line break after a chunk is an empty line before the next size.
            if *byte != b'\n' {
                self.size.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.size)).trim().to_owned();
            if line.is_empty() {
                continue;
            }
            self.missing = usize::from_str_radix(&line, 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            ended |= self.missing == 0;
        }
        self.socket.consume(used);
        Ok(if ended { Progress::End } else { Progress::Bytes })
    }

    /// Takes the complete blocks.
    pub fn blocks(&mut self) -> Vec<Block> {
        let (blocks, used) = parse(&self.text);
        self.text.drain(..used);
        blocks
    }
}

/// Complete blocks, and the number of their bytes.
fn parse(text: &[u8]) -> (Vec<Block>, usize) {
    let (mut blocks, mut used) = (Vec::new(), 0);
    while let Some(length) = text[used..].windows(2).position(|two| two == b"\n\n") {
        let block = String::from_utf8_lossy(&text[used..used + length]);
        used += length + 2;
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        blocks.push(Block { id: field("id: "), data: field("data: ").unwrap_or_default() });
    }
    (blocks, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_blocks_are_taken() {
        let block = |id: Option<&str>, data: &str| Block { id: id.map(str::to_owned), data: data.to_owned() };
        let text = b"retry: 5\nid: a:1-0\ndata: {}\n\ndata: x\n\nid: b\nda";
        let (blocks, used) = parse(text);
        assert_eq!(blocks, [block(Some("a:1-0"), "{}"), block(None, "x")]);
        assert_eq!(&text[used..], b"id: b\nda");
    }
}
