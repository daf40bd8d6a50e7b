//! The socket of a connection, which tells the connection's activity what arrives.

use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::TcpStream;

use crate::server::connection::activity::Activity;
use crate::server::connection::handover::Handover;

/// Bytes of one read. hyper enlarges its buffer when a read fills it. With this limit the buffer grows only for a head that needs it, and
/// while a request is in progress no more than this arrives of the next one.
const MAX_READ_BYTES: u64 = 4 << 10;

/// The first bytes of an HTTP/2 connection.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of the first read, in which the head of most requests fits.
const FIRST_READ_BYTES: usize = 2 << 10;

pub struct CountedSocket {
    socket: Take<TcpStream>,
    activity: Arc<Activity>,
    /// Bytes that were read before hyper.
    first: Bytes,
    handover: Arc<Handover>,
}

impl CountedSocket {
    pub fn new(socket: TcpStream, activity: Arc<Activity>, handover: Arc<Handover>) -> Self {
        Self { socket: socket.take(MAX_READ_BYTES), activity, first: Bytes::new(), handover }
    }

    /// Reads until the first bytes tell whether the client speaks HTTP/2. A connection that ends before is one of HTTP/1.
    pub async fn speaks_http2(&mut self) -> Result<bool> {
        let mut first = BytesMut::with_capacity(FIRST_READ_BYTES);
        loop {
            let known = first.len().min(HTTP2_PREFACE.len());
            let may_be_http2 = first[..known] == HTTP2_PREFACE[..known];
            if may_be_http2 && known < HTTP2_PREFACE.len() && self.read_buf(&mut first).await? > 0 {
                continue;
            }
            self.first = first.freeze();
            return Ok(may_be_http2 && known == HTTP2_PREFACE.len());
        }
    }

    /// The socket, and the bytes that were read and not passed on.
    pub fn into_parts(self) -> (TcpStream, Bytes) {
        (self.socket.into_inner(), self.first)
    }

    fn socket(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.socket.get_mut())
    }
}

impl AsyncRead for CountedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if !self.first.is_empty() {
            let size = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(size));
            if self.first.is_empty() {
                self.first = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        self.socket.set_limit(MAX_READ_BYTES);
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        let received = self.activity.received(buffer.filled().len() - before);
        Poll::Ready(received.map_err(|cause| Error::other(cause.as_str())))
    }
}

impl AsyncWrite for CountedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.socket().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.socket().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.get_ref().is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // hyper calls this when its own buffer is empty.
        self.handover.flushed();
        self.socket().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.socket().poll_shutdown(cx)
    }
}
