//! Checks a policy's answer: what the interface does not allow is no answer at all.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::policy::cache_directive::CacheDirective;
use crate::policy::{Failure, Grant, Outcome, Rejection};
use crate::wasm::host::answer::AnswerOptions;
use crate::wasm::host::wit;

/// Header fields of an answer.
const MAX_HEADERS: usize = 64;
/// What of one connection must not be said by somebody else.
const HOP_BY_HOP: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// What came of asking, and whether it may be given again. Whatever is wrong, be it with what was said beside, is a failure.
pub fn judge(
    answer: Result<Result<wit::Grant, wit::Rejection>, Failure>,
    options: &AnswerOptions,
    channels: &[String],
    limit: usize,
    now: u64,
) -> Result<(Outcome, Option<CacheDirective>), Failure> {
    let check = AnswerCheck { channels, limit, now, replay_since: options.replay_since };
    let outcome = check.outcome(answer?);
    Ok((outcome, options.cache_directive().map_err(Failure::InvalidAnswer)?))
}

/// What the answer is checked against.
pub struct AnswerCheck<'a> {
    /// The channels that were asked for.
    pub channels: &'a [String],
    /// Bytes of headers and body.
    pub limit: usize,
    /// Now, ms since 1970.
    pub now: u64,
    /// What the policy said beside its answer.
    pub replay_since: Option<u64>,
}

impl AnswerCheck<'_> {
    /// The outcome that an answer means.
    pub fn outcome(&self, answer: Result<wit::Grant, wit::Rejection>) -> Outcome {
        let checked = match answer {
            Ok(grant) => self.grant(grant).map(Outcome::Allowed),
            Err(rejection) => self.rejection(rejection).map(Outcome::Rejected),
        };
        checked.unwrap_or_else(|why| Outcome::Failed(Failure::InvalidAnswer(why)))
    }

    fn grant(&self, grant: wit::Grant) -> Result<Grant, String> {
        if let Some(channels) = &grant.channels {
            if channels.is_empty() {
                return Err("a grant of no channel".into());
            }
            if let Some(foreign) = channels.iter().find(|name| !self.channels.contains(name)) {
                return Err(format!("a grant of {:?}, which was not asked for", short(foreign)));
            }
        }
        if grant.expires_at.is_some_and(|at| at <= self.now) {
            return Err("a grant that has expired".into());
        }
        if grant.subject.as_ref().is_some_and(|subject| subject.len() > 1024) {
            return Err("a subject of more than 1024 bytes".into());
        }
        let headers = self.headers(&grant.headers, 0)?;
        if let Some(name) = headers.keys().find(|name| *name != "set-cookie" && !name.as_str().starts_with("x-")) {
            return Err(format!("a grant with the header {name}: only set-cookie and x-… may stand there"));
        }
        let Self { replay_since, .. } = *self;
        let wit::Grant { subject, channels, expires_at, .. } = grant;
        Ok(Grant { subject, channels, expires_at, replay_since, headers })
    }

    fn rejection(&self, rejection: wit::Rejection) -> Result<Rejection, String> {
        let status = StatusCode::from_u16(rejection.status)
            .ok()
            .filter(|status| (200..=599).contains(&status.as_u16()))
            .ok_or_else(|| format!("the status {}: it is from 200 to 599", rejection.status))?;
        let mut headers = self.headers(&rejection.headers, rejection.body.len())?;
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
        let cors: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        for name in cors {
            headers.remove(name);
        }
        let is_stream = |value: &HeaderValue| {
            let kind = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            kind.eq_ignore_ascii_case(b"text/event-stream")
        };
        if headers.get_all("content-type").iter().any(is_stream) {
            return Err("a rejection that says it is an event stream".into());
        }
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        let body = if bodiless { Bytes::new() } else { rejection.body.into() };
        Ok(Rejection { status, headers, body })
    }

    fn headers(&self, headers: &[wit::Header], body: usize) -> Result<HeaderMap, String> {
        let size = headers.iter().fold(body, |sum, h| sum.saturating_add(h.name.len()).saturating_add(h.value.len()));
        if size > self.limit {
            return Err(format!("{size} bytes, of at most {} (policy.max-answer)", self.limit));
        }
        if headers.len() > MAX_HEADERS {
            return Err(format!("{} headers, of at most {MAX_HEADERS}", headers.len()));
        }
        let mut map = HeaderMap::new();
        for header in headers {
            let bad = |what| format!("a header with an invalid {what}: {:?}", short(&header.name));
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| bad("name"))?;
            let value = HeaderValue::from_bytes(&header.value).map_err(|_| bad("value"))?;
            map.append(name, value);
        }
        Ok(map)
    }
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> AnswerCheck<'static> {
        static CHANNELS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| vec!["a".into(), "b".into()]);
        AnswerCheck { channels: &CHANNELS, limit: 1000, now: 5_000, replay_since: Some(7) }
    }

    fn header(name: &str, value: &str) -> wit::Header {
        wit::Header { name: name.into(), value: value.into() }
    }

    fn grant() -> wit::Grant {
        wit::Grant { subject: None, channels: None, expires_at: None, headers: vec![] }
    }

    fn rejection(status: u16, headers: Vec<wit::Header>, body: &str) -> wit::Rejection {
        wit::Rejection { status, headers, body: body.into() }
    }

    #[test]
    fn grants() {
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
    fn rejections() {
        let ask = |rejection| match check().outcome(Err(rejection)) {
            Outcome::Rejected(r) => Ok((r.status.as_u16(), r.headers.len(), r.body)),
            Outcome::Failed(failure) => Err(failure.to_string()),
            Outcome::Allowed(_) => panic!("a rejection never allows"),
        };
        assert_eq!(ask(rejection(403, vec![header("x-a", "b")], "no")), Ok((403, 1, "no".into())));
        assert_eq!(ask(rejection(200, vec![], "no")), Ok((200, 0, "no".into())));
        assert_eq!(ask(rejection(204, vec![], "no")), Ok((204, 0, Bytes::new())));
        let owned = vec![
            header("Access-Control-Allow-Origin", "*"),
            header("Content-Length", "7"),
            header("Transfer-Encoding", "chunked"),
            header("location", "/login"),
        ];
        assert_eq!(ask(rejection(302, owned, "")), Ok((302, 1, Bytes::new())));
        for (bad, why) in [
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
            let error = ask(bad).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
