//! Stream requests: channels, acks and the client, as the policy sees them.

use std::collections::HashMap;
use std::net::SocketAddr;

use http::Request;
use http::uri::PathAndQuery;

use crate::channel::cursor::StartPosition;
use crate::config::Config;
use crate::policy::{self, request};
use crate::server::data::client_address::{client_address, client_scheme};
use crate::server::host::host;
use crate::stream::position::parse_ack;
use crate::util::id::random_id;

/// The channels of a URL and where each starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// Without duplicates, in the order of the URL.
    pub channels: Vec<String>,
    /// One for each channel; [`StartPosition::Tail`] without an ack.
    pub starts: Vec<StartPosition>,
    /// What counts as the header `Last-Event-ID`. Of several the last one, because polyfills append it. An empty one does not count.
    pub last_event_id: Option<String>,
}

/// An ack that is neither a time nor a stream id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither a time in ms (1732464000000) nor a stream id (1732464000000-0)")]
pub struct InvalidAck(pub String);

impl Query {
    /// Parses a query as `URLSearchParams` does.
    pub fn parse(query: &str) -> Result<Self, InvalidAck> {
        let channels = request::channels(query);
        let (mut acks, mut last_event_id) = (HashMap::<String, String>::new(), None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if let Some(channel) = name.strip_prefix("last_ack_") {
                acks.entry(channel.to_owned()).or_insert_with(|| value.into_owned());
            } else if request::is_last_event_id(&name) && !value.is_empty() {
                last_event_id = Some(value.into_owned());
            }
        }
        let start = |channel: &String| match acks.get(channel) {
            None => Ok(StartPosition::Tail),
            Some(ack) => parse_ack(ack).ok_or_else(|| InvalidAck(format!("last_ack_{channel}"))),
        };
        let starts = channels.iter().map(start).collect::<Result<_, _>>()?;
        Ok(Self { channels, starts, last_event_id })
    }
}

/// The request as the policy sees it, with its headers, which are moved there.
pub fn for_policy<B>(request: &mut Request<B>, peer: SocketAddr, config: &Config) -> policy::Request {
    let mut headers = std::mem::take(request.headers_mut());
    let scheme = client_scheme(&headers, peer.ip(), config).to_owned();
    let authority = host(&headers).unwrap_or_default().to_owned();
    let client_address = client_address(&headers, peer.ip(), config);
    request::join_cookies(&mut headers);
    policy::Request {
        method: request.method().as_str().to_owned(),
        scheme,
        authority,
        path_with_query: request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned(),
        client_address,
        id: random_id(),
        headers,
    }
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

    #[test]
    fn last_event_id_of_a_query_is_the_last_one_that_is_not_empty() {
        let check = |query: &str, expect: Option<&str>| {
            let parsed = Query::parse(query).expect(query);
            assert_eq!(
                (parsed.last_event_id.as_deref(), &parsed.starts[..]),
                (expect, &[StartPosition::Tail][..]),
                "{query}"
            );
        };
        check("channel=a", None);
        check("channel=a&lastEventId=", None);
        check("channel=a&lastEventId=x%3A1-0", Some("x:1-0"));
        check("last-event-id=1-0&channel=a", Some("1-0"));
        check("Last-Event-ID=1-0&channel=a", Some("1-0"));
        check("channel=a&lastEventID=1-0", Some("1-0"));
        check("channel=a&lastEventId=1-0&lastEventId=2-0&last-event-id=", Some("2-0"));
        check("channel=a&lastEventId=%ff", Some("\u{fffd}"));
        check("channel=lastEventId&x=lastEventId&last_ack_a=5", None);
        check("channel=a&last_event_id=5&xlastEventId=5", None);
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
