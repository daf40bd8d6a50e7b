//! Validates values of options. Errors name the option and a valid value.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use humantime::format_duration;
use ipnet::{IpNet, Ipv4Net};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{ConfigError, invalid};
use crate::store::fleet_keys::FleetName;
use crate::util::files;
use crate::util::hidden::Hidden;

/// Maximum size of a host name; the kernel accepts 64 bytes.
const MAX_HOST_NAME_BYTES: u64 = 256;
/// A shorter bearer token can be guessed.
const MIN_TOKEN_BYTES: usize = 16;
/// The maximum duration of a step of a shutdown or rotation.
pub const MAX_STEP: Duration = Duration::from_secs(86_400);

/// An address to listen on.
pub fn parse_address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| invalid(key, "not an IP address with a port, such as 127.0.0.1:8080 or [::]:8080"))
}

/// Whether a text can be a bearer token.
pub fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

/// Warnings of bearer tokens that can be guessed.
pub fn short_tokens(control: Option<&Hidden>, rest: &[Hidden]) -> impl Iterator<Item = String> {
    let is_short = |token: &Hidden| token.reveal().len() < MIN_TOKEN_BYTES;
    let options = [("control.token", control.is_some_and(is_short)), ("redis-rest.tokens", rest.iter().any(is_short))];
    options.into_iter().filter(|(_, is_short)| *is_short).map(|(key, _)| {
        format!("{key}: a token shorter than {MIN_TOKEN_BYTES} characters can be guessed; generate one with `openssl rand -hex 16`")
    })
}

pub fn check_positive(key: &str, time: Duration) -> Result<Duration, ConfigError> {
    if time.is_zero() { Err(invalid(key, "must be greater than 0")) } else { Ok(time) }
}

/// A number from `min` to `max`.
pub fn check_range<T: Copy + PartialOrd + Display>(key: &str, number: T, min: T, max: T) -> Result<T, ConfigError> {
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(invalid(key, format!("{number}: must be from {min} to {max}")))
}

/// A duration of at most `max`, which `limit` describes.
pub fn check_duration(key: &str, time: Duration, max: Duration, limit: &str) -> Result<Duration, ConfigError> {
    if time <= max {
        Ok(time)
    } else {
        Err(invalid(key, format!("{}: must be at most {limit}", format_duration(time))))
    }
}

/// A number of bytes from `min` to `max`.
pub fn check_size(key: &str, size: ByteSize, min: u64, max: u64) -> Result<usize, ConfigError> {
    let size = check_range(key, size, ByteSize(min), ByteSize(max))?;
    usize::try_from(size.as_u64()).map_err(|error| invalid(key, error))
}

pub fn parse_log_filter(text: &str) -> Result<EnvFilter, ConfigError> {
    let error = || {
        let what =
            "expected error, warn, info, debug, trace or off, or the level of a module, such as warn,tidegate=debug";
        invalid("log.filter", what)
    };
    // A word alone would be the name of a module, of which all levels are logged, and nothing of all others.
    let is_meant = |directive: &&str| {
        directive.contains(['=', '[', ']'])
            || directive.parse::<LevelFilter>().is_ok()
            || directive.split("::").next() == Some("tidegate")
    };
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|directive| !directive.is_empty()).collect();
    if directives.is_empty() || !directives.iter().all(is_meant) {
        return Err(error());
    }
    // h2 warns of frames that a client may send in any number. A directive of the option takes precedence.
    EnvFilter::try_new(format!("h2=error,{}", directives.join(","))).map_err(|_| error())
}

