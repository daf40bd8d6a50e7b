//! The URL of a store. It may have a password, so it is displayed without one.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use redis::{Client, IntoConnectionInfo, ProtocolVersion, TlsCertificates};

/// The URL of a store.
#[derive(Clone)]
pub enum StoreUrl {
    /// In this process.
    Memory,
    /// `redis://`, `rediss://` or `redis+unix://`.
    Redis {
        /// How to connect.
        info: Box<redis::ConnectionInfo>,
        /// The URL without user, password and query.
        shown: String,
    },
}

/// What is wrong with a URL, without quoting it.
#[derive(Debug, thiserror::Error)]
pub enum StoreUrlError {
    /// Another scheme, or none.
    #[error(
        "not a store that Tidegate knows: it begins with memory:, redis://, rediss:// or redis+unix://, \
         as in redis://user:password@127.0.0.1:6379/0"
    )]
    Scheme,
    /// The rest does not parse.
    #[error(
        "not a valid Redis URL ({0}); right would be redis://user:password@127.0.0.1:6379/0 or redis+unix:///path/to.sock"
    )]
    Invalid(String),
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        if matches!(text, "memory:" | "memory://" | "memory") {
            return Ok(Self::Memory);
        }
        let url = url::Url::parse(text).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => StoreUrlError::Scheme,
            other => StoreUrlError::Invalid(other.to_string()),
        })?;
        if !matches!(url.scheme(), "redis" | "rediss" | "redis+unix") {
            return Err(StoreUrlError::Scheme);
        }
        let info = text.into_connection_info().map_err(|error| StoreUrlError::Invalid(error.to_string()))?;
        // Notifications arrive as push messages, which RESP3 has.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = Box::new(info.set_redis_settings(settings));
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self::Redis { info, shown: format!("{}://{host}{port}{}", url.scheme(), url.path()) })
    }
}

impl StoreUrl {
    /// A client for a Redis; `None` for `memory:`. `ca` is a PEM file of roots to trust in place of the system's.
    pub fn client(&self, ca: Option<&Path>) -> anyhow::Result<Option<Client>> {
        let Self::Redis { info, .. } = self else { return Ok(None) };
        let info = (**info).clone();
        let client = match ca {
            None => Client::open(info)?,
            Some(path) => {
                let pem = std::fs::read(path).with_context(|| format!("store-ca: cannot read {}", path.display()))?;
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) })?
            }
        };
        Ok(Some(client))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory:",
            Self::Redis { shown, .. } => shown,
        })
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let check = |text: &str, expect: &str| {
            let url: StoreUrl = text.parse().expect("a store URL");
            assert_eq!(url.to_string(), expect);
            assert_eq!(format!("{url:?}"), expect);
        };
        check("memory:", "memory:");
        check("redis://127.0.0.1:6380/2", "redis://127.0.0.1:6380/2");
        check("rediss://ann:s3cret@redis.example/1", "rediss://redis.example/1");
        check("redis://:s3cret@h:1", "redis://h:1");
        check("redis+unix:///run/redis.sock?db=1&user=ann&pass=s3cret", "redis+unix:///run/redis.sock");
        for bad in ["", "localhost", "http://ann:s3cret@h", "redis://ann:s3cret@h:99999", "redis://ann:s3cret@h/x"] {
            let error = bad.parse::<StoreUrl>().expect_err(bad).to_string();
            assert!(!error.contains("s3cret") && error.contains("redis://user:password@"), "{error}");
        }
    }
}
