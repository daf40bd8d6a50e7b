//! Bodies with a maximum size and a deadline.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::egress::EgressError;

/// A body that fails beyond a number of bytes.
pub struct CappedBody<B> {
    inner: B,
    remaining: usize,
    error: EgressError,
}

impl<B> CappedBody<B> {
    /// A body of more than `max_bytes` fails with `error`.
    pub fn new(inner: B, max_bytes: usize, error: EgressError) -> Self {
        Self { inner, remaining: max_bytes, error }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for CappedBody<B>
where
    EgressError: From<B::Error>,
{
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let size = frame.data_ref().map_or(0, Buf::remaining);
        match self.remaining.checked_sub(size) {
            Some(remaining) => {
                self.remaining = remaining;
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(Some(Err(self.error.clone()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response. It holds the permit of its request until it is dropped.
pub struct ResponseBody {
    inner: CappedBody<hyper::body::Incoming>,
    deadline: Pin<Box<Sleep>>,
    /// The timeout between two frames, and its timer.
    idle_timeout: Option<(Duration, Pin<Box<Sleep>>)>,
    _permit: OwnedSemaphorePermit,
}

impl ResponseBody {
    pub(super) fn new(
        body: hyper::body::Incoming,
        max_bytes: usize,
        deadline: Instant,
        idle_timeout: Option<Duration>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            inner: CappedBody::new(body, max_bytes, EgressError::TooLarge),
            deadline: Box::pin(tokio::time::sleep_until(deadline)),
            idle_timeout: idle_timeout.map(|time| (time, Box::pin(tokio::time::sleep(time)))),
            _permit: permit,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(EgressError::Timeout)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            if let Some((time, timer)) = &mut self.idle_timeout {
                let next = Instant::now() + *time;
                timer.as_mut().reset(next);
            }
            return Poll::Ready(frame);
        }
        if let Some((_, timer)) = &mut self.idle_timeout {
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(EgressError::Timeout)));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
