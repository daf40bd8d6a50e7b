//! Bodies with an end: so many bytes, by such a time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::egress::EgressError;

/// A body whose bytes are counted.
pub struct CappedBody<B> {
    inner: B,
    left: usize,
    beyond: EgressError,
}

impl<B> CappedBody<B> {
    /// At most so many bytes; beyond, it fails with this error.
    pub fn new(inner: B, bytes: usize, beyond: EgressError) -> Self {
        Self { inner, left: bytes, beyond }
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
        match self.left.checked_sub(size) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(Some(Err(self.beyond.clone()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response's body, which holds its request's place until it ends.
pub struct Response {
    inner: CappedBody<hyper::body::Incoming>,
    end: Pin<Box<Sleep>>,
    /// The longest silence, and when it is over.
    silence: Option<(Duration, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

impl Response {
    pub(super) fn new(
        body: hyper::body::Incoming,
        bytes: usize,
        end: Instant,
        silence: Option<Duration>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            inner: CappedBody::new(body, bytes, EgressError::TooLarge),
            end: Box::pin(tokio::time::sleep_until(end)),
            silence: silence.map(|time| (time, Box::pin(tokio::time::sleep(time)))),
            _place: place,
        }
    }
}

impl Body for Response {
    type Data = Bytes;
    type Error = EgressError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EgressError>>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(EgressError::Timeout)));
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            if let Some((time, silence)) = &mut self.silence {
                let next = Instant::now() + *time;
                silence.as_mut().reset(next);
            }
            return Poll::Ready(frame);
        }
        if let Some((_, silence)) = &mut self.silence {
            ready!(silence.as_mut().poll(cx));
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
