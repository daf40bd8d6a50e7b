//! Responses of Tidegate's own, and the one place where causes become HTTP.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::json;

use crate::policy::{Failure, Pin};
use crate::store::StoreError;

/// A body that keeps a policy's pin until the head before it is written: then hyper asks for the body, or drops it.
pub struct Pinned<B> {
    /// What it is without.
    pub body: B,
    /// What the policy's answer came with.
    pub pin: Option<Pin>,
}

impl<B: Body<Data = Bytes, Error = Infallible> + Unpin> Body for Pinned<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.pin = None;
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What every handler answers.
pub type Response = http::Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A response with a body at hand.
pub fn full(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = http::Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = http::Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A policy's own words.
pub fn verbatim(status: StatusCode, headers: HeaderMap, body: Bytes, pin: Option<Pin>) -> Response {
    let mut response = http::Response::new(Pinned { body: Full::new(body), pin }.boxed_unsync());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An event stream.
pub fn event_stream(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Response {
    let mut response = http::Response::new(body.boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Or nginx would hold the frames back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = full(status, "application/json", value.to_string());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `{"error":{"code","message"}}`
pub fn error(status: StatusCode, code: &str, message: impl std::fmt::Display) -> Response {
    json(status, &json!({ "error": { "code": code, "message": message.to_string() } }))
}

/// 404
pub fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
}

/// 405
pub fn method_not_allowed(allowed: &str) -> Response {
    let text = format!("this path takes {allowed} only");
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text);
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(http::header::ALLOW, allowed);
    }
    response
}

/// 431
pub fn head_too_large(limit: usize) -> Response {
    let text = format!("the request's line and headers are more than {limit} bytes (server.max-head)");
    error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_large", text)
}

/// What a client is told whom the policy would let in, and the operator does not for now.
pub fn revoked() -> Response {
    error(StatusCode::FORBIDDEN, "revoked", "the right to read this was taken away for a while")
}

/// What a client is told when there was no decision: nothing that the operator's log has.
pub fn failure(failure: &Failure) -> Response {
    match failure {
        Failure::NoPolicy | Failure::Busy => {
            error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "this request cannot be decided now; try again")
        }
        _ => error(StatusCode::INTERNAL_SERVER_ERROR, "decision_error", "this request could not be decided"),
    }
}

/// What an emitter is told.
pub fn store_error(cause: &StoreError) -> Response {
    match cause {
        StoreError::Unavailable(_) => {
            error(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "the store does not answer")
        }
        StoreError::WrongType => error(StatusCode::CONFLICT, "wrong_type", "the key holds something that is no stream"),
        StoreError::Refused(_) => error(StatusCode::BAD_REQUEST, "store_refused", cause),
    }
}
