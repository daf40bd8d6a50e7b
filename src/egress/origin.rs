//! Origins that outbound requests may go to: a scheme, a host and a port.

use http::Uri;
use http::uri::Scheme;
use url::Url;

use crate::egress::address::{self, AddressKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressOrigin {
    scheme: Scheme,
    /// In lower case; an IPv6 address has its brackets.
    host: String,
    pub port: u16,
    /// Whether the host may have addresses of this machine or its network.
    pub allow_private: bool,
}

/// Why a text is not an origin, or one that no request can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("not a URL: expected an origin such as https://auth.example or http://10.0.0.5:8000")]
    NotUrl,
    #[error("the scheme is neither http nor https")]
    Scheme,
    #[error(
        "not an origin: expected a scheme, host and port such as https://auth.example, without a user, a path or a query"
    )]
    NotAnOrigin,
    #[error(
        "not the name of a host, which has only letters, digits, -, _ and dots, and no *: write each origin, such as https://auth.example"
    )]
    Host,
    #[error("no server listens on port 0")]
    Port,
    #[error(
        "link-local, multicast and reserved addresses, and metadata services of clouds, are never contacted: name another host"
    )]
    Forbidden,
    #[error("an address of this machine or its network: set allow-private = true for a service in your own network")]
    Private,
}

impl EgressOrigin {
    /// Parses `scheme://host[:port]`.
    pub fn parse(text: &str, allow_private: bool) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|_| OriginError::NotUrl)?;
        let has_no_extras = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if !has_no_extras || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
            return Err(OriginError::NotAnOrigin);
        }
        Self::of(&url, allow_private)
    }

    /// The origin of a URL.
    pub fn of(url: &Url, allow_private: bool) -> Result<Self, OriginError> {
        let scheme = match url.scheme() {
            "https" => Scheme::HTTPS,
            "http" => Scheme::HTTP,
            _ => return Err(OriginError::Scheme),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(OriginError::NotUrl)?.to_owned();
        let port = url.port_or_known_default().ok_or(OriginError::NotUrl)?;
        if !is_host_name(&host) {
            return Err(OriginError::Host);
        }
        if port == 0 {
            return Err(OriginError::Port);
        }
        Ok(Self { scheme, host, port, allow_private })
    }

    /// Fails if no request reaches this origin, whatever its name resolves to.
    pub fn check_reachable(&self) -> Result<(), OriginError> {
        let is_local = || self.host == "localhost" || self.host.ends_with(".localhost");
        let kind = self
            .host()
            .parse()
            .map_or_else(|_| if is_local() { AddressKind::Private } else { AddressKind::Public }, address::classify);
        match kind {
            AddressKind::Forbidden => Err(OriginError::Forbidden),
            AddressKind::Private if !self.allow_private => Err(OriginError::Private),
            AddressKind::Private | AddressKind::Public => Ok(()),
        }
    }

    /// The host for resolution: without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether both have the same scheme, host and port.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.scheme, &self.host, self.port) == (&other.scheme, &other.host, other.port)
    }

    /// Whether a URI has this origin. Hosts are compared as text: another spelling of the same address does not match.
    pub fn matches(&self, uri: &Uri) -> bool {
        let Some(authority) = uri.authority().filter(|authority| !authority.as_str().contains('@')) else {
            return false;
        };
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // `host:` or `host:x`: a port that is not a number.
            None if authority.as_str().len() != authority.host().len() => return false,
            None if self.scheme == Scheme::HTTPS => 443,
            None => 80,
        };
        uri.scheme() == Some(&self.scheme) && authority.host().eq_ignore_ascii_case(&self.host) && port == self.port
    }
}

/// Whether a URL's host is one that can exist: a name, or an address. `Url` accepts other characters, such as `*`.
pub fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    host.starts_with('[') || (name.len() <= 253 && name.split('.').all(is_label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_that_no_request_reaches_are_refused() {
        use OriginError::{Forbidden, Private};
        let check = |text: &str, allow_private| EgressOrigin::parse(text, allow_private).expect(text).check_reachable();
        for (text, without, with) in [
            ("https://auth.example", Ok(()), Ok(())),
            ("https://1.1.1.1", Ok(()), Ok(())),
            ("http://10.0.0.5:8000", Err(Private), Ok(())),
            ("http://127.0.0.1", Err(Private), Ok(())),
            ("http://127.1", Err(Private), Ok(())),
            ("http://[::1]", Err(Private), Ok(())),
            ("http://localhost:8000", Err(Private), Ok(())),
            ("http://auth.localhost", Err(Private), Ok(())),
            ("http://169.254.169.254", Err(Forbidden), Err(Forbidden)),
            ("http://0.0.0.0", Err(Forbidden), Err(Forbidden)),
            ("http://[fe80::1]", Err(Forbidden), Err(Forbidden)),
        ] {
            assert_eq!((check(text, false), check(text, true)), (without, with), "{text}");
        }
    }

    #[test]
    fn origins_are_parsed_and_matched() {
        for (text, private, error) in [
            ("https://auth.example/path", false, OriginError::NotAnOrigin),
            ("https://auth.example?x", false, OriginError::NotAnOrigin),
            ("https://u:p@auth.example", false, OriginError::NotAnOrigin),
            ("ftp://auth.example", false, OriginError::Scheme),
            ("auth.example", false, OriginError::NotUrl),
            ("https://", false, OriginError::NotUrl),
            ("*", true, OriginError::NotUrl),
            ("auth.example:443", false, OriginError::NotAnOrigin),
            ("https://*.example.com", false, OriginError::Host),
            ("https://*", false, OriginError::Host),
            ("https://a.example,b.example", false, OriginError::Host),
            ("https://.example.com", false, OriginError::Host),
            ("https://auth..example", false, OriginError::Host),
            ("https://auth.example:*", false, OriginError::NotUrl),
            ("https://auth.example:0", false, OriginError::Port),
        ] {
            assert_eq!(EgressOrigin::parse(text, private), Err(error), "{text}");
        }
        let matches = |origin: &str, uri: &str| {
            EgressOrigin::parse(origin, true).expect(origin).matches(&uri.parse().expect(uri))
        };
        for (origin, uri) in [
            ("https://auth.example", "https://auth.example/a?b"),
            ("https://auth.example", "https://AUTH.example:443/"),
            ("https://Auth.Example:443/", "https://auth.example/"),
            ("https://auth.example:8443", "https://auth.example:8443/"),
            ("http://10.0.0.5:8000", "http://10.0.0.5:8000/"),
            ("http://[::1]:80", "http://[::1]/"),
            ("https://bücher.example", "https://xn--bcher-kva.example/"),
        ] {
            assert!(matches(origin, uri), "{origin} {uri}");
        }
        for (origin, uri) in [
            ("https://auth.example", "http://auth.example:443/"),
            ("https://auth.example", "https://auth.example:444/"),
            ("https://auth.example", "https://auth.example./"),
            ("https://auth.example", "https://auth.example.evil/"),
            ("https://auth.example", "https://evil-auth.example/"),
            ("https://auth.example", "https://auth.example@evil/"),
            ("https://auth.example", "https://evil@auth.example/"),
            ("https://auth.example", "/a"),
            ("http://127.0.0.1:80", "http://127.1/"),
            ("http://127.0.0.1:80", "http://2130706433/"),
            ("http://127.0.0.1:80", "http://[::ffff:127.0.0.1]/"),
        ] {
            assert!(!matches(origin, uri), "{origin} {uri}");
        }
    }
}
