//! Writes a stream to the socket of an HTTP/1 connection, which belongs to the stream once the response's head is written: no buffer is
//! held while there is nothing to write. New frames are written by the channel's delivery, all else by the connection's task.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http_body::Body;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use crate::channel::delivery::{Batch, Subscriber, Written};
use crate::stream::body::EventStream;
use crate::stream::channel_reader::Taken;
use crate::stream::chunk::Chunk;
use crate::util::hex::{fill_hex, hex_digits};

/// What a client may send after its request, before the connection ends.
const MAX_IGNORED_BYTES: usize = 16 << 10;
/// How long the end of a stream waits for the client to close, so that a reset does not destroy the last frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The last chunk of a response, without trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const LINE_END: &[u8] = b"\r\n";
/// The longest head of a chunk: eight digits and the end of the line.
const CHUNK_HEAD_BYTES: usize = 10;

/// How the end of a stream shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By the last chunk, HTTP/1.1.
    Chunked,
    /// By the end of the connection, HTTP/1.0.
    UntilClose,
}

/// A stream with its socket.
pub struct SocketStream<T> {
    shared: Arc<Shared<T>>,
    /// Bytes that the client has sent since its request.
    ignored: usize,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Wakes the connection's task.
    task: AtomicWaker,
}

struct State<T> {
    transport: T,
    framing: Framing,
    /// `None` once all of it is written.
    events: Option<Box<EventStream>>,
    /// What the socket did not take.
    unwritten: Bytes,
    /// The stream's last frame is written or in `unwritten`. It is none of a channel, so a revocation does not stop it.
    is_last: bool,
    /// The stream has ended, and `unwritten` is the rest.
    is_ended: bool,
    failure: Option<Error>,
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> SocketStream<T> {
    /// A stream that begins where hyper stopped. `ignored` is the number of bytes that arrived after the request.
    pub fn new(transport: T, framing: Framing, events: Box<EventStream>, ignored: usize) -> Self {
        let state = State {
            transport,
            framing,
            events: Some(events),
            unwritten: Bytes::new(),
            is_last: false,
            is_ended: false,
            failure: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), task: AtomicWaker::new() });
        let subscriber = Arc::downgrade(&shared) as Weak<dyn Subscriber>;
        if let Some(events) = &shared.state.lock().events {
            events.deliver_to(&subscriber);
        }
        Self { shared, ignored }
    }

    /// Writes until the stream or the connection ends.
    pub async fn run(mut self) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_events(cx)).await?;
        std::future::poll_fn(|cx| Pin::new(&mut self.shared.state.lock().transport).poll_shutdown(cx)).await?;
        let closed = std::future::poll_fn(|cx| self.poll_ignored(cx));
        // The client closes, or has had its time.
        let _ = timeout(CLOSE_TIMEOUT, closed).await;
        Ok(())
    }

    /// Completes when all of the stream is written.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // Registered first: a delivery that finds the state locked wakes this task.
        self.shared.task.register(cx.waker());
        if let Poll::Ready(closed) = self.poll_ignored(cx) {
            return Poll::Ready(Err(closed));
        }
        self.shared.state.lock().poll_write(cx)
    }

    /// Reads what the client sends, until it closes or sends too much.
    fn poll_ignored(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut bytes = [std::mem::MaybeUninit::uninit(); 512];
        let mut state = self.shared.state.lock();
        while self.ignored <= MAX_IGNORED_BYTES {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut state.transport).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => return Poll::Ready(ErrorKind::UnexpectedEof.into()),
                Ok(()) => self.ignored += buffer.filled().len(),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Ready(Error::other("the client sends data after its request"))
    }
}

impl<T> Drop for SocketStream<T> {
    fn drop(&mut self) {
        // A delivery may hold the rest for a moment.
        let events = self.shared.state.lock().events.take();
        drop(events);
    }
}

impl<T: AsyncWrite + Unpin> State<T> {
    /// Completes when all of the stream is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        loop {
            while !self.unwritten.is_empty() {
                let rest = std::mem::take(&mut self.unwritten);
                let written = ready!(self.write(cx, &[rest]));
                if let (Err(_), Some(events)) = (&written, &self.events)
                    && events.permit().is_revoked()
                {
                    events.count_cut();
                }
                written?;
            }
            let Some(events) = &mut self.events else { return Poll::Ready(Ok(())) };
            if self.is_ended {
                // Closes the stream: a drain waits for it, and not for the client.
                self.events = None;
                return Poll::Ready(Ok(()));
            }
            if let Some(bytes) = ready!(events.poll_chunk(cx)) {
                events.count_sent(&bytes);
                // After the last frame, which is no event, only the end follows.
                self.is_last = events.is_end_stream();
                let (head, start) = chunk_head(bytes.len());
                let (head, line_end) = (Bytes::copy_from_slice(&head[start..]), Bytes::from_static(LINE_END));
                let parts = match self.framing {
                    Framing::Chunked => &[head, bytes, line_end][..],
                    Framing::UntilClose => &[bytes],
                };
                ready!(self.write(cx, parts))?;
            } else {
                self.is_ended = true;
                if self.framing == Framing::Chunked {
                    self.unwritten = Bytes::from_static(LAST_CHUNK);
                }
            }
        }
    }

    /// Writes these bytes, at most three parts, as far as the socket takes them. The rest becomes `unwritten`.
    fn write(&mut self, cx: &mut Context<'_>, parts: &[Bytes]) -> Poll<Result<()>> {
        let _guard = match &self.events {
            Some(events) if !self.is_last && !self.is_ended => match events.permit().begin_write() {
                None => return Poll::Ready(Err(revoked())),
                guard => guard,
            },
            _ => None,
        };
        let mut slices = [IoSlice::new(&[]); 3];
        slices.iter_mut().zip(parts).for_each(|(slice, part)| *slice = IoSlice::new(part));
        match Pin::new(&mut self.transport).poll_write_vectored(cx, &slices)? {
            Poll::Ready(0) => Poll::Ready(Err(ErrorKind::WriteZero.into())),
            Poll::Ready(written) => {
                self.unwritten = rest_of(parts, written);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                self.unwritten = rest_of(parts, 0);
                Poll::Pending
            }
        }
    }
}

