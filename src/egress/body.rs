//! Bodies with a maximum size and a deadline.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::egress::EgressError;

/// A request body that fails beyond a number of bytes.
pub fn limit_request_body(
    body: impl Body<Data = Bytes, Error = EgressError>,
    max_bytes: usize,
) -> impl Body<Data = Bytes, Error = EgressError> {
    Limited::new(body, max_bytes).map_err(|error| map_error(error, EgressError::RequestTooLarge))
}

fn map_error(error: Box<dyn Error + Send + Sync>, too_large: EgressError) -> EgressError {
    match error.downcast::<EgressError>() {
        Ok(own) => *own,
        Err(error) if error.is::<LengthLimitError>() => too_large,
        Err(error) => EgressError::Http(error.to_string()),
    }
}

/// The body of a response. It holds the permit of its request until it is dropped.
pub struct ResponseBody {
    inner: Limited<Incoming>,
    deadline: Pin<Box<Sleep>>,
    /// The timeout between two frames, and its timer.
    idle_timeout: Option<(Duration, Pin<Box<Sleep>>)>,
    _permit: OwnedSemaphorePermit,
}

impl ResponseBody {
    pub(super) fn new(
        body: Incoming,
        max_bytes: usize,
        deadline: Instant,
        idle_timeout: Option<Duration>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            inner: Limited::new(body, max_bytes),
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
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| map_error(error, EgressError::TooLarge))));
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
