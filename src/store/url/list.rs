//! URLs that name several hosts: some nodes of a cluster, or some sentinels.

use percent_encoding::percent_decode_str;
use redis::{ProtocolVersion, RedisConnectionInfo};
use url::Host;

use crate::store::url::{Address, RedisUrl, StoreUrlError, Topology};

/// What a user or a password with a reserved character needs.
pub(super) const UNESCAPED: &str = " (in a user or password write @ as %40, / as %2F, ? as %3F, # as %23)";
/// Maximum hosts of one URL.
const MAX_HOSTS: usize = 64;

/// A scheme whose URLs have a list of hosts.
#[derive(Clone, Copy)]
pub(super) struct ListScheme {
    kind: Kind,
    has_tls: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cluster,
    Sentinel,
}

impl ListScheme {
    /// The scheme and what follows it; `None` if the scheme is another one.
    pub fn split(text: &str) -> Option<(Self, &str)> {
        let (scheme, rest) = text.split_once("://")?;
        let (kind, has_tls) = match &*scheme.to_ascii_lowercase() {
            "redis-cluster" => (Kind::Cluster, false),
            "rediss-cluster" => (Kind::Cluster, true),
            "redis-sentinel" => (Kind::Sentinel, false),
            "rediss-sentinel" => (Kind::Sentinel, true),
            _ => return None,
        };
        Some((Self { kind, has_tls }, rest))
    }

    const fn name(self) -> &'static str {
        match (self.kind, self.has_tls) {
            (Kind::Cluster, false) => "redis-cluster",
            (Kind::Cluster, true) => "rediss-cluster",
            (Kind::Sentinel, false) => "redis-sentinel",
            (Kind::Sentinel, true) => "rediss-sentinel",
        }
    }

    const fn default_port(self) -> u16 {
        match self.kind {
            Kind::Cluster => 6379,
            Kind::Sentinel => 26379,
        }
    }

    /// Parses what follows the scheme.
    pub fn parse(self, rest: &str) -> Result<RedisUrl, StoreUrlError> {
        self.try_parse(rest).map_err(match self.kind {
            Kind::Cluster => StoreUrlError::InvalidCluster,
            Kind::Sentinel => StoreUrlError::InvalidSentinel,
        })
    }

    fn try_parse(self, rest: &str) -> Result<RedisUrl, &'static str> {
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let is_cut = |part: &str| part.contains(['?', '#']);
        // A character of the password ended the part that has the password.
        if path.contains('@') || (is_cut(authority) && authority.contains('@')) {
            return Err(UNESCAPED);
        }
        if is_cut(rest) {
            return Err(" (it has parameters, or a part after #)");
        }
        let (login, hosts) = match authority.split_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        if hosts.contains('@') {
            return Err(
                " (it has more than one @: in a user or password write @ as %40; all hosts have the same user and password)",
            );
        }
        let mut settings = login.map_or_else(|| Ok(RedisConnectionInfo::default()), parse_login)?;
        let addresses = parse_hosts(hosts, self.default_port())?;
        let topology = match self.kind {
            Kind::Cluster if matches!(path, "" | "0") => Topology::Cluster(addresses),
            Kind::Cluster if path.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(" (its database is not 0, and a cluster has no other one)");
            }
            Kind::Cluster => return Err(" (it has a path; a cluster has only database 0)"),
            Kind::Sentinel => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                settings = settings.set_db(parse_database(database)?);
                Topology::Sentinel { sentinels: addresses, master: parse_master(master)? }
            }
        };
        Ok(RedisUrl {
            topology,
            settings: settings.set_protocol(ProtocolVersion::RESP3),
            has_tls: self.has_tls,
            shown: format!("{}://{}", self.name(), &rest[login.map_or(0, |login| login.len() + 1)..]),
        })
    }
}

