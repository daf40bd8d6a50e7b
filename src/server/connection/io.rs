//! The socket of a connection, which tells the connection's activity what arrives.

use std::io::{Error, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::TcpStream;

use crate::server::connection::activity::Activity;

/// Bytes of one read. hyper enlarges its buffer when a read fills it. With this limit the buffer grows only for a head that needs it, and
/// while a request is in progress no more than this arrives of the next one.
const MAX_READ_BYTES: u64 = 4 << 10;

pub struct CountedSocket {
    socket: Take<TcpStream>,
    activity: Arc<Activity>,
}

impl CountedSocket {
    pub fn new(socket: TcpStream, activity: Arc<Activity>) -> Self {
        Self { socket: socket.take(MAX_READ_BYTES), activity }
    }

    fn socket(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.socket.get_mut())
    }
}

impl AsyncRead for CountedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
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
        self.socket().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.socket().poll_shutdown(cx)
    }
}
