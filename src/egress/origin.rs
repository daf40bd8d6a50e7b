//! Origins that outbound requests may go to: a scheme, a host and a port.

use http::Uri;
use http::uri::Scheme;
use url::Url;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressOrigin {
    scheme: Scheme,
    /// In lower case; an IPv6 address has its brackets.
    host: String,
    pub port: u16,
    /// Whether the host may have addresses of this machine or its network.
    pub allow_private: bool,
}

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
        Ok(Self { scheme, host, port, allow_private })
    }

    /// The host for resolution: without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
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

#[cfg(test)]
mod tests {
    use super::*;

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