/// Parses `user:password`.
fn parse_login(login: &str) -> Result<RedisConnectionInfo, &'static str> {
    // A comma may separate a host from the login of the next one.
    if login.contains(',') {
        return Err(
            " (in a user or password write , as %2C; all hosts have the same user and password, which come first)",
        );
    }
    let decode = |text| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map_err(|_| " (its user or password is not UTF-8 after percent-decoding)")
    };
    let (user, password) = login.split_once(':').ok_or(" (it has a user without a password)")?;
    if password.is_empty() {
        return Err(" (its password is empty)");
    }
    let settings = RedisConnectionInfo::default().set_password(decode(password)?);
    Ok(if user.is_empty() { settings } else { settings.set_username(decode(user)?) })
}

/// Parses hosts that commas separate, each with or without a port.
fn parse_hosts(text: &str, default_port: u16) -> Result<Vec<Address>, &'static str> {
    let mut addresses = Vec::new();
    for part in text.split(',') {
        let address = parse_host(part, default_port)?;
        if addresses.contains(&address) {
            return Err(" (a host is listed twice)");
        }
        addresses.push(address);
    }
    if addresses.len() > MAX_HOSTS {
        return Err(" (it has more than 64 hosts; a few are enough, because they know the others)");
    }
    Ok(addresses)
}

fn parse_host(text: &str, default_port: u16) -> Result<Address, &'static str> {
    // The colons of an IPv6 address are within brackets.
    let end_of_host = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[end_of_host..].find(':') {
        Some(colon) => (&text[..end_of_host + colon], Some(&text[end_of_host + colon + 1..])),
        None => (text, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err(" (an IPv6 address needs brackets, as in [::1]:6379)");
    }
    if host.is_empty() {
        return Err(" (a host of the list is missing)");
    }
    let is_number = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        None => default_port,
        Some(port) => {
            let number = Some(port).filter(is_number).and_then(|port| port.parse().ok()).filter(|port| *port != 0);
            number.ok_or(" (a port is not a number from 1 to 65535)")?
        }
    };
    let host = match Host::parse(host).map_err(|_| " (a host is neither a name nor an IP address)")? {
        Host::Domain(name) => name,
        Host::Ipv4(ip) if !ip.is_unspecified() => ip.to_string(),
        Host::Ipv6(ip) if !ip.is_unspecified() => ip.to_string(),
        Host::Ipv4(_) | Host::Ipv6(_) => return Err(" (a host is an address to listen on, such as 0.0.0.0)"),
    };
    Ok(Address { host, port })
}

/// Sentinel allows these names.
fn parse_master(name: &str) -> Result<String, &'static str> {
    if name.is_empty() {
        return Err(" (the name of the master is missing after the hosts)");
    }
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.bytes().all(is_valid) {
        Ok(name.to_owned())
    } else {
        Err(" (the name of a master has only letters, digits and .-_)")
    }
}