/// Networks, with those of IPv4-mapped addresses as IPv4 networks, since addresses are compared in canonical form.
pub fn canonical_networks(key: &str, networks: &[IpNet]) -> Result<Vec<IpNet>, ConfigError> {
    let canonical = |network: &IpNet| {
        let IpNet::V6(v6) = network else { return Ok(*network) };
        let Some(v4) = v6.addr().to_ipv4_mapped() else { return Ok(*network) };
        let prefix = v6.prefix_len().checked_sub(96).and_then(|prefix| Ipv4Net::new(v4, prefix).ok());
        let like = || {
            let prefix = v6.prefix_len().min(32);
            invalid(
                key,
                format!("{network} is an IPv4-mapped address with a prefix below 96: write it as {v4}/{prefix}"),
            )
        };
        prefix.map(IpNet::V4).ok_or_else(like)
    };
    let checked = |(n, network): (usize, &IpNet)| {
        let network = canonical(network)?;
        let whole = network.trunc();
        if whole == network {
            return Ok(network);
        }
        let (address, bits) = (network.addr(), network.max_prefix_len());
        let what = format!("{network} is neither a network nor one address: write {whole}, or {address}/{bits}");
        Err(invalid(&format!("{key}[{n}]"), what))
    };
    networks.iter().enumerate().map(checked).collect()
}

/// How long a proof of the master counts.
pub fn check_fence(time: Duration) -> Result<Duration, ConfigError> {
    if (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&time) {
        return Ok(time);
    }
    let what = "must be from 1s to 60s: a node that is cut off delivers events for that long";
    Err(invalid("fleet.fence", format!("{}: {what}", format_duration(time))))
}

pub fn parse_fleet_name(name: &str) -> Result<FleetName, ConfigError> {
    name.parse().map_err(|error| invalid("fleet.name", error))
}

/// The name of a node, which is part of file names.
pub fn check_node_name(name: String) -> Result<String, ConfigError> {
    if (1..=64).contains(&name.len()) && name.chars().all(is_of_names) {
        return Ok(name);
    }
    Err(invalid("fleet.node-name", "must have 1 to 64 letters, digits and -._:[]"))
}

/// The default name of a node: the host name and an address.
pub fn build_node_name(listen: SocketAddr) -> String {
    let host = files::read_text(Path::new("/proc/sys/kernel/hostname"), MAX_HOST_NAME_BYTES).ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "node".into());
    let host: String = host.trim().chars().filter(|c| is_of_names(*c)).take(40).collect();
    format!("{host}:{listen}").chars().filter(|c| is_of_names(*c)).collect()
}

fn is_of_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._:[]".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_filters_name_levels() {
        for valid in [
            "info",
            "WARN",
            "off",
            "warn,tidegate=debug",
            "warn,tidegate::policy=debug",
            " warn , tidegate=debug,",
            "tidegate",
            "tidegate::authz",
            "hyper=trace",
            "info,tidegate[span{field=1}]=trace",
        ] {
            assert!(parse_log_filter(valid).is_ok(), "{valid}");
        }
        let spaced = parse_log_filter("warn, tidegate=debug").expect("valid").to_string();
        assert!(spaced.split(',').any(|directive| directive == "tidegate=debug"), "{spaced}");
        for wrong in ["", "warning", "verbose", "info debug", "infoo", "info,authz", "tidegate=loud", "tidegate:debug"]
        {
            let error = parse_log_filter(wrong).expect_err(wrong).to_string();
            assert!(error.contains("log.filter") && error.contains("warn,tidegate=debug"), "{wrong}: {error}");
        }
    }

    #[test]
    fn networks_have_no_bits_after_their_prefix() {
        let check = |text: &str| canonical_networks("k", &[text.parse().expect(text)]);
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1/32", "10.0.0.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00::/8", "fd00::/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(check(text).expect(text), [canonical.parse().expect("a network")], "{text}");
        }
        for (text, remedy) in [
            ("10.0.0.1/8", "k[0]: 10.0.0.1/8 is neither a network nor one address: write 10.0.0.0/8, or 10.0.0.1/32"),
            ("::ffff:10.0.0.1/104", "write 10.0.0.0/8, or 10.0.0.1/32"),
            ("fd00::1/64", "write fd00::/64, or fd00::1/128"),
        ] {
            let error = check(text).expect_err(text).to_string();
            assert!(error.ends_with(remedy), "{text}: {error}");
        }
    }

    #[test]
    fn log_filter_hides_what_clients_can_cause_in_http2() {
        let filter = |text| parse_log_filter(text).expect("a filter").to_string();
        assert!(filter("info").contains("h2=error"));
        assert!(!filter("h2=debug").contains("h2=error"));
    }
}
