//! A request and its response, until the last byte is written to the socket. A response other than a stream is counted in bytes, and
//! has a time to be read.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::{CONNECTION, HeaderValue};
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::server::connection::activity::Activity;
use crate::server::connection::deadline::{Deadline, EndCause};
use crate::server::connection::handover::{Handover, TakenStream};
use crate::server::respond::{Counts, Response, ResponseBody};
use crate::stream::registry::AbortSignal;
use crate::stream::writer::Framing;
use crate::util::shares::Share;

/// What a response costs next to its headers and its body: tasks, buffers and the state of an HTTP/2 stream.
pub const EXCHANGE_BYTES: usize = 4 << 10;
/// A client may read a response at least this fast, bytes per second.
const MIN_BYTES_PER_SECOND: usize = 64 << 10;

/// One request and its response. It ends when it is dropped: its parts are with the handler, then with hyper until they are written.
pub struct Exchange {
    activity: Arc<Activity>,
    version: Version,
    /// Of an HTTP/2 stream; set when its task has begun.
    stream: OnceLock<Arc<StreamControl>>,
    is_endless: AtomicBool,
    /// The share of a response's bytes.
    memory: Mutex<Option<Share<IpAddr>>>,
    /// Chunks that are not written yet.
    unwritten: AtomicUsize,
    written: AtomicWaker,
}

/// What ends one HTTP/2 stream without its connection.
#[derive(Debug, Default)]
pub struct StreamControl {
    /// Requested by the registry of event streams.
    pub abort: AbortSignal,
    pub end: Arc<Deadline>,
    /// Notified when the exchange has ended.
    pub ended: Notify,
}

impl Exchange {
    pub fn begin(activity: &Arc<Activity>, version: Version) -> Arc<Self> {
        activity.begin_exchange(version);
        Arc::new(Self {
            activity: Arc::clone(activity),
            version,
            stream: OnceLock::new(),
            is_endless: AtomicBool::new(false),
            memory: Mutex::new(None),
            unwritten: AtomicUsize::new(0),
            written: AtomicWaker::new(),
        })
    }

    /// Names the HTTP/2 stream of this exchange.
    pub fn set_stream(&self, stream: Arc<StreamControl>) {
        // It is set once.
        let _ = self.stream.set(stream);
    }

    /// Counts the response, and starts its time. Fails if there is no memory for it. A stream over HTTP/1 goes to the connection's task.
    pub fn respond(
        self: Arc<Self>,
        response: Response,
        handover: &Arc<Handover>,
    ) -> Result<http::Response<CountedBody>, EndCause> {
        let counts = response.body().counts;
        let is_endless = counts == Counts::Endless;
        if is_endless {
            self.is_endless.store(true, Ordering::Relaxed);
            self.activity.begin_stream();
        } else {
            let body = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
            let counted = if counts == Counts::Reserved { 0 } else { body };
            let bytes = header_bytes(response.headers()).saturating_add(counted);
            // An HTTP/1.1 connection has one small response at a time, which counts with the connection: probes are always answered.
            if self.stream.get().is_some() || bytes > EXCHANGE_BYTES {
                *self.memory.lock() = Some(self.activity.take_memory(bytes.saturating_add(EXCHANGE_BYTES))?);
            }
            self.end_unless_read(body);
        }
        let (mut head, mut body) = response.into_parts();
        if self.stream.get().is_none() {
            body = match body.into_events() {
                Ok((events, guard)) => {
                    // The connection ends with the stream.
                    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
                    let framing = if self.version == Version::HTTP_11 { Framing::Chunked } else { Framing::UntilClose };
                    let exchange = Arc::clone(&self) as Arc<dyn Send + Sync>;
                    let stream = TakenStream { events, framing, exchange, guard };
                    ResponseBody::new(handover.begin(stream))
                }
                Err(body) => body,
            };
        }
        let body = CountedBody { body, exchange: self, is_endless, has_data: false, phase: Phase::Data };
        Ok(http::Response::from_parts(head, body))
    }

    /// Starts the time to read this many bytes.
    fn end_unless_read(&self, bytes: usize) {
        let seconds = u64::try_from(bytes / MIN_BYTES_PER_SECOND).unwrap_or(u64::MAX);
        let time = self.activity.limits().config.response_timeout.saturating_add(Duration::from_secs(seconds));
        self.end().set(time, EndCause::ResponseTimeout);
    }

    /// When the exchange has to end, with the connection for HTTP/1.1.
    fn end(&self) -> &Arc<Deadline> {
        self.stream.get().map_or_else(|| self.activity.end(), |stream| &stream.end)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // The memory first, because the end of the exchange shows that it is free.
        *self.memory.lock() = None;
        self.activity.end_exchange(*self.is_endless.get_mut());
        if let Some(stream) = self.stream.get() {
            stream.ended.notify_one();
        }
    }
}

fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Data that holds its exchange until it is written. hyper and h2 drop it then.
struct CountedChunk {
    bytes: Bytes,
    exchange: Arc<Exchange>,
}

impl AsRef<[u8]> for CountedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedChunk {
    fn drop(&mut self) {
        self.exchange.unwritten.fetch_sub(1, Ordering::AcqRel);
        self.exchange.written.wake();
    }
}

/// The body of a response.
///
/// HTTP/2 would take a body over as soon as the client's window has a byte, and no one could abort the exchange any more. So the body of an
/// HTTP/2 response ends only once all of its data is written. Without data, an empty frame stands for the head.
pub struct CountedBody {
    body: ResponseBody,
    exchange: Arc<Exchange>,
    is_endless: bool,
    has_data: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Data,
    /// The data is given to HTTP/2, and is not yet written.
    Writing,
    Done,
}

impl CountedBody {
    fn is_http2(&self) -> bool {
        self.exchange.stream.get().is_some()
    }

    fn count(&mut self, bytes: Bytes) -> Bytes {
        // HTTP/1.1 has one response at a time, and a stream that ends leaves little.
        if self.is_endless && !self.is_http2() {
            return bytes;
        }
        self.has_data = true;
        self.exchange.unwritten.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(CountedChunk { bytes, exchange: Arc::clone(&self.exchange) })
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.phase == Phase::Data {
            if let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                return Poll::Ready(Some(frame.map(|frame| frame.map_data(|bytes| self.count(bytes)))));
            }
            if !self.is_http2() {
                self.phase = Phase::Done;
                return Poll::Ready(None);
            }
            self.phase = Phase::Writing;
            if self.is_endless {
                self.exchange.end_unless_read(0);
            }
            if !self.has_data {
                let empty = self.count(Bytes::new());
                return Poll::Ready(Some(Ok(Frame::data(empty))));
            }
        }
        self.exchange.written.register(cx.waker());
        if self.phase == Phase::Writing && self.exchange.unwritten.load(Ordering::Acquire) > 0 {
            return Poll::Pending;
        }
        self.phase = Phase::Done;
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        if self.is_http2() { self.phase == Phase::Done } else { self.body.is_end_stream() }
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        // HTTP/1.1 sends no length of an empty body by itself either where there must not be one.
        if self.is_http2() && hint.exact() == Some(0) { SizeHint::default() } else { hint }
    }
}
