//! The client's address and scheme: those of the connection, or those that trusted proxies name.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::HeaderMap;

use crate::config::Config;
use crate::util::rare_log::RareLog;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The least time between two warnings of a kind: clients cause them, and must not fill the log.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The client's address, in canonical form. `None` if a trusted proxy does not name the client: the address of a proxy, or one that a
/// client wrote itself, could be trusted more than the client.
///
/// Each proxy appends the address of its peer, so the list is read from its end: the first address that is not a trusted proxy's is the
/// client. If all are, the client is in a trusted network itself, and is the first of the list.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, config: &Config) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if !config.is_trusted_proxy(peer) {
        return Some(peer);
    }
    let mut client = None;
    for element in from_the_end(headers, X_FORWARDED_FOR) {
        let address = parse_address(element)?;
        client = Some(address);
        if !config.is_trusted_proxy(address) {
            break;
        }
    }
    client
}

/// `https` if a trusted proxy says so, else `http`.
pub fn client_scheme(headers: &HeaderMap, peer: IpAddr, config: &Config) -> &'static str {
    let named = from_the_end(headers, X_FORWARDED_PROTO).next().filter(|_| config.is_trusted_proxy(peer));
    if named.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https")) { "https" } else { "http" }
}

/// The elements of a comma-separated header, the last one first. Any byte may occur in them.
fn from_the_end<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let fields: Vec<&[u8]> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    fields.into_iter().rev().flat_map(|field| field.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// An element of `X-Forwarded-For`: an address, perhaps with a port, as some proxies write it.
fn parse_address(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text.parse::<IpAddr>().ok().or_else(|| bracketed().map(IpAddr::V6));
    // A zone (`fe80::1%1`) has a meaning on the proxy's machine only.
    let with_port = || text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%'));
    Some(address.or_else(|| with_port().map(|address| address.ip()))?.to_canonical())
}

/// Warns the operator, at most once a minute for each kind, of requests whose forwarding headers do not fit `server.trusted-proxies`.
pub struct ForwardingWarnings {
    ignored: RareLog,
    unnamed: RareLog,
}

impl Default for ForwardingWarnings {
    fn default() -> Self {
        Self { ignored: RareLog::new(WARNING_INTERVAL), unnamed: RareLog::new(WARNING_INTERVAL) }
    }
}

impl ForwardingWarnings {
    /// Warns if the peer is not trusted but names another client, and if it is trusted but names none.
    pub fn check(&self, headers: &HeaderMap, peer: IpAddr, client: Option<IpAddr>) {
        let peer = peer.to_canonical();
        if client.is_none() {
            self.unnamed.write(|_| {
                tracing::warn!(
                    %peer,
                    "a trusted proxy names no client that can be read (X-Forwarded-For): the client's address is unknown"
                );
            });
        } else if client == Some(peer) && headers.contains_key(X_FORWARDED_FOR) {
            self.ignored.write(|_| {
                tracing::warn!(
                    %peer,
                    "ignored X-Forwarded-For: the peer is not in server.trusted-proxies; add it if it is your proxy"
                );
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn config(trusted: &str) -> Config {
        let raw = toml::from_str(&format!("allow-all = true\nserver.trusted-proxies = {trusted}"));
        Config::validate(raw.expect("TOML")).expect("valid")
    }

    fn headers(name: &'static str, fields: &[&[u8]]) -> HeaderMap {
        let value = |field: &&[u8]| (HeaderName::from_static(name), HeaderValue::from_bytes(field).expect("a value"));
        fields.iter().map(value).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn client_is_the_last_address_that_is_not_a_trusted_proxy() {
        let config = config("['10.0.0.0/8', '::1/128']");
        let check = |peer: &str, fields: &[&[u8]], expect: &str| {
            let client = client_address(&headers(X_FORWARDED_FOR, fields), ip(peer), &config);
            let text: Vec<_> = fields.iter().map(|field| String::from_utf8_lossy(field)).collect();
            assert_eq!(client.map_or_else(|| "unknown".into(), |client| client.to_string()), expect, "{peer} {text:?}");
        };
        // Only a trusted proxy names a client.
        check("192.0.2.1", &[], "192.0.2.1");
        check("192.0.2.1", &[b"203.0.113.9"], "192.0.2.1");
        check("::ffff:192.0.2.1", &[b"203.0.113.9"], "192.0.2.1");
        check("192.0.2.1", &[b"\xff"], "192.0.2.1");
        for peer in ["10.0.0.1", "::ffff:10.0.0.1", "::1"] {
            check(peer, &[b"203.0.113.9"], "203.0.113.9");
            check(peer, &[b"198.51.100.7, 203.0.113.9, 10.1.1.1"], "203.0.113.9");
            check(peer, &[b"203.0.113.9,::ffff:10.1.1.1"], "203.0.113.9");
            check(peer, &[b"198.51.100.7", b"203.0.113.9", b"10.1.1.1"], "203.0.113.9");
            // What the client wrote itself is to the left, and is not read.
            for own in
                [&b"\xff"[..], b"\x80, 1.1.1.1", b"junk", b"", b",", b"10.0.0.1, \xe9", b"unknown", b"\"", b"::1"]
            {
                check(peer, &[own, b"203.0.113.9"], "203.0.113.9");
                check(peer, &[&[own, b", 203.0.113.9"].concat()], "203.0.113.9");
                check(peer, &[&[own, b",203.0.113.9 , 10.1.1.1"].concat()], "203.0.113.9");
            }
            // Every form of one address.
            for form in [
                "203.0.113.9:4711",
                "::ffff:203.0.113.9",
                "::FFFF:cb00:7109",
                "[::ffff:203.0.113.9]",
                "[::ffff:203.0.113.9]:4711",
                " \t203.0.113.9\t ",
            ] {
                check(peer, &[form.as_bytes()], "203.0.113.9");
            }
            for form in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:4711", "2001:DB8:0:0:0:0:0:7"] {
                check(peer, &[form.as_bytes()], "2001:db8::7");
            }
            // All are trusted: the client is the one that is farthest away.
            check(peer, &[b"10.9.9.9, 10.1.1.1"], "10.9.9.9");
            check(peer, &[b"10.9.9.9", b"::1"], "10.9.9.9");
            // A trusted proxy that names no client: never the proxy's own address, and never one that is farther to the left.
            check(peer, &[], "unknown");
            for unreadable in [
                &b"\xff"[..],
                b"\xe9",
                b"junk",
                b"",
                b" ",
                b"unknown",
                b"_hidden",
                b"unix:",
                b"203.0.113.9 ,",
                b"203.0.113.9:",
                b"203.0.113.9:65536",
                b"203.0.113.9:x",
                b"203.0.113.9 198.51.100.7",
                b"0203.0.113.9",
                b"203.0.113",
                b"[203.0.113.9]",
                b"[2001:db8::7",
                b"2001:db8::7]",
                b"[]",
                b"[2001:db8::7]4711",
                b"fe80::1%eth0",
                b"[fe80::1%1]:80",
                b"\"203.0.113.9\"",
                b"for=203.0.113.9",
                b"203.0.113.9\xa0",
            ] {
                check(peer, &[unreadable], "unknown");
                check(peer, &[b"203.0.113.9", unreadable], "unknown");
                check(peer, &[&[b"203.0.113.9,", unreadable].concat()], "unknown");
                check(peer, &[&[unreadable, b", 10.1.1.1"].concat()], "unknown");
                check(peer, &[unreadable, b"::ffff:10.1.1.1"], "unknown");
            }
        }
    }

    #[test]
    fn networks_of_mapped_addresses_are_canonical() {
        for (trusted, peer, expect) in [
            ("['127.0.0.0/8']", "::ffff:127.0.0.1", true),
            ("['::ffff:127.0.0.0/104']", "127.0.0.1", true),
            ("['::ffff:127.0.0.0/104']", "::ffff:127.0.0.1", true),
            ("['::ffff:127.0.0.1/128']", "127.0.0.2", false),
            ("['::/0']", "127.0.0.1", false),
            ("['0.0.0.0/0']", "2001:db8::1", false),
        ] {
            assert_eq!(config(trusted).is_trusted_proxy(ip(peer)), expect, "{trusted} {peer}");
        }
        let raw = toml::from_str("allow-all = true\nserver.trusted-proxies = ['::ffff:127.0.0.0/8']").expect("TOML");
        let error = Config::validate(raw).expect_err("an IPv4 prefix on an IPv6 address").to_string();
        assert!(error.contains("server.trusted-proxies") && error.contains("127.0.0.0/8"), "{error}");
    }

    #[test]
    fn scheme_is_the_last_one_that_a_trusted_proxy_names() {
        let config = config("['10.0.0.0/8']");
        for (peer, fields, expect) in [
            ("10.0.0.1", &[&b"https"[..]][..], "https"),
            ("10.0.0.1", &[b" HTTPS "], "https"),
            ("10.0.0.1", &[b"http,https"], "https"),
            ("10.0.0.1", &[b"\xff", b"https"], "https"),
            ("::ffff:10.0.0.1", &[b"https"], "https"),
            ("10.0.0.1", &[b"https", b"http"], "http"),
            ("10.0.0.1", &[b"https,"], "http"),
            ("10.0.0.1", &[b"https\xff"], "http"),
            ("10.0.0.1", &[], "http"),
            ("192.0.2.1", &[b"https"], "http"),
        ] {
            let scheme = client_scheme(&headers(X_FORWARDED_PROTO, fields), ip(peer), &config);
            assert_eq!(scheme, expect, "{peer} {fields:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn warnings_are_at_least_a_minute_apart() {
        let log = RareLog::new(WARNING_INTERVAL);
        let is_due = || {
            let mut written = false;
            log.write(|_| written = true);
            written
        };
        assert!(is_due() && !is_due());
        tokio::time::advance(WARNING_INTERVAL - Duration::from_millis(1)).await;
        assert!(!is_due());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(is_due() && !is_due());
    }
}
