//! Bodies of requests: read within a bound and a time, and parsed as JSON.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::respond::{Response, error};

/// What a JSON body has to be.
pub struct Expected {
    /// The code of the error if it is something else.
    pub error: &'static str,
    /// What would be right.
    pub example: &'static str,
}

/// A body has to go on within this time, and to end within that.
const BODY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// A body that cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is too large.
    #[error("the body is more than {0} bytes")]
    TooLarge(usize),
    /// Its client went away, or broke the rules of HTTP.
    #[error("the body ended early")]
    Broken,
    /// Whoever sends so slowly is in the way of others.
    #[error("the body did not come: {} s passed without a byte, or {} s in all", BODY.0.as_secs(), BODY.1.as_secs())]
    Slow,
}

impl Unread {
    /// What HTTP calls that.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "body_too_large",
            Self::Broken => "body_incomplete",
            Self::Slow => "body_timeout",
        }
    }
}

/// A body of so many bytes at the most.
pub async fn read_body<B: Body<Data = Bytes> + Unpin>(mut body: B, limit: usize) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Unread::TooLarge(limit));
    }
    let until = Instant::now() + BODY.1;
    let mut bytes = BytesMut::new();
    loop {
        let next = tokio::time::timeout_at(until.min(Instant::now() + BODY.0), body.frame());
        let Some(frame) = next.await.map_err(|_| Unread::Slow)? else { return Ok(bytes.freeze()) };
        // Trailers say nothing here.
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(Unread::TooLarge(limit));
        }
        bytes.extend_from_slice(&data);
    }
}

/// The same, or the answer that it cannot be taken.
pub async fn body_of(request: Request<Incoming>, limit: usize) -> Result<Bytes, Box<Response>> {
    read_body(request.into_body(), limit)
        .await
        .map_err(|unread| Box::new(error(unread.status(), unread.code(), unread)))
}

/// A JSON body of so many bytes at the most. What a form could send is no JSON.
pub async fn json_body<T: DeserializeOwned>(
    request: Request<Incoming>,
    limit: usize,
    expected: Expected,
) -> Result<T, Box<Response>> {
    from_json(&json_bytes(request, limit).await?, &expected)
}

/// The bytes of such a body.
pub async fn json_bytes(request: Request<Incoming>, limit: usize) -> Result<Bytes, Box<Response>> {
    let kind = request.headers().get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let text = "the body is JSON, with content-type: application/json";
        return Err(Box::new(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text)));
    }
    body_of(request, limit).await
}

/// What such a body says.
pub fn from_json<T: DeserializeOwned>(body: &[u8], expected: &Expected) -> Result<T, Box<Response>> {
    // What is made for objects takes arrays too, of what is in their fields.
    if body.trim_ascii_start().starts_with(b"[") {
        let text = format!("the body is an array; right would be {}", expected.example);
        return Err(Box::new(error(StatusCode::BAD_REQUEST, expected.error, text)));
    }
    serde_json::from_slice(body).map_err(|cause| {
        let (code, what) =
            if cause.is_data() { (expected.error, "") } else { ("invalid_json", "the body is no JSON: ") };
        Box::new(error(StatusCode::BAD_REQUEST, code, format!("{what}{cause}; right would be {}", expected.example)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bodies() {
        use futures_util::{StreamExt, stream};
        use http_body::Frame;
        use http_body_util::{Full, StreamBody};
        type Piece = Result<Frame<Bytes>, &'static str>;
        let piece = |text: &'static str| -> Piece { Ok(Frame::data(Bytes::from_static(text.as_bytes()))) };
        let read = async |pieces: Vec<Piece>| read_body(StreamBody::new(stream::iter(pieces)), 5).await;
        assert_eq!(read(vec![piece("ab"), piece("cde")]).await, Ok("abcde".into()));
        assert_eq!(read(vec![piece("ab"), piece("cdef")]).await, Err(Unread::TooLarge(5)));
        assert_eq!(read(vec![piece("ab"), Err("gone")]).await, Err(Unread::Broken));
        assert_eq!(read_body(Full::new(Bytes::from_static(b"abcdef")), 5).await, Err(Unread::TooLarge(5)));
        for (pause, expect) in [(BODY.0 * 2, Err(Unread::Slow)), (BODY.0 / 2, Ok(Bytes::from_static(b"xxx")))] {
            let slow = stream::iter(0..3).then(async |_| {
                tokio::time::sleep(pause).await;
                piece("x")
            });
            assert_eq!(read_body(StreamBody::new(Box::pin(slow)), 5).await, expect, "{pause:?}");
        }
        let drops = stream::repeat_with(|| piece("x")).then(async |piece| {
            tokio::time::sleep(BODY.0 / 2).await;
            piece
        });
        assert_eq!(read_body(StreamBody::new(Box::pin(drops)), usize::MAX).await, Err(Unread::Slow));
    }
}
