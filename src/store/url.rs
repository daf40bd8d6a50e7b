//! The URL of a store. It may contain a password, so `Display` and `Debug` omit user, password and query.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, TlsCertificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::{ParseError, Position, Url};

use crate::store::redis::{ClusterNodes, Servers};
use crate::util::files;

/// Maximum size of a PEM file of root certificates; the bundle of a Linux distribution has about 250 KB.
const MAX_CA_BYTES: u64 = 4 << 20;

#[derive(Clone)]
pub enum StoreUrl {
    /// `memory:`, in this process.
    Memory,
    /// `redis://`, `rediss://` or `redis+unix://`.
    Redis {
        info: Box<redis::ConnectionInfo>,
        /// The URL without user, password and query.
        shown: String,
    },
    /// `redis-cluster://` or `rediss-cluster://`.
    Cluster {
        nodes: Box<ClusterNodes>,
        /// The URL without user and password.
        shown: String,
    },
}

/// Why a text is not a store URL. The error does not contain the text.
#[derive(Debug, thiserror::Error)]
pub enum StoreUrlError {
    #[error(
        "not a store that Tidegate supports: expected memory:, redis://, rediss://, redis+unix://, redis-cluster:// or \
         rediss-cluster://, such as redis://user:password@127.0.0.1:6379/0"
    )]
    Scheme,
    #[error("not a valid Redis URL{0}: expected redis://user:password@127.0.0.1:6379/0 or redis+unix:///path/to.sock")]
    Invalid(&'static str),
    #[error(
        "not a valid URL of a Redis Cluster{0}: expected redis-cluster://user:password@10.0.0.1:6379,10.0.0.2:6379"
    )]
    Cluster(&'static str),
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        if matches!(text, "memory:" | "memory://" | "memory") {
            return Ok(Self::Memory);
        }
        for (scheme, of_node) in [("redis-cluster://", "redis"), ("rediss-cluster://", "rediss")] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return parse_cluster(scheme, of_node, rest);
            }
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
            return Err(StoreUrlError::Invalid(
                " (in a user or password write @ as %40, / as %2F, ? as %3F, # as %23)",
            ));
        }
        if let Some(problem) = ignored_part(&url) {
            return Err(StoreUrlError::Invalid(problem));
        }
        let info = text.into_connection_info().map_err(|_| {
            // The crate's error may contain a part of the URL.
            StoreUrlError::Invalid(" (its host, path, database or parameters)")
        })?;
        // Notifications arrive as push messages, which only RESP3 has.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let shown = format!("{}://{}", url.scheme(), &url[Position::BeforeHost..Position::AfterPath]);
        Ok(Self::Redis { info: Box::new(info.set_redis_settings(settings)), shown })
    }
}

/// Parses the part of a cluster's URL after the scheme: user and password, and each node's host and port.
fn parse_cluster(scheme: &str, of_node: &str, rest: &str) -> Result<StoreUrl, StoreUrlError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if path.contains('@') {
        let problem = " (in a user or password write @ as %40, / as %2F, ? as %3F, # as %23)";
        return Err(StoreUrlError::Cluster(problem));
    }
    if !matches!(path, "" | "/" | "/0") {
        return Err(StoreUrlError::Cluster(" (a cluster has only database 0, and no parameters)"));
    }
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (mut seeds, mut template) = (Vec::new(), None);
    for host in hosts.split(',') {
        let separator = if authority.contains('@') { "@" } else { "" };
        let node = format!("{of_node}://{credentials}{separator}{host}");
        let Ok(StoreUrl::Redis { info, .. }) = node.parse() else {
            return Err(StoreUrlError::Cluster(" (a host, a port, the user or the password)"));
        };
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                seeds.push((host.clone(), *port));
            }
            _ => return Err(StoreUrlError::Cluster("")),
        }
        template.get_or_insert(*info);
    }
    let template = template.ok_or(StoreUrlError::Cluster(""))?;
    let nodes = Box::new(ClusterNodes { seeds, template });
    Ok(StoreUrl::Cluster { nodes, shown: format!("{scheme}{hosts}{path}") })
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
        matches!(self, Self::Redis { shown, .. } | Self::Cluster { shown, .. } if shown.starts_with("rediss"))
    }

    /// The servers of the store; `None` for `memory:`. `ca` is a PEM file of root certificates to trust instead of the system's.
    pub fn servers(&self, ca: Option<&Path>) -> anyhow::Result<Option<Servers>> {
        Ok(Some(match self {
            Self::Memory => return Ok(None),
            Self::Redis { info, .. } => Servers::Single(client((**info).clone(), ca)?),
            Self::Cluster { nodes, .. } => {
                let client = client(nodes.template.clone(), ca)?;
                let template = client.get_connection_info().clone();
                Servers::Cluster(ClusterNodes { seeds: nodes.seeds.clone(), template })
            }
        }))
    }
}

