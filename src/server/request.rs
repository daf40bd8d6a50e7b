//! What a request says: channels, acks, who sends it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::channel::membership::StartPosition;
use crate::config::Config;
use crate::policy;
use crate::policy::request;
use crate::server::respond::{Response, error};
use crate::stream::position::parse_ack;

/// The channels of a URL, and where each shall start.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// Without repeats, in the order of the URL.
    pub channels: Vec<String>,
    /// One a channel; [`StartPosition::Tail`] where the URL says nothing.
    pub starts: Vec<StartPosition>,
}

/// A parameter that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither a time in ms (1732464000000) nor a stream id (1732464000000-0)")]
pub struct InvalidAck(pub String);

impl Query {
    /// Reads a query as `URLSearchParams` does.
    pub fn parse(query: &str) -> Result<Self, InvalidAck> {
        let channels = request::channels(query);
        let mut acks: HashMap<String, String> = HashMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if let Some(channel) = name.strip_prefix("last_ack_") {
                acks.entry(channel.to_owned()).or_insert_with(|| value.into_owned());
            }
        }
        let start = |channel: &String| match acks.get(channel) {
            None => Ok(StartPosition::Tail),
            Some(ack) => parse_ack(ack).ok_or_else(|| InvalidAck(format!("last_ack_{channel}"))),
        };
        let starts = channels.iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self { channels, starts })
    }
}

/// The bytes of a request's line and headers, about as they were sent.
pub fn head_size<B>(request: &Request<B>) -> usize {
    let line = request.uri().path_and_query().map_or(0, |p| p.as_str().len()) + request.method().as_str().len();
    request.headers().iter().fold(line, |sum, (name, value)| sum + name.as_str().len() + value.len() + 4)
}

/// The request as a policy is told of it.
pub fn for_policy<B>(request: &Request<B>, peer: SocketAddr, config: &Config) -> policy::Request {
    let mut headers = request.headers().clone();
    request::join_cookies(&mut headers);
    let trusted = config.is_trusted_proxy(peer.ip());
    let forwarded =
        |name: &str| headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",");
    let scheme = match forwarded("x-forwarded-proto").rsplit(',').next().map(str::trim) {
        Some(scheme @ ("http" | "https")) if trusted => scheme.to_owned(),
        _ => "http".to_owned(),
    };
    let client = if trusted { forwarded_client(&forwarded("x-forwarded-for"), config) } else { None };
    policy::Request {
        method: request.method().to_string(),
        scheme,
        authority: host(request).unwrap_or_default(),
        path_with_query: request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        client_address: client.unwrap_or(peer.ip()).to_canonical().to_string(),
        id: format!("{:016x}", rand::random::<u64>()),
        headers,
    }
}

/// The last address that is not a trusted proxy's own.
fn forwarded_client(list: &str, config: &Config) -> Option<IpAddr> {
    let addresses = list.rsplit(',').map(|text| text.trim().parse::<IpAddr>().ok());
    addresses.map_while(|address| address).find(|address| !config.is_trusted_proxy(*address))
}

/// The host and port that the client named.
pub fn host<B>(request: &Request<B>) -> Option<String> {
    let from_uri = request.uri().authority().map(ToString::to_string);
    from_uri.or_else(|| request.headers().get(HOST)?.to_str().ok().map(str::to_owned))
}

