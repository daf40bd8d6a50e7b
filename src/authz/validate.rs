//! Validates a policy's answer. An answer that violates the interface is a failure, and the client is not admitted.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::policy::cache_directive::CacheDirective;
use crate::policy::{Failure, Grant, Outcome, Rejection};
use crate::wasm::host::answer::AnswerOptions;
use crate::wasm::host::wit;

/// Header fields of one answer.
const MAX_HEADERS: usize = 64;
/// Headers that belong to the connection, so only the gateway may set them.
const HOP_BY_HOP: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// The outcome of an evaluation, and whether it may be cached. Invalid options make the whole answer invalid.
pub fn validate_answer(
    answer: Result<Result<wit::Grant, wit::Rejection>, Failure>,
    options: &AnswerOptions,
    channels: &[String],
    limit: usize,
    now: u64,
) -> (Outcome, Option<CacheDirective>) {
    let check = AnswerCheck { channels, limit, now, replay_since: options.replay_since };
    match (answer, options.cache_directive()) {
        (Ok(answer), Ok(directive)) => (check.outcome(answer), directive),
        (Err(failure), _) => (Outcome::Failed(failure), None),
        (Ok(_), Err(error)) => (Outcome::Failed(Failure::InvalidAnswer(error)), None),
    }
}

/// What an answer is validated against.
pub struct AnswerCheck<'a> {
    /// The channels that the request asked for.
    pub channels: &'a [String],
    /// Maximum bytes of headers and body.
    pub limit: usize,
    /// The policy's clock, in milliseconds since the Unix epoch.
    pub now: u64,
    /// Copied into the grant.
    pub replay_since: Option<u64>,
}

impl AnswerCheck<'_> {
    pub fn outcome(&self, answer: Result<wit::Grant, wit::Rejection>) -> Outcome {
        let checked = match answer {
            Ok(grant) => self.grant(grant).map(Outcome::Allowed),
            Err(rejection) => self.rejection(rejection).map(Outcome::Rejected),
        };
        checked.unwrap_or_else(|error| Outcome::Failed(Failure::InvalidAnswer(error)))
    }

    fn grant(&self, grant: wit::Grant) -> Result<Grant, String> {
        if let Some(channels) = &grant.channels {
            if channels.is_empty() {
                return Err("the grant lists no channel".into());
            }
            if let Some(foreign) = channels.iter().find(|name| !self.channels.contains(name)) {
                return Err(format!(
                    "the grant lists channel {:?}, which the request did not ask for",
                    truncated(foreign)
                ));
            }
        }
        if grant.expires_at.is_some_and(|at| at <= self.now) {
            return Err("the grant has expired already".into());
        }
        if grant.subject.as_ref().is_some_and(|subject| subject.len() > 1024) {
            return Err("the subject is longer than 1024 bytes".into());
        }
        let headers = self.headers(&grant.headers, 0)?;
        if let Some(name) = headers.keys().find(|name| *name != "set-cookie" && !name.as_str().starts_with("x-")) {
            return Err(format!("the grant has the header {name}: only set-cookie and x-… are allowed"));
        }
        let Self { replay_since, .. } = *self;
        let wit::Grant { subject, channels, expires_at, .. } = grant;
        Ok(Grant { subject, channels, expires_at, replay_since, headers })
    }

    fn rejection(&self, rejection: wit::Rejection) -> Result<Rejection, String> {
        let status = StatusCode::from_u16(rejection.status)
            .ok()
            .filter(|status| (200..=599).contains(&status.as_u16()))
            .ok_or_else(|| format!("the rejection has status {}: must be from 200 to 599", rejection.status))?;
        let mut headers = self.headers(&rejection.headers, rejection.body.len())?;
        let is_reserved = |name: &str| HOP_BY_HOP.contains(&name) || name.starts_with("access-control-");
        let reserved: Vec<_> = headers.keys().filter(|name| is_reserved(name.as_str())).cloned().collect();
        for name in reserved {
            headers.remove(name);
        }
        let is_event_stream = |value: &HeaderValue| {
            let kind = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            kind.eq_ignore_ascii_case(b"text/event-stream")
        };
        if headers.get_all("content-type").iter().any(is_event_stream) {
            return Err("the rejection has the content type of an event stream".into());
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        let body = if bodiless { Bytes::new() } else { rejection.body.into() };
        Ok(Rejection { status, headers, body })
    }

    fn headers(&self, headers: &[wit::HeaderResult], body: usize) -> Result<HeaderMap, String> {
        let size = headers.iter().fold(body, |sum, h| sum.saturating_add(h.name.len()).saturating_add(h.value.len()));
        if size > self.limit {
            return Err(format!(
                "headers and body have {size} bytes, of at most {} (policy.max-response-size)",
                self.limit
            ));
        }
        if headers.len() > MAX_HEADERS {
            return Err(format!("the answer has {} headers, of at most {MAX_HEADERS}", headers.len()));
        }
        let mut map = HeaderMap::new();
        for header in headers {
            let invalid = |what| format!("a header has an invalid {what}: {:?}", truncated(&header.name));
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| invalid("name"))?;
            let value = HeaderValue::from_bytes(&header.value).map_err(|_| invalid("value"))?;
            map.append(name, value);
        }
        Ok(map)
    }
}

