//! Builders of responses. Errors are built by `api_error.rs`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use serde::Serialize;
use serde_json::{Value, json};

use crate::authz::in_flight::InFlightGuard;
use crate::policy::info::PolicyInfo;
use crate::stream::body::EventStream;

/// The body of every handler's response. It holds the guard of a decision until the response head is written, which is when hyper polls the
/// body or drops it.
pub struct ResponseBody {
    content: Content,
    /// What the connection counts of it.
    pub counts: Counts,
    /// Keeps the policy's generation counted as in use.
    guard: Option<InFlightGuard>,
}

/// What a connection counts of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Its bytes, and the time until it is read.
    All,
    /// The same without the bytes of the body, which holds memory of its own limit until it is written.
    Reserved,
    /// Nothing: it ends by itself only when its stream does.
    Endless,
}

enum Content {
    Plain(UnsyncBoxBody<Bytes, Infallible>),
    Events(Box<EventStream>),
}

impl ResponseBody {
    /// A body other than a client's stream.
    pub fn new(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Self {
        Self { content: Content::Plain(body.boxed_unsync()), counts: Counts::All, guard: None }
    }

    /// The client's stream that this is, with the guard of its decision.
    pub fn into_events(self) -> Result<(Box<EventStream>, Option<InFlightGuard>), Self> {
        match self.content {
            Content::Events(stream) => Ok((stream, self.guard)),
            content @ Content::Plain(_) => Err(Self { content, ..self }),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.guard = None;
        match &mut self.content {
            Content::Plain(body) => Pin::new(body).poll_frame(cx),
            Content::Events(stream) => Pin::new(&mut **stream).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Plain(body) => body.is_end_stream(),
            Content::Events(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Plain(body) => body.size_hint(),
            Content::Events(stream) => stream.size_hint(),
        }
    }
}

/// The response of every handler.
pub type Response = http::Response<ResponseBody>;

/// No cache stores a response, unless it says otherwise: some statuses may be cached even without a header (404, 410, 301).
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A response with a complete body, which no cache stores.
pub fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(ResponseBody::new(Full::new(body.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = http::Response::new(ResponseBody::new(Full::default()));
    *response.status_mut() = status;
    response
}

/// A policy's own response, which no cache stores unless the policy says otherwise.
pub fn verbatim(status: StatusCode, headers: HeaderMap, body: Bytes, guard: Option<InFlightGuard>) -> Response {
    let mut response = http::Response::new(ResponseBody { guard, ..ResponseBody::new(Full::new(body)) });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().entry(CACHE_CONTROL).or_insert(NO_STORE);
    response
}

/// A client's stream.
pub fn events(stream: EventStream, guard: Option<InFlightGuard>) -> Response {
    event_stream(ResponseBody { content: Content::Events(Box::new(stream)), counts: Counts::Endless, guard })
}

fn event_stream(body: ResponseBody) -> Response {
    let mut response = http::Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies that compress would hold the frames back.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // Keeps nginx from buffering the frames.
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// An event stream of these frames, until `end` completes.
pub fn frames(
    frames: impl Stream<Item = Bytes> + Send + 'static,
    end: impl Future<Output = ()> + Send + 'static,
) -> Response {
    let frames = frames.map(|frame| Ok(Frame::data(frame)));
    let body = ResponseBody::new(StreamBody::new(frames.take_until(Box::pin(end))));
    event_stream(ResponseBody { counts: Counts::Endless, ..body })
}

/// A JSON response with the status 200.
pub fn ok(value: impl Serialize) -> Response {
    json(StatusCode::OK, &json!(value))
}

/// A JSON response, which no cache stores.
pub fn json(status: StatusCode, value: &Value) -> Response {
    let mut response = json_text(value.to_string().into());
    *response.status_mut() = status;
    response
}

/// A response with the status 200 and this JSON.
pub fn json_text(text: Bytes) -> Response {
    full(StatusCode::OK, "application/json", text)
}

/// The entity tag of a policy: its digest in quotes.
pub fn etag(policy: &PolicyInfo) -> String {
    format!("\"{}\"", policy.digest)
}

/// Adds the entity tag of the active policy.
pub fn with_etag(mut response: Response, active: Option<&PolicyInfo>) -> Response {
    if let Some(Ok(tag)) = active.map(|policy| HeaderValue::try_from(etag(policy))) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