fn client(info: ConnectionInfo, ca: Option<&Path>) -> anyhow::Result<Client> {
    let Some(path) = ca else { return Ok(Client::open(info)?) };
    let pem = files::read(path, MAX_CA_BYTES).with_context(|| format!("store-ca: cannot read {}", path.display()))?;
    anyhow::ensure!(
        CertificateDer::pem_slice_iter(&pem).any(|certificate| certificate.is_ok()),
        "store-ca: {}: has no certificate, which begins with -----BEGIN CERTIFICATE-----",
        files::display(path)
    );
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    Ok(Client::build_with_tls(info, certificates)?)
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory:",
            Self::Redis { shown, .. } | Self::Cluster { shown, .. } => shown,
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
        check("redis-cluster://ann:s3cret@h1:7000,h2/", "redis-cluster://h1:7000,h2/");
        check("rediss-cluster://h1", "rediss-cluster://h1");
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
            "redis-cluster://ann:s3cret@",
            "redis-cluster://ann:s3cret@h1,,h2",
            "redis-cluster://ann:s3cret@h1:99999",
            "redis-cluster://ann:s3cret@h1/1",
            "redis-cluster://ann:1/s3cret@h1",
            "redis-cluster://ann:1?s3cret@h1",
            "redis-cluster://h1,h2?s3cret",
        ] {
            let error = bad.parse::<StoreUrl>().expect_err(bad).to_string();
            assert!(!error.contains("s3cret") && error.contains("://user:password@"), "{error}");
        }
    }

    #[test]
    fn cluster_url_names_nodes_that_share_their_credentials() {
        let url: StoreUrl = "redis-cluster://ann:p%40ss@h1:7000,[::1]:7001,h3".parse().expect("a store URL");
        let StoreUrl::Cluster { nodes, .. } = url else { panic!("a cluster") };
        let seeds = [("h1", 7000), ("::1", 7001), ("h3", 6379)].map(|(host, port)| (host.to_owned(), port));
        assert_eq!(nodes.seeds, seeds);
        let settings = nodes.template.redis_settings();
        assert_eq!((settings.username(), settings.password()), (Some("ann"), Some("p@ss")));
    }

    #[test]
    fn file_without_a_certificate_as_ca_is_refused() {
        let url: StoreUrl = "rediss://redis.example".parse().expect("a store URL");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.pem");
        for text in ["", "no certificate", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            std::fs::write(&path, text).expect("written");
            let error = url.servers(Some(&path)).err().expect(text).to_string();
            assert!(error.contains("store-ca: ") && error.contains("has no certificate"), "{error}");
        }
    }

    #[test]
    fn fifo_as_ca_is_refused_without_blocking() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).expect("a FIFO");
        let (sender, result) = std::sync::mpsc::channel();
        let url: StoreUrl = "rediss://redis.example".parse().expect("a store URL");
        std::thread::spawn(move || sender.send(url.servers(Some(&pipe)).err()));
        let result = result.recv_timeout(std::time::Duration::from_secs(10)).expect("the read does not block");
        let error = format!("{:#}", result.expect("refused"));
        assert!(error.contains("not a regular file"), "{error}");
    }
}