fn truncated(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> AnswerCheck<'static> {
        static CHANNELS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| vec!["a".into(), "b".into()]);
        AnswerCheck { channels: &CHANNELS, limit: 1000, now: 5_000, replay_since: Some(7) }
    }

    fn header(name: &str, value: &str) -> wit::HeaderResult {
        wit::HeaderResult { name: name.into(), value: value.into() }
    }

    fn grant() -> wit::Grant {
        wit::Grant { subject: None, channels: None, expires_at: None, headers: vec![] }
    }

    fn rejection(status: u16, headers: Vec<wit::HeaderResult>, body: &str) -> wit::Rejection {
        wit::Rejection { status, headers, body: body.into() }
    }

    #[test]
    fn grant_must_fit_the_request_and_the_limits() {
        let ok = |grant| matches!(check().outcome(Ok(grant)), Outcome::Allowed(Grant { replay_since: Some(7), .. }));
        assert!(ok(grant()));
        assert!(ok(wit::Grant { channels: Some(vec!["b".into()]), expires_at: Some(5_001), ..grant() }));
        assert!(ok(wit::Grant { headers: vec![header("set-cookie", "a=b"), header("X-Y", "z")], ..grant() }));
        assert!(!ok(wit::Grant { channels: Some(vec![]), ..grant() }));
        assert!(!ok(wit::Grant { channels: Some(vec!["c".into()]), ..grant() }));
        assert!(!ok(wit::Grant { expires_at: Some(5_000), ..grant() }));
        assert!(!ok(wit::Grant { headers: vec![header("content-type", "text/html")], ..grant() }));
        assert!(!ok(wit::Grant { headers: vec![header("x-a", "b\r\nset-cookie: c")], ..grant() }));
        assert!(!ok(wit::Grant { headers: vec![header("x-a", &"b".repeat(1000))], ..grant() }));
        assert!(!ok(wit::Grant { subject: Some("s".repeat(2000)), ..grant() }));
    }

    #[test]
    fn rejection_must_have_a_valid_status_headers_and_size() {
        let outcome = |rejection| match check().outcome(Err(rejection)) {
            Outcome::Rejected(r) => Ok((r.status.as_u16(), r.headers.len(), r.body)),
            Outcome::Failed(failure) => Err(failure.to_string()),
            Outcome::Allowed(_) => panic!("a rejection never allows"),
        };
        assert_eq!(outcome(rejection(403, vec![header("x-a", "b")], "no")), Ok((403, 1, "no".into())));
        assert_eq!(outcome(rejection(200, vec![], "no")), Ok((200, 0, "no".into())));
        assert_eq!(outcome(rejection(204, vec![], "no")), Ok((204, 0, Bytes::new())));
        let owned = vec![
            header("Access-Control-Allow-Origin", "*"),
            header("Content-Length", "7"),
            header("Transfer-Encoding", "chunked"),
            header("location", "/login"),
        ];
        assert_eq!(outcome(rejection(302, owned, "")), Ok((302, 1, Bytes::new())));
        for (invalid, expected) in [
            (rejection(99, vec![], ""), "status 99"),
            (rejection(101, vec![], ""), "status 101"),
            (rejection(600, vec![], ""), "status 600"),
            (rejection(0, vec![], ""), "status 0"),
            (rejection(403, vec![header("x a", "b")], ""), "invalid name"),
            (rejection(403, vec![header("x-a", "b\0")], ""), "invalid value"),
            (rejection(403, vec![header("x-a", "b\r\nc: d")], ""), "invalid value"),
            (rejection(200, vec![header("Content-Type", "Text/Event-Stream; charset=utf-8")], ""), "event stream"),
            (rejection(403, vec![], &"x".repeat(1001)), "1001 bytes"),
            (rejection(403, (0..65).map(|_| header("x-a", "b")).collect(), ""), "65 headers"),
        ] {
            let error = outcome(invalid).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
