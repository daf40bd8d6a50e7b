//! Reads requests, for the gateway and for test cases alike.

use std::collections::HashSet;
use std::net::{AddrParseError, IpAddr};

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

/// The channels that a query names, parsed like `URLSearchParams`: in the order of the URL, without duplicates; `default` if there are
/// none.
pub fn channels(query: &str) -> Vec<String> {
    let named = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "channel");
    let mut channels: Vec<String> = named.map(|(_, value)| value.into_owned()).collect();
    if channels.is_empty() {
        channels.push("default".into());
    }
    if channels.len() > 1 {
        let mut unique = HashSet::with_capacity(channels.len());
        channels.retain(|channel| unique.insert(channel.clone()));
    }
    channels
}

/// Whether a query parameter of this name has a position of the client. The decision does not depend on it.
pub fn is_position(name: &str) -> bool {
    name.starts_with("last_ack_") || is_last_event_id(name)
}

/// Whether a query parameter of this name counts as the header `Last-Event-ID`, which scripts in browsers cannot set. Each polyfill has
/// its own spelling.
pub fn is_last_event_id(name: &str) -> bool {
    ["lastEventId", "last-event-id"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The reverse of [`Request::client_address_text`](crate::policy::Request::client_address_text).
pub fn parse_client_address(text: &str) -> Result<Option<IpAddr>, AddrParseError> {
    if text.is_empty() { Ok(None) } else { text.parse::<IpAddr>().map(|address| Some(address.to_canonical())) }
}

/// Joins the cookie fields, which browsers may split over HTTP/2, so that a policy sees one.
pub fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}
