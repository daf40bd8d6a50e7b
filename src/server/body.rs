//! Bodies of requests: read within a bound and a time, and parsed as JSON.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::server::api_error::{ApiError, BODY_IDLE_TIMEOUT, BodyError};
use crate::server::body_budget::Reservation;

/// What an endpoint expects as its JSON body.
pub struct ExpectedBody {
    /// Error code for a body of another form.
    pub code: &'static str,
    /// A valid body, for the error message.
    pub example: &'static str,
}

/// What a body may be, and what memory it takes.
pub struct BodyLimits<'a> {
    pub max_bytes: usize,
    /// Time for the whole body.
    pub timeout: Duration,
    /// The memory of the request, with the bytes of memory for each byte of its body. Bodies of a few KiB need none.
    pub memory: Option<(&'a mut Reservation, usize)>,
}

/// Time for a body with an event or a command.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Memory is reserved in steps of at least this size while a body of unknown length arrives.
const MIN_STEP_BYTES: usize = 16 << 10;

/// Reads a body within these limits. Its memory is reserved before it is read.
pub async fn read_body<B: Body<Data = Bytes> + Unpin>(mut body: B, limits: BodyLimits<'_>) -> Result<Bytes, BodyError> {
    let BodyLimits { max_bytes, timeout, mut memory } = limits;
    let length = body.size_hint().lower();
    if length > max_bytes as u64 {
        return Err(BodyError::TooLarge(max_bytes));
    }
    let mut reserve = async |bytes: usize| match &mut memory {
        Some((memory, factor)) => memory.grow_to(bytes.saturating_mul(*factor)).await,
        None => Ok(()),
    };
    let mut capacity = usize::try_from(length).unwrap_or(max_bytes);
    reserve(capacity).await?;
    let until = Instant::now() + timeout;
    let mut bytes = BytesMut::with_capacity(capacity);
    loop {
        let next = tokio::time::timeout_at(until.min(Instant::now() + BODY_IDLE_TIMEOUT), body.frame());
        let Some(frame) = next.await.map_err(|_| BodyError::Timeout { total: timeout.as_secs() })? else {
            return Ok(bytes.freeze());
        };
        // Trailers are ignored.
        let Ok(data) = frame.map_err(|_| BodyError::Incomplete)?.into_data() else { continue };
        let needed = bytes.len() + data.len();
        if needed > max_bytes {
            return Err(BodyError::TooLarge(max_bytes));
        }
        if needed > capacity {
            capacity = needed.max(2 * capacity).max(MIN_STEP_BYTES).min(max_bytes);
            reserve(capacity).await?;
            bytes.reserve(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Reads a JSON body of a few KiB.
pub async fn json_body<T: DeserializeOwned>(
    request: Request<Incoming>,
    max_bytes: usize,
    expected: &ExpectedBody,
) -> Result<T, ApiError> {
    let limits = BodyLimits { max_bytes, timeout: BODY_TIMEOUT, memory: None };
    from_json(&json_bytes(request, limits).await?, expected)
}

/// Reads the bytes of a JSON body. The content type is checked since HTML forms cannot send it: pages of other origins cannot either.
pub async fn json_bytes(request: Request<Incoming>, limits: BodyLimits<'_>) -> Result<Bytes, ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::UnsupportedMediaType {
            expected: "the body must be JSON, with content-type: application/json",
        });
    }
    Ok(read_body(request.into_body(), limits).await?)
}

/// Parses a JSON body.
pub fn from_json<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &ExpectedBody) -> Result<T, ApiError> {
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
        let limits = |max_bytes| BodyLimits { max_bytes, timeout: BODY_TIMEOUT, memory: None };
        let read = async |parts: Vec<Part>| read_body(StreamBody::new(stream::iter(parts)), limits(5)).await;
        assert_eq!(read(vec![part("ab"), part("cde")]).await, Ok("abcde".into()));
        assert_eq!(read(vec![part("ab"), part("cdef")]).await, Err(BodyError::TooLarge(5)));
        assert_eq!(read(vec![part("ab"), Err("gone")]).await, Err(BodyError::Incomplete));
        assert_eq!(read_body(Full::new(Bytes::from_static(b"abcdef")), limits(5)).await, Err(BodyError::TooLarge(5)));
        let timeout = || BodyError::Timeout { total: BODY_TIMEOUT.as_secs() };
        for (pause, expect) in
            [(BODY_IDLE_TIMEOUT * 2, Err(timeout())), (BODY_IDLE_TIMEOUT / 2, Ok(Bytes::from_static(b"xxx")))]
        {
            let slow = stream::iter(0..3).then(async |_| {
                tokio::time::sleep(pause).await;
                part("x")
            });
            assert_eq!(read_body(StreamBody::new(Box::pin(slow)), limits(5)).await, expect, "{pause:?}");
        }
        let drops = stream::repeat_with(|| part("x")).then(async |part| {
            tokio::time::sleep(BODY_IDLE_TIMEOUT / 2).await;
            part
        });
        assert_eq!(read_body(StreamBody::new(Box::pin(drops)), limits(usize::MAX)).await, Err(timeout()));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_reserved_before_a_body_is_read() {
        use futures_util::stream;
        use http_body::Frame;
        use http_body_util::{Full, StreamBody};

        use crate::server::body_budget::{BodyBudget, NoMemory};
        const SIZE: usize = 256 << 10;
        let budget = BodyBudget::new(3 * SIZE);
        let mut memory = budget.reservation(None);
        let mut limits = BodyLimits { max_bytes: 4 * SIZE, timeout: BODY_TIMEOUT, memory: Some((&mut memory, 2)) };
        let whole = Full::new(Bytes::from(vec![0; SIZE]));
        assert_eq!(read_body(whole.clone(), limits).await.expect("it fits").len(), SIZE);
        assert_eq!(budget.used_bytes(), 2 * SIZE);
        let mut other = budget.reservation(None);
        limits = BodyLimits { max_bytes: 4 * SIZE, timeout: BODY_TIMEOUT, memory: Some((&mut other, 2)) };
        assert_eq!(read_body(whole, limits).await, Err(BodyError::NoMemory(NoMemory::Busy)));
        // Without a length, in steps.
        let parts = stream::repeat_with(|| Ok::<_, &str>(Frame::data(Bytes::from_static(&[0; 1024]))));
        limits = BodyLimits { max_bytes: 4 * SIZE, timeout: BODY_TIMEOUT, memory: Some((&mut other, 2)) };
        let result = read_body(StreamBody::new(parts), limits).await;
        assert_eq!(result, Err(BodyError::NoMemory(NoMemory::Busy)));
        assert!(other.bytes() >= SIZE / 2, "{} bytes", other.bytes());
    }
}