fn parse_database(text: &str) -> Result<i64, &'static str> {
    match text {
        "" => Ok(0),
        // At most as many digits as fit.
        _ if text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| " (its database is not a number)")
        }
        _ => Err(" (its database, after the name of the master, is not a number)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::url::StoreUrl;

    fn parse(text: &str) -> RedisUrl {
        match text.parse() {
            Ok(StoreUrl::Redis(url)) => *url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn hosts_and_credentials_are_read() {
        let check = |text: &str, shown: &str, hosts: &[(&str, u16)], user: Option<&str>, password: Option<&str>| {
            let url = parse(text);
            let (Topology::Cluster(addresses) | Topology::Sentinel { sentinels: addresses, .. }) = &url.topology else {
                panic!("{text}");
            };
            let expect: Vec<Address> =
                hosts.iter().map(|(host, port)| Address { host: (*host).into(), port: *port }).collect();
            assert_eq!(*addresses, expect, "{text}");
            assert_eq!((url.settings.username(), url.settings.password()), (user, password), "{text}");
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{:?}", StoreUrl::Redis(Box::new(url))), shown);
        };
        check("redis-cluster://a", "redis-cluster://a", &[("a", 6379)], None, None);
        check(
            "redis-cluster://ann:s3%2Cc%40ret@a:7000,[::1]:7001,[2001:db8::1],10.0.0.1/0",
            "redis-cluster://a:7000,[::1]:7001,[2001:db8::1],10.0.0.1/0",
            &[("a", 7000), ("::1", 7001), ("2001:db8::1", 6379), ("10.0.0.1", 6379)],
            Some("ann"),
            Some("s3,c@ret"),
        );
        check(
            "rediss-sentinel://:s3cret@h1,h2:5000/mymaster/3",
            "rediss-sentinel://h1,h2:5000/mymaster/3",
            &[("h1", 26379), ("h2", 5000)],
            None,
            Some("s3cret"),
        );
        let Topology::Sentinel { master, .. } = parse("redis-sentinel://h/my-master.1_b").topology else {
            panic!("a sentinel");
        };
        assert_eq!(master, "my-master.1_b");
        for (text, database, has_tls) in
            [("redis-sentinel://h/m", 0, false), ("rediss-sentinel://h/m/7", 7, true), ("rediss-cluster://h/", 0, true)]
        {
            let url = parse(text);
            assert_eq!((url.settings.db(), url.has_tls), (database, has_tls), "{text}");
            assert_eq!(url.settings.protocol(), ProtocolVersion::RESP3);
        }
    }

    #[test]
    fn mistakes_are_reported_with_the_remedy_and_without_the_password() {
        let check = |rest: &str, says: &str| {
            for scheme in ["redis-cluster", "rediss-sentinel"] {
                // Only a URL of sentinels has the name of a master.
                let rest = if scheme.ends_with("cluster") { rest.replace("/m", "") } else { rest.to_owned() };
                let error = format!("{scheme}://{rest}").parse::<StoreUrl>().expect_err(&rest).to_string();
                assert!(error.contains(says) && error.contains("://user:password@host1:"), "{rest}: {error}");
                assert!(!error.contains("s3cret"), "{error}");
            }
        };
        check("/m", "a host of the list is missing");
        check("h1,,h2/m", "a host of the list is missing");
        check("h1,/m", "a host of the list is missing");
        check(":7000/m", "a host of the list is missing");
        check("h1, h2/m", "a host is neither a name nor");
        check("::1/m", "needs brackets");
        check("fe80::1/m", "needs brackets");
        check("[::1/m", "needs brackets");
        check("[::1]x/m", "a host is neither a name nor");
        check("h:99999/m", "a port is not a number");
        check("h:0/m", "a port is not a number");
        check("h:+1/m", "a port is not a number");
        check("0.0.0.0/m", "an address to listen on");
        check("h1,H1/m", "listed twice");
        check("ann:s3cret@more@h/m", "more than one @");
        check("ann:s3cret@h1,bob:s3cret@h2/m", "more than one @");
        check("h1,bob:s3cret@h2/m", "write , as %2C");
        check("ann:1/s3cret@h/m", "write @ as %40, / as %2F");
        check("ann:1?s3cret@h/m", "write @ as %40, / as %2F, ? as %3F");
        check("ann:1#s3cret@h/m", "# as %23");
        check("s3cret@h/m", "a user without a password");
        check("ann:@h/m", "its password is empty");
        check("ann:%ff@h/m", "not UTF-8");
        check("h/m?db=s3cret", "it has parameters");
        check("h/m#s3cret", "a part after #");
        check(
            &vec!["h"; 65].iter().enumerate().map(|(n, h)| format!("{h}{n}")).collect::<Vec<_>>().join(","),
            "more than 64",
        );
        let check = |text: &str, says: &str| {
            let error = text.parse::<StoreUrl>().expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        };
        check("redis-cluster://h/1", "its database is not 0, and a cluster has no other one");
        check("redis-cluster://h/mymaster", "it has a path");
        check("redis-cluster://h/0/1", "it has a path");
        check("redis-sentinel://h", "the name of the master is missing");
        check("redis-sentinel://h/", "the name of the master is missing");
        check("redis-sentinel://h//0", "the name of the master is missing");
        check("redis-sentinel://h/my master", "only letters, digits");
        check("redis-sentinel://h/m/x", "is not a number");
        check("redis-sentinel://h/m/0/1", "is not a number");
        check("redis-sentinel://h/m/99999999999999999999", "is not a number");
    }
}
