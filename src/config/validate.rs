//! Validates values of options. Errors name the option and a valid value.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use humantime::format_duration;
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, invalid};
use crate::store::fleet_keys::FleetName;
use crate::util::files;

/// Maximum size of a host name; the kernel accepts 64 bytes.
const MAX_HOST_NAME_BYTES: u64 = 256;
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
    EnvFilter::try_new(text).map_err(|_| invalid("log.filter", "expected a filter such as info or warn,tidegate=debug"))
}

/// Patterns of names.
pub fn compile_patterns(key: &str, patterns: &[String]) -> Result<GlobSet, ConfigError> {
    let mut set = GlobSetBuilder::new();
    for (n, pattern) in patterns.iter().enumerate() {
        let glob = GlobBuilder::new(pattern).literal_separator(false).backslash_escape(true).build();
        set.add(glob.map_err(|error| invalid(&format!("{key}[{n}]"), error.kind()))?);
    }
    set.build().map_err(|error| invalid(key, error.kind()))
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
