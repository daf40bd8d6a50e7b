//! Who may use a port: the host that a request names, the page that it comes from, the token that it shows.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Request};
use subtle::ConstantTimeEq;

use crate::server::host::host;
use crate::util::hidden::Hidden;

/// Whether the request addresses an IP address or `localhost`: then no DNS name of another site was pointed at this machine.
pub fn host_is_address<B>(request: &Request<B>) -> bool {
    let Some(host) = host(request.headers()).and_then(|h| h.parse::<http::uri::Authority>().ok()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether a web page of another origin sent the request.
pub fn is_foreign_page<B>(request: &Request<B>) -> bool {
    let Some(origin) = request.headers().get(http::header::ORIGIN) else { return false };
    let host = host(request.headers()).unwrap_or_default();
    let origin = origin.to_str().unwrap_or_default();
    origin.split_once("://").is_none_or(|(_, from)| !from.eq_ignore_ascii_case(host))
}

/// Whether an origin is that of a page on this machine.
pub fn is_local_origin(origin: &str) -> bool {
    let url = url::Url::parse(origin).ok();
    url.is_some_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    })
}

/// Whether the request has one of these bearer tokens, compared in constant time.
pub fn shows_token<'a>(headers: &HeaderMap, tokens: impl IntoIterator<Item = &'a Hidden>) -> bool {
    let header = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let shown = match header.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
        _ => b"",
    };
    tokens.into_iter().fold(false, |any, token| any | bool::from(token.reveal().as_bytes().ct_eq(shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_origin_and_token_are_checked() {
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
            [("127.0.0.1:7080", true), ("[::1]:7080", true), ("localhost", true), ("evil.example", false), ("", false)]
        {
            assert_eq!(host_is_address(&request(host, None, None)), expect, "{host}");
        }
        let foreign = |host, origin| is_foreign_page(&request(host, Some(origin), None));
        assert!(!foreign("127.0.0.1:80", "http://127.0.0.1:80"));
        assert!(foreign("127.0.0.1:80", "http://evil.example") && foreign("127.0.0.1:80", "null"));
        for (origin, expect) in [
            ("http://localhost:3000", true),
            ("https://127.0.0.1", true),
            ("http://[::1]:80", true),
            ("http://192.0.2.1", false),
            ("http://localhost.evil.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(is_local_origin(origin), expect, "{origin}");
        }
        let tokens = ["one".into(), "two".into()];
        let shows = |token| shows_token(request("h", None, token).headers(), &tokens);
        assert!(shows(Some("Bearer two")) && shows(Some("bearer one")));
        assert!(!shows(Some("Bearer three")) && !shows(Some("two")) && !shows(None) && !shows(Some("Bearer ")));
    }
}
