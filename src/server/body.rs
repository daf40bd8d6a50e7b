//! Bodies of requests: read within a bound and a time, and parsed as JSON.

use bytes::{Bytes, BytesMut};
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::server::api_error::{ApiError, BODY_IDLE_TIMEOUT, BODY_TIMEOUT, BodyError};

/// What an endpoint expects as its JSON body.
pub struct ExpectedBody {
    /// Error code for a body of another form.
    pub code: &'static str,
    /// A valid body, for the error message.
    pub example: &'static str,
}

/// Reads a body of at most `limit` bytes.
pub async fn read_body<B: Body<Data = Bytes> + Unpin>(mut body: B, limit: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge(limit));
    }
    let until = Instant::now() + BODY_TIMEOUT;
    let mut bytes = BytesMut::new();
    loop {
        let next = tokio::time::timeout_at(until.min(Instant::now() + BODY_IDLE_TIMEOUT), body.frame());
        let Some(frame) = next.await.map_err(|_| BodyError::Timeout)? else { return Ok(bytes.freeze()) };
        // Trailers are ignored.
        let Ok(data) = frame.map_err(|_| BodyError::Incomplete)?.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(BodyError::TooLarge(limit));
        }
        bytes.extend_from_slice(&data);
    }
}

/// Reads a JSON body of at most `limit` bytes.
pub async fn json_body<T: DeserializeOwned>(
    request: Request<Incoming>,
    limit: usize,
    expected: &ExpectedBody,
) -> Result<T, ApiError> {
    from_json(&json_bytes(request, limit).await?, expected)
}

/// Reads the bytes of a JSON body. The content type is checked since HTML forms cannot send it: pages of other origins cannot either.
pub async fn json_bytes(request: Request<Incoming>, limit: usize) -> Result<Bytes, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::UnsupportedMediaType {
            expected: "the body must be JSON, with content-type: application/json",
        });
    }
    Ok(read_body(request.into_body(), limit).await?)
}

/// Parses a JSON body.
pub fn from_json<T: DeserializeOwned>(body: &[u8], expected: &ExpectedBody) -> Result<T, ApiError> {
    let ExpectedBody { code, example } = *expected;
    // serde accepts an array with the values of a struct's fields; the API does not.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::InvalidBody { code, reason: format!("the body is an array; right would be {example}") });
    }
    serde_json::from_slice(body).map_err(|cause| {
        let (code, prefix) = if cause.is_data() { (code, "") } else { ("invalid_json", "the body is not JSON: ") };
        ApiError::InvalidBody { code, reason: format!("{prefix}{cause}; right would be {example}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bodies_are_bounded_in_size_and_time() {
        use futures_util::{StreamExt, stream};
        use http_body::Frame;
        use http_body_util::{Full, StreamBody};
        type Part = Result<Frame<Bytes>, &'static str>;
        let part = |text: &'static str| -> Part { Ok(Frame::data(Bytes::from_static(text.as_bytes()))) };
        let read = async |parts: Vec<Part>| read_body(StreamBody::new(stream::iter(parts)), 5).await;
        assert_eq!(read(vec![part("ab"), part("cde")]).await, Ok("abcde".into()));
        assert_eq!(read(vec![part("ab"), part("cdef")]).await, Err(BodyError::TooLarge(5)));
        assert_eq!(read(vec![part("ab"), Err("gone")]).await, Err(BodyError::Incomplete));
        assert_eq!(read_body(Full::new(Bytes::from_static(b"abcdef")), 5).await, Err(BodyError::TooLarge(5)));
        for (pause, expect) in
            [(BODY_IDLE_TIMEOUT * 2, Err(BodyError::Timeout)), (BODY_IDLE_TIMEOUT / 2, Ok(Bytes::from_static(b"xxx")))]
        {
            let slow = stream::iter(0..3).then(async |_| {
                tokio::time::sleep(pause).await;
                part("x")
            });
            assert_eq!(read_body(StreamBody::new(Box::pin(slow)), 5).await, expect, "{pause:?}");
        }
        let drops = stream::repeat_with(|| part("x")).then(async |part| {
            tokio::time::sleep(BODY_IDLE_TIMEOUT / 2).await;
            part
        });
        assert_eq!(read_body(StreamBody::new(Box::pin(drops)), usize::MAX).await, Err(BodyError::Timeout));
    }
}