/// Whether the host that was named can only be this machine's own address, so that no foreign name was pointed here.
pub fn host_is_address<B>(request: &Request<B>) -> bool {
    let Some(host) = host(request).and_then(|h| h.parse::<http::uri::Authority>().ok()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether a web page of another origin sent this.
pub fn is_foreign_page<B>(request: &Request<B>) -> bool {
    let Some(origin) = request.headers().get(http::header::ORIGIN) else { return false };
    let host = host(request).unwrap_or_default();
    let origin = origin.to_str().unwrap_or_default();
    origin.split_once("://").is_none_or(|(_, from)| !from.eq_ignore_ascii_case(&host))
}

/// Whether the request shows one of these bearer tokens; takes as long for a wrong one as for a right one.
pub fn shows_token<'a>(headers: &HeaderMap, tokens: impl IntoIterator<Item = &'a String>) -> bool {
    let header = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let shown = match header.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
        _ => b"",
    };
    tokens.into_iter().fold(false, |any, token| any | bool::from(token.as_bytes().ct_eq(shown)))
}

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
            Self::Broken => "body_broken",
            Self::Slow => "body_too_slow",
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
        return Err(Box::new(error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", text)));
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
    use http::HeaderMap;
    use http::header::COOKIE;

    use super::*;
    use crate::event::StreamId;

    #[test]
    fn queries() {
        let check = |query: &str, expect: &[(&str, StartPosition)]| {
            let parsed = Query::parse(query).expect(query);
            let parsed: Vec<_> = parsed.channels.iter().map(|c| &**c).zip(parsed.starts.iter().copied()).collect();
            assert_eq!(parsed, expect, "{query}");
        };
        let time = |ms| StartPosition::From(StreamId::new(ms, 0));
        check("", &[("default", StartPosition::Tail)]);
        check("x=y", &[("default", StartPosition::Tail)]);
        check("channel=", &[("", StartPosition::Tail)]);
        check("channel=a&channel=b&channel=a", &[("a", StartPosition::Tail), ("b", StartPosition::Tail)]);
        check("channel=a+b&last_ack_a%20b=5", &[("a b", time(5))]);
        check(
            "channel=%F0%9F%8E%89%2B&last_ack_%F0%9F%8E%89%2B=5-1",
            &[("🎉+", StartPosition::Id(StreamId::new(5, 1)))],
        );
        check("channel=%ff", &[("\u{fffd}", StartPosition::Tail)]);
        check("last_ack_a=7&channel=a&last_ack_a=8", &[("a", time(7))]);
        check("last_ack_default=7", &[("default", time(7))]);
        check("channel=a&last_ack_b=abc", &[("a", StartPosition::Tail)]);
        for (query, name) in [
            ("channel=a&last_ack_a=abc", "last_ack_a"),
            ("channel=a&last_ack_a=", "last_ack_a"),
            ("channel=a&last_ack_a=1-2-3", "last_ack_a"),
            ("channel=a&last_ack_a=99999999999999999999", "last_ack_a"),
            ("last_ack_default=x", "last_ack_default"),
        ] {
            assert_eq!(Query::parse(query), Err(InvalidAck(name.into())), "{query}");
        }
    }

    fn config(extra: &str) -> Config {
        let raw = toml::from_str(&format!("allow-all = true\n{extra}")).expect("toml");
        Config::check(raw).expect("valid")
    }

    #[test]
    fn clients_behind_proxies() {
        let config = config("[server]\ntrusted-proxies = [\"10.0.0.0/8\", \"::1/128\"]");
        let check = |peer: &str, forwarded: &str, expect: (&str, &str)| {
            let request = Request::get("/api/realtime?x=1")
                .header("host", "gate.example")
                .header("x-forwarded-for", forwarded)
                .header("x-forwarded-proto", "https")
                .body(())
                .expect("request");
            let told = for_policy(&request, SocketAddr::new(peer.parse().expect("ip"), 1), &config);
            assert_eq!((&*told.client_address, &*told.scheme), expect, "{peer} {forwarded}");
            assert_eq!((&*told.authority, &*told.path_with_query), ("gate.example", "/api/realtime?x=1"));
        };
        check("192.0.2.1", "203.0.113.9", ("192.0.2.1", "http"));
        check("10.0.0.1", "203.0.113.9", ("203.0.113.9", "https"));
        check("10.0.0.1", "198.51.100.7, 203.0.113.9, 10.1.1.1", ("203.0.113.9", "https"));
        check("10.0.0.1", "203.0.113.9, junk", ("10.0.0.1", "https"));
        check("::ffff:192.0.2.1", "203.0.113.9", ("192.0.2.1", "http"));
    }

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

    #[test]
    fn cookies_are_one() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=b"));
        headers.append(COOKIE, HeaderValue::from_static("session=s"));
        request::join_cookies(&mut headers);
        let all: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(all, ["a=b; session=s"]);
    }

    #[test]
    fn who_may_drive_a_port() {
        let request = |host: &str, origin: Option<&str>, token: Option<&str>| {
            let mut builder = Request::get("/").header("host", host);
            if let Some(origin) = origin {
                builder = builder.header("origin", origin);
            }
            if let Some(token) = token {
                builder = builder.header("authorization", token);
            }
            builder.body(()).expect("request")
        };
        for (host, expect) in
            [("127.0.0.1:9090", true), ("[::1]:9090", true), ("localhost", true), ("evil.example", false), ("", false)]
        {
            assert_eq!(host_is_address(&request(host, None, None)), expect, "{host}");
        }
        let foreign = |host, origin| is_foreign_page(&request(host, Some(origin), None));
        assert!(!foreign("127.0.0.1:80", "http://127.0.0.1:80"));
        assert!(foreign("127.0.0.1:80", "http://evil.example") && foreign("127.0.0.1:80", "null"));
        let tokens = vec!["one".to_owned(), "two".to_owned()];
        let shows = |token| shows_token(request("h", None, token).headers(), &tokens);
        assert!(shows(Some("Bearer two")) && shows(Some("bearer one")));
        assert!(!shows(Some("Bearer three")) && !shows(Some("two")) && !shows(None) && !shows(Some("Bearer ")));
    }
}
