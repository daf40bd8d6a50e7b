//! The URL of a store. It may contain a password, so `Display` and `Debug` omit user, password and query.

mod list;

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use url::{ParseError, Position, Url};

use crate::store::url::list::ListScheme;

#[derive(Clone)]
pub enum StoreUrl {
    /// `memory:`, in this process.
    Memory,
    Redis(Box<RedisUrl>),
}

/// The URL of a Redis, in one of its topologies.
#[derive(Clone)]
pub struct RedisUrl {
    pub topology: Topology,
    /// User and password of the data nodes, and the number of the database.
    pub settings: RedisConnectionInfo,
    /// Whether connections use TLS, those to sentinels as well.
    pub has_tls: bool,
    /// The URL without user, password and query.
    shown: String,
}

/// The topology of a Redis, with the addresses of a URL.
#[derive(Clone, Debug)]
pub enum Topology {
    /// One server: `redis://`, `rediss://` or `redis+unix://`.
    Single(ConnectionAddr),
    /// Some nodes of a cluster, which know the others: `redis-cluster://`, `rediss-cluster://`.
    Cluster(Vec<Address>),
    /// Some sentinels, which know the others and the master of this name: `redis-sentinel://`, `rediss-sentinel://`.
    Sentinel { sentinels: Vec<Address>, master: String },
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
}

/// Why a text is not a store URL. The error does not contain the text.
#[derive(Debug, thiserror::Error)]
pub enum StoreUrlError {
    #[error(
        "not a store that Tidegate supports: expected memory:, redis://, rediss://, redis+unix://, redis-cluster://, rediss-cluster://, \
         redis-sentinel:// or rediss-sentinel://, such as redis://user:password@127.0.0.1:6379/0"
    )]
    Scheme,
    #[error("not a valid Redis URL{0}: expected redis://user:password@127.0.0.1:6379/0 or redis+unix:///path/to.sock")]
    Invalid(&'static str),
    #[error("not a valid URL of a Redis Cluster{0}: expected redis-cluster://user:password@host1:6379,host2:6379")]
    InvalidCluster(&'static str),
    #[error(
        "not a valid URL of a Redis with Sentinel{0}: expected redis-sentinel://user:password@host1:26379,host2:26379/master-name/0, with \
         user and password of the master"
    )]
    InvalidSentinel(&'static str),
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        if matches!(text, "memory:" | "memory://" | "memory") {
            return Ok(Self::Memory);
        }
        if let Some((scheme, rest)) = ListScheme::split(text) {
            return Ok(Self::Redis(Box::new(scheme.parse(rest)?)));
        }
        let url = Url::parse(text).map_err(|error| match error {
            ParseError::RelativeUrlWithoutBase => StoreUrlError::Scheme,
            ParseError::InvalidPort => StoreUrlError::Invalid(" (its port is not a number up to 65535)"),
            ParseError::EmptyHost => StoreUrlError::Invalid(" (its host is missing)"),
            _ => StoreUrlError::Invalid(""),
        })?;
        if !matches!(url.scheme(), "redis" | "rediss" | "redis+unix") {
            return Err(StoreUrlError::Scheme);
        }
        // The password ended at a / or ?, and its beginning would be taken for a host and a port, which are shown.
        if url.scheme() != "redis+unix" && url[Position::BeforePath..].contains('@') {
            return Err(StoreUrlError::Invalid(list::UNESCAPED));
        }
        if let Some(problem) = ignored_part(&url) {
            return Err(StoreUrlError::Invalid(problem));
        }
        let info = text.into_connection_info().map_err(|_| {
            // The crate's error may contain a part of the URL.
            StoreUrlError::Invalid(" (its host, path, database or parameters)")
        })?;
        Ok(Self::Redis(Box::new(RedisUrl {
            topology: Topology::Single(info.addr().clone()),
            // Notifications arrive as push messages, which only RESP3 has.
            settings: info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3),
            has_tls: url.scheme() == "rediss",
            shown: format!("{}://{}", url.scheme(), &url[Position::BeforeHost..Position::AfterPath]),
        })))
    }
}

/// What the crate would ignore in a URL: the name of a parameter must be known.
fn ignored_part(url: &Url) -> Option<&'static str> {
    let is_socket = url.scheme() == "redis+unix";
    let is_known = |name: &str| is_socket && matches!(name, "db" | "user" | "pass");
    if url.query_pairs().any(|(name, _)| !is_known(&name)) {
        return Some(if is_socket {
            " (it has parameters other than db, user and pass)"
        } else {
            " (it has parameters, which only redis+unix:// has; the database is the path, as in /0)"
        });
    }
    url.fragment().map(|_| " (it has a part after #; in a password write # as %23)")
}

impl StoreUrl {
    /// Whether the connection uses TLS.
    pub fn has_tls(&self) -> bool {
        matches!(self, Self::Redis(redis) if redis.has_tls)
    }

    /// Whether the URL names sentinels.
    pub fn has_sentinels(&self) -> bool {
        matches!(self, Self::Redis(redis) if matches!(redis.topology, Topology::Sentinel { .. }))
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Redis(redis) => redis.fmt(f),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_and_debug_omit_the_password() {
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
        for bad in [
            "",
            "localhost",
            "http://ann:s3cret@h",
            "redis://ann:s3cret@h:99999",
            "redis://ann:s3cret@h/x",
            "redis://ann:1/s3cret@h",
            "redis://ann:1?s3cret@h",
            "redis://ann:1#s3cret@h",
            "redis://h/0?protocol=s3cret",
            "redis+unix:///s?pass=s3cret&db=x",
            "redis+unix:///s?pasword=s3cret",
            "redis://h?db=s3cret",
            "redis://h/0?timeout=s3cret",
            "redis://h#s3cret",
            "rediss://h#insecure-s3cret",
        ] {
            let error = bad.parse::<StoreUrl>().expect_err(bad).to_string();
            assert!(!error.contains("s3cret") && error.contains("redis://user:password@"), "{error}");
        }
    }
}
