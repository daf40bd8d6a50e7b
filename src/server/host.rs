//! The host that a request names, after RFC 9110 (7.2), RFC 9112 (3.2) and RFC 9113 (8.3.1).

use std::net::Ipv6Addr;

use http::header::{HOST, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Request, Version};

/// Why the host of a request is not valid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; right would be one Host header such as gate.example or 127.0.0.1:8080")]
pub struct InvalidHost(&'static str);

/// Checks the host and sets the `Host` header to that of the request target, if that has one (absolute form, `:authority`): all who read
/// the request see the same host. Only a request of HTTP/1.0 may name none.
pub fn normalize_host<B>(request: &mut Request<B>) -> Result<(), InvalidHost> {
    let field = host_field(request.headers())?;
    let target = request.uri().authority().map(Authority::as_str);
    if ![field, target].into_iter().flatten().all(is_host) {
        return Err(InvalidHost("the host is not a name or an IP address with an optional port"));
    }
    let is_http1 = request.version() <= Version::HTTP_11;
    let is_missing = match request.version() {
        Version::HTTP_09 | Version::HTTP_10 => false,
        Version::HTTP_11 => field.is_none(),
        _ => field.or(target).is_none(),
    };
    if is_missing {
        return Err(InvalidHost("the request names no host: the Host header is missing"));
    }
    if let (Some(field), Some(target)) = (field, target)
        && !is_http1
        && !field.eq_ignore_ascii_case(target)
    {
        return Err(InvalidHost("the Host header and :authority differ"));
    }
    if let Some(target) = target.and_then(|target| HeaderValue::from_str(target).ok()) {
        request.headers_mut().insert(HOST, target);
    }
    Ok(())
}

/// The host and port that a request names, after [`normalize_host`]; `None` for one of HTTP/1.0 that names none.
pub fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST)?.to_str().ok()
}

/// The only `Host` header.
fn host_field(headers: &HeaderMap) -> Result<Option<&str>, InvalidHost> {
    let mut fields = headers.get_all(HOST).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(InvalidHost("the request has several Host headers"));
    }
    field.to_str().map(Some).map_err(|_| InvalidHost("the Host header has bytes that are not ASCII"))
}

/// Whether this is a host with an optional port, and nothing else.
fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let host = authority.host();
    let is_literal = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let is_name = !host.is_empty() && !host.contains(['[', ']']);
    // The port may be missing or empty; a sign is not part of it, though `parse` accepts one.
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let rest = text.strip_prefix(host).filter(|_| !text.contains('@'));
    let port = rest.is_some_and(|rest| matches!(rest, "" | ":") || rest.strip_prefix(':').is_some_and(is_port));
    (is_name || is_literal().is_some()) && port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_a_name_or_an_address_with_an_optional_port() {
        for valid in [
            "gate.example",
            "gate.example:443",
            "gate.example:",
            "GATE",
            "my_service:80",
            "xn--gte-5na.example",
            "127.0.0.1",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:7080",
            "[::ffff:127.0.0.1]:1",
            "a,b",
            "localhost.",
        ] {
            assert!(is_host(valid), "{valid:?}");
        }
        for invalid in [
            "",
            ":80",
            "h/x",
            "h/x?y",
            "h?y",
            "h#f",
            "/",
            "user@h",
            "user:pw@h:80",
            "@h",
            "h@",
            "a b",
            " ",
            "h:x",
            "h:80:80",
            "h:65536",
            "h:-1",
            "h:+1",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[h]",
            "[::1%1]",
            "[::1]x",
            "[::1]80",
            "x[::1]",
            "http://h",
            "h\\x",
            "h\u{e9}",
            "h%00",
            "\"h\"",
            "<h>",
            "h\t",
            "*/",
        ] {
            assert!(!is_host(invalid), "{invalid:?}");
        }
    }

    #[test]
    fn target_replaces_the_host_header_and_versions_differ() {
        let check = |version, target: &str, hosts: &[&[u8]], expect: Option<&str>| {
            let mut request = Request::get(target).version(version).body(()).expect("a request");
            for host in hosts {
                request.headers_mut().append(HOST, HeaderValue::from_bytes(host).expect("a value"));
            }
            let result =
                normalize_host(&mut request).ok().map(|()| host(request.headers()).unwrap_or_default().to_owned());
            assert_eq!(result.as_deref(), expect, "{version:?} {target} {hosts:?}");
        };
        let (http10, http11, http2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for version in [http10, http11, http2] {
            check(version, "/", &[b"h"], Some("h"));
            check(version, "/", &[b"H:80"], Some("H:80"));
            check(version, "http://h/", &[b"h"], Some("h"));
            for invalid in [
                &[&b""[..]][..],
                &[b"h/x?y"],
                &[b"u@h"],
                &[b"a b"],
                &[b"h\xff"],
                &[b"h", b"h"],
                &[b"h", b"x"],
                &[b"h", b""],
            ] {
                check(version, "/", invalid, None);
                check(version, "http://h/", invalid, None);
            }
            check(version, "http://u@h/", &[b"h"], None);
            check(version, "http://u:p@h:80/", &[b"u:p@h:80"], None);
        }
        check(http10, "/", &[], Some(""));
        check(http10, "http://uri.example/", &[], Some("uri.example"));
        check(http11, "/", &[], None);
        check(http11, "http://uri.example/", &[], None);
        check(http2, "/", &[], None);
        check(http2, "http://uri.example:81/", &[], Some("uri.example:81"));
        check(http11, "http://uri.example/x", &[b"header.example"], Some("uri.example"));
        check(http11, "https://uri.example:444", &[b"header.example"], Some("uri.example:444"));
        check(http2, "http://uri.example/", &[b"header.example"], None);
        check(http2, "http://uri.example/", &[b"URI.example"], Some("uri.example"));
    }
}
