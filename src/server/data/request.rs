//! Stream requests: channels, acks and the client, as the policy sees them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use http::Request;

use crate::channel::membership::StartPosition;
use crate::config::Config;
use crate::policy::{self, request};
use crate::server::access::host;
use crate::stream::position::parse_ack;
use crate::util::id::random_id;

/// The channels of a URL and where each starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// Without duplicates, in the order of the URL.
    pub channels: Vec<String>,
    /// One for each channel; [`StartPosition::Tail`] without an ack.
    pub starts: Vec<StartPosition>,
}

/// An ack that is neither a time nor a stream id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither a time in ms (1732464000000) nor a stream id (1732464000000-0)")]
pub struct InvalidAck(pub String);

impl Query {
    /// Parses a query as `URLSearchParams` does.
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

/// The request as the policy sees it.
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
        id: random_id(),
        headers,
    }
}

/// The last address that is not a trusted proxy's.
fn forwarded_client(list: &str, config: &Config) -> Option<IpAddr> {
    let addresses = list.rsplit(',').map(|text| text.trim().parse::<IpAddr>().ok());
    addresses.map_while(|address| address).find(|address| !config.is_trusted_proxy(*address))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{COOKIE, HeaderValue};

    use super::*;
    use crate::event::StreamId;

    #[test]
    fn queries_are_parsed_as_url_search_params() {
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
        Config::validate(raw).expect("valid")
    }

    #[test]
    fn client_address_is_taken_from_trusted_proxies_only() {
        let config = config("[server]\ntrusted-proxies = [\"10.0.0.0/8\", \"::1/128\"]");
        let check = |peer: &str, forwarded: &str, expect: (&str, &str)| {
            let request = Request::get("/api/realtime?x=1")
                .header("host", "gate.example")
                .header("x-forwarded-for", forwarded)
                .header("x-forwarded-proto", "https")
                .body(())
                .expect("request");
            let parsed = for_policy(&request, SocketAddr::new(peer.parse().expect("ip"), 1), &config);
            assert_eq!((&*parsed.client_address, &*parsed.scheme), expect, "{peer} {forwarded}");
            assert_eq!((&*parsed.authority, &*parsed.path_with_query), ("gate.example", "/api/realtime?x=1"));
        };
        check("192.0.2.1", "203.0.113.9", ("192.0.2.1", "http"));
        check("10.0.0.1", "203.0.113.9", ("203.0.113.9", "https"));
        check("10.0.0.1", "198.51.100.7, 203.0.113.9, 10.1.1.1", ("203.0.113.9", "https"));
        check("10.0.0.1", "203.0.113.9, junk", ("10.0.0.1", "https"));
        check("::ffff:192.0.2.1", "203.0.113.9", ("192.0.2.1", "http"));
    }

    #[test]
    fn cookie_headers_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=b"));
        headers.append(COOKIE, HeaderValue::from_static("session=s"));
        request::join_cookies(&mut headers);
        let all: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(all, ["a=b; session=s"]);
    }
}
