//! Validates values of options. Errors name the option and a valid value.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use globset::GlobBuilder;
use humantime::format_duration;
use ipnet::{IpNet, Ipv4Net};
use regex::{RegexSet, RegexSetBuilder};
use tracing_subscriber::EnvFilter;

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
    // h2 warns of frames that a client may send in any number. A directive of the option takes precedence.
    EnvFilter::try_new(format!("h2=error,{text}"))
        .map_err(|_| invalid("log.filter", "expected a filter such as info or warn,tidegate=debug"))
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
    networks.iter().map(canonical).collect()
}

/// Patterns of names, which match characters.
pub fn compile_patterns(key: &str, patterns: &[String]) -> Result<RegexSet, ConfigError> {
    let expression = |(n, pattern): (usize, &String)| {
        let key = format!("{key}[{n}]");
        let glob = GlobBuilder::new(pattern).literal_separator(false).backslash_escape(true).build();
        let glob = glob.map_err(|error| invalid(&key, error.kind()))?;
        in_characters(glob.regex()).ok_or_else(|| invalid(&key, "cannot be compiled"))
    };
    let expressions = patterns.iter().enumerate().map(expression).collect::<Result<Vec<_>, _>>()?;
    RegexSetBuilder::new(expressions)
        .dot_matches_new_line(true)
        .build()
        .map_err(|_| invalid(key, "the patterns together are too large"))
}

/// The expression of a glob, in which globset matches single bytes and writes each byte of other characters than ASCII as `\xNN`.
fn in_characters(expression: &str) -> Option<String> {
    let mut rest = expression.strip_prefix("(?-u)")?;
    let mut text = Vec::with_capacity(rest.len());
    while let Some(first) = rest.bytes().next() {
        let taken = if let Some(digits) = rest.strip_prefix("\\x") {
            text.push(u8::from_str_radix(digits.get(..2)?, 16).ok()?);
            4
        } else {
            // An escaped character is not the begin of another escape.
            let length = if first == b'\\' { 2 } else { 1 };
            text.extend_from_slice(rest.get(..length)?.as_bytes());
            length
        };
        rest = rest.get(taken..)?;
    }
    String::from_utf8(text).ok()
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
    use globset::{Glob, GlobSetBuilder};

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        compile_patterns("k", &[pattern.to_owned()]).expect("a pattern").is_match(name)
    }

    #[test]
    fn patterns_match_characters() {
        for (pattern, name, expect) in [
            ("room-?", "room-e", true),
            ("room-?", "room-é", true),
            ("room-?", "room-🎉", true),
            ("room-?", "room-\n", true),
            ("room-?", "room-", false),
            ("room-?", "room-éé", false),
            ("room-??", "room-é", false),
            ("room-??", "room-éü", true),
            ("sec-[!a]x", "sec-bx", true),
            ("sec-[!a]x", "sec-éx", true),
            ("sec-[!a]x", "sec-ax", false),
            ("sec-[!é]x", "sec-éx", false),
            ("sec-[!é]x", "sec-èx", true),
            ("[^é]", "é", false),
            ("[éü]", "é", true),
            ("[éü]", "è", false),
            ("[à-ü]", "é", true),
            ("[à-ü]", "Ã", false),
            ("[à-ü]x", "éx", true),
            ("é*", "é", true),
            ("é*", "éx", true),
            ("*é", "xé", true),
            ("{é,?x}", "é", true),
            ("{é,?x}", "🎉x", true),
            ("\\é", "é", true),
            ("\\\\xc3", "\\xc3", true),
            ("\\\\xc3", "é", false),
            ("Ã©", "é", false),
            ("É", "é", false),
            ("*", "", true),
            ("*", "a/b\n🎉", true),
        ] {
            assert_eq!(matches(pattern, name), expect, "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn patterns_of_ascii_are_globs() {
        let names = [
            "", "a", "b", "ab", "a/b", "a/x/b", "/a", "x/a", "a/", "a.b", "-", "]", "[a]", "{a}", "a,b", "*", "?",
            "\\", "a\nb", "A", "9",
        ];
        for pattern in [
            "",
            "*",
            "**",
            "?",
            "??",
            "a",
            "a*",
            "*b",
            "a?b",
            "**/a",
            "a/**",
            "a/**/b",
            "**a",
            "a**",
            "{a,b}",
            "{a,{b,ab}}",
            "{a,}",
            "[ab]",
            "[!ab]",
            "[^ab]",
            "[a-c]",
            "[]]",
            "[!]]",
            "[-a]",
            "[a-]",
            "[[:digit:]]",
            "[[:alpha:]]*",
            "\\*",
            "\\?",
            "\\\\",
            "\\[a\\]",
            "a.b",
            "a,b",
            "{a\\,b}",
            "[.]",
            "[\\\\]",
            "(a|b)",
            "^a$",
            "a+",
        ] {
            let glob =
                GlobBuilder::new(pattern).literal_separator(false).backslash_escape(true).build().expect(pattern);
            let globs = GlobSetBuilder::new().add(glob).build().expect(pattern);
            for name in names {
                assert_eq!(matches(pattern, name), globs.is_match(name), "{pattern:?} {name:?}");
            }
        }
        for wrong in ["[", "[!", "{a", "a}", "[b-a]", "a\\"] {
            assert!(Glob::new(wrong).is_err() && compile_patterns("k", &[wrong.to_owned()]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn log_filter_hides_what_clients_can_cause_in_http2() {
        let filter = |text| parse_log_filter(text).expect("a filter").to_string();
        assert!(filter("info").contains("h2=error"));
        assert!(!filter("h2=debug").contains("h2=error"));
    }
}
