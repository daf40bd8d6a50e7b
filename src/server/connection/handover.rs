//! The handover of a stream from hyper to the task of its HTTP/1 connection. hyper keeps its buffers for as long as a response lasts, so it
//! parses the request and writes the head of the response, with the stream's first chunk; then the task takes the socket.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;

use crate::authz::in_flight::InFlightGuard;
use crate::stream::body::EventStream;
use crate::stream::writer::Framing;

/// The stream of a connection's last response, and how far hyper has written the head.
#[derive(Default)]
pub struct Handover(Mutex<Step>);

#[derive(Default)]
enum Step {
    /// No request was answered with a stream.
    #[default]
    None,
    /// hyper writes the head of the response.
    Answered(TakenStream),
    /// hyper has the head and the first chunk in its buffer.
    Begun(TakenStream),
    /// Its buffer is empty: the connection's task may take the stream.
    Written(TakenStream),
}

/// A stream, with what lasts as long as it.
pub struct TakenStream {
    pub events: Box<EventStream>,
    pub framing: Framing,
    /// The request, which is in progress until the stream ends.
    pub exchange: Arc<dyn Send + Sync>,
    /// Keeps the policy's generation counted as in use until the head is written.
    pub guard: Option<InFlightGuard>,
}

impl Handover {
    /// Takes a stream, and returns the body for hyper.
    pub fn begin(self: &Arc<Self>, stream: TakenStream) -> FirstChunk {
        *self.0.lock() = Step::Answered(stream);
        FirstChunk(Arc::clone(self))
    }

    /// Notes that hyper's buffer is empty.
    pub fn flushed(&self) {
        let step = &mut *self.0.lock();
        *step = match std::mem::take(step) {
            Step::Begun(mut stream) => {
                drop(stream.guard.take());
                Step::Written(stream)
            }
            other => other,
        };
    }

    /// The stream, once the head is written.
    pub fn take(&self) -> Option<TakenStream> {
        let step = &mut *self.0.lock();
        match std::mem::take(step) {
            Step::Written(stream) => Some(stream),
            other => {
                *step = other;
                None
            }
        }
    }
}

/// The body that hyper sees: the first chunk of the stream, if it is there, and no end.
pub struct FirstChunk(Arc<Handover>);

impl Body for FirstChunk {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let step = &mut *self.0.0.lock();
        match std::mem::take(step) {
            Step::Answered(mut stream) => {
                let first = Pin::new(&mut *stream.events).poll_frame(cx);
                *step = Step::Begun(stream);
                // The end of a stream that has ended already is written by the task, too.
                ready!(first).map_or(Poll::Pending, |first| Poll::Ready(Some(first)))
            }
            other => {
                *step = other;
                Poll::Pending
            }
        }
    }
}
