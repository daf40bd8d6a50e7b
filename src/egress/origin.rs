//! Where requests may go: a scheme, a host and a port, as the operator wrote them.

use http::Uri;
use http::uri::Scheme;
use url::Url;

/// A place that requests may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    secure: bool,
    /// In lower case; an IPv6 address has its brackets.
    host: String,
    port: u16,
    /// Whether it may be this machine or in its network.
    pub private: bool,
}

/// Why a text is no origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// It is no URL.
    #[error("it is no URL: one is written as https://auth.example or http://10.0.0.5:8000")]
    NotUrl,
    /// Some other scheme.
    #[error("its scheme is neither http nor https")]
    Scheme,
    /// More than an origin.
    #[error(
        "it is more than scheme, host and port: write it as https://auth.example, without a user, a path or a query"
    )]
    More,
}

impl Origin {
    /// Reads `scheme://host[:port]`.
    pub fn parse(text: &str, private: bool) -> Result<Self, OriginError> {
        let url = Url::parse(text).map_err(|_| OriginError::NotUrl)?;
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if !bare || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
            return Err(OriginError::More);
        }
        Self::of(&url, private)
    }

    /// The origin of a URL.
    pub fn of(url: &Url, private: bool) -> Result<Self, OriginError> {
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(OriginError::Scheme),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(OriginError::NotUrl)?.to_owned();
        let port = url.port_or_known_default().ok_or(OriginError::NotUrl)?;
        Ok(Self { secure, host, port, private })
    }

    /// The host, as it is resolved: without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether a request goes there. The host is compared as it stands: another spelling of the same is another host.
    #[must_use]
    pub fn matches(&self, uri: &Uri) -> bool {
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        if !secure && uri.scheme() != Some(&Scheme::HTTP) {
            return false;
        }
        let Some(authority) = uri.authority().filter(|authority| !authority.as_str().contains('@')) else {
            return false;
        };
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            // `host:` has a port, and none that is a number.
            None if authority.as_str().len() != authority.host().len() => return false,
            None if secure => 443,
            None => 80,
        };
        secure == self.secure && authority.host().eq_ignore_ascii_case(&self.host) && port == self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (text, private, error) in [
            ("https://auth.example/path", false, OriginError::More),
            ("https://auth.example?x", false, OriginError::More),
            ("https://u:p@auth.example", false, OriginError::More),
            ("ftp://auth.example", false, OriginError::Scheme),
            ("auth.example", false, OriginError::NotUrl),
            ("https://", false, OriginError::NotUrl),
            ("*", true, OriginError::NotUrl),
        ] {
            assert_eq!(Origin::parse(text, private), Err(error), "{text}");
        }
        let goes =
            |origin: &str, uri: &str| Origin::parse(origin, true).expect(origin).matches(&uri.parse().expect(uri));
        for (origin, uri) in [
            ("https://auth.example", "https://auth.example/a?b"),
            ("https://auth.example", "https://AUTH.example:443/"),
            ("https://Auth.Example:443/", "https://auth.example/"),
            ("https://auth.example:8443", "https://auth.example:8443/"),
            ("http://10.0.0.5:8000", "http://10.0.0.5:8000/"),
            ("http://[::1]:80", "http://[::1]/"),
            ("https://bücher.example", "https://xn--bcher-kva.example/"),
        ] {
            assert!(goes(origin, uri), "{origin} {uri}");
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
            assert!(!goes(origin, uri), "{origin} {uri}");
        }
    }
}