/// The stream ends at once, perhaps within a frame: clients drop an incomplete one and reconnect.
fn revoked() -> Error {
    Error::other("the stream was revoked")
}

/// The rest of these parts after this number of bytes.
fn rest_of(parts: &[Bytes], mut written: usize) -> Bytes {
    if let [part] = parts {
        return part.slice(written..);
    }
    let left = parts.iter().map(Bytes::len).sum::<usize>() - written;
    let mut rest = BytesMut::with_capacity(left);
    for part in parts {
        let skipped = written.min(part.len());
        rest.extend_from_slice(&part[skipped..]);
        written -= skipped;
    }
    rest.freeze()
}

impl<T: AsyncWrite + Send + Unpin> Subscriber for Shared<T> {
    fn deliver(&self, reader: usize, batch: &Batch, scratch: &mut BytesMut) -> Written {
        let Some(mut state) = self.state.try_lock() else {
            self.task.wake();
            return Written::default();
        };
        let (taken, written) = state.deliver(reader, batch, scratch);
        drop(state);
        if taken == Taken::Wake {
            self.task.wake();
        }
        written
    }
}

impl<T: AsyncWrite + Unpin> State<T> {
    fn deliver(&mut self, reader: usize, batch: &Batch, scratch: &mut BytesMut) -> (Taken, Written) {
        let nothing = Written::default();
        if !self.unwritten.is_empty() || self.failure.is_some() {
            return (Taken::Later, nothing);
        }
        let Some(events) = &mut self.events else { return (Taken::Later, nothing) };
        let mut chunk = Chunk::new(false);
        chunk.bytes = std::mem::take(scratch);
        chunk.bytes.clear();
        chunk.bytes.extend_from_slice(&[0; CHUNK_HEAD_BYTES]);
        let taken = events.take_batch(reader, batch, &mut chunk);
        let size = chunk.bytes.len() - CHUNK_HEAD_BYTES;
        let mut start = CHUNK_HEAD_BYTES;
        if self.framing == Framing::Chunked {
            let head;
            (head, start) = chunk_head(size);
            chunk.bytes[..CHUNK_HEAD_BYTES].copy_from_slice(&head);
            chunk.bytes.extend_from_slice(LINE_END);
        }
        let is_allowed = size == 0 || self.write_now(&chunk.bytes[start..]);
        let written = if is_allowed { Written { events: chunk.events, bytes: size as u64 } } else { nothing };
        *scratch = chunk.bytes;
        // The task waits until the socket takes the rest, or ends the connection.
        let is_task_needed = self.failure.is_some() || !self.unwritten.is_empty();
        (if is_task_needed { Taken::Wake } else { taken }, written)
    }

    /// Writes these bytes as far as the socket takes them now. Returns whether the stream may write: then the rest, if any, is `unwritten`.
    fn write_now(&mut self, bytes: &[u8]) -> bool {
        let Some(_guard) = self.events.as_ref().and_then(|events| events.permit().begin_write()) else {
            // The position is that after the frames. The client keeps the one that it has received.
            self.failure = Some(revoked());
            return false;
        };
        let mut cx = Context::from_waker(Waker::noop());
        let sent = match Pin::new(&mut self.transport).poll_write(&mut cx, bytes) {
            Poll::Ready(Ok(sent)) => sent,
            Poll::Ready(Err(error)) => {
                self.failure = Some(error);
                0
            }
            Poll::Pending => 0,
        };
        self.unwritten = Bytes::copy_from_slice(&bytes[sent..]);
        true
    }
}

/// The head of a chunk of this size, at the end of an array, and where it starts.
fn chunk_head(size: usize) -> ([u8; CHUNK_HEAD_BYTES], usize) {
    let (mut bytes, size) = ([0; CHUNK_HEAD_BYTES], size as u64);
    let end = CHUNK_HEAD_BYTES - LINE_END.len();
    let start = end.saturating_sub(hex_digits(size));
    fill_hex(&mut bytes[start..end], size);
    bytes[end..].copy_from_slice(LINE_END);
    (bytes, start)
}

#[cfg(test)]
mod tests;
