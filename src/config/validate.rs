//! Validates single values. Errors name the option and a valid value.

use std::net::SocketAddr;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, invalid};
use crate::util::ratio::Ratio;

/// An address to listen on.
pub fn parse_address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| {
        invalid(key, format!("{text:?} is not an IP address with a port, such as 127.0.0.1:8080 or [::]:8080"))
    })
}

/// Whether a text can be a bearer token.
pub fn is_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic())
}

/// A duration greater than 0.
pub fn check_positive(key: &str, time: Duration) -> Result<Duration, ConfigError> {
    if time.is_zero() { Err(invalid(key, "must be greater than 0")) } else { Ok(time) }
}

/// A number from 1.
pub fn check_count(key: &str, number: usize, max: usize) -> Result<usize, ConfigError> {
    if number == 0 { Err(invalid(key, format!("0: must be from 1 to {max}"))) } else { check_at_most(key, number, max) }
}

/// A number from 0.
pub fn check_at_most(key: &str, number: usize, max: usize) -> Result<usize, ConfigError> {
    if number <= max { Ok(number) } else { Err(invalid(key, format!("{number}: must be at most {max}"))) }
}

/// A share, from 0 to 1.
pub fn check_share(key: &str, share: f64) -> Result<f64, ConfigError> {
    Ratio::try_from(share).map(f64::from).map_err(|error| invalid(key, error))
}

/// Validates the duration of a shutdown or rotation step.
pub fn check_at_most_a_day(key: &str, time: Duration) -> Result<Duration, ConfigError> {
    if time <= Duration::from_secs(86_400) {
        return Ok(time);
    }
    Err(invalid(key, format!("{}: must be at most a day", humantime::format_duration(time))))
}

/// A number of bytes within a range.
pub fn check_size(key: &str, size: bytesize::ByteSize, min: u64, max: u64) -> Result<usize, ConfigError> {
    let bytes = usize::try_from(size.as_u64()).ok().filter(|_| (min..=max).contains(&size.as_u64()));
    let range = || format!("{size}: must be from {} to {}", bytesize::ByteSize(min), bytesize::ByteSize(max));
    bytes.ok_or_else(|| invalid(key, range()))
}

/// The log filter.
pub fn parse_log_filter(text: &str) -> Result<EnvFilter, ConfigError> {
    let expected = "expected a filter such as info or warn,tidegate=debug";
    EnvFilter::try_new(text).map_err(|error| invalid("log.filter", format!("{text:?}: {error}; {expected}")))
}

/// The value of `reject.delay`.
pub fn check_reject_delay(time: Duration) -> Result<Duration, ConfigError> {
    let what = || {
        format!(
            "{}: must be at most 60s, because proxies time out a silent response then",
            humantime::format_duration(time)
        )
    };
    if time <= Duration::from_secs(60) { Ok(time) } else { Err(invalid("reject.delay", what())) }
}

/// Patterns of names.
pub fn compile_patterns(key: &str, patterns: &[String]) -> Result<GlobSet, ConfigError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(false).backslash_escape(true).build();
        set.add(glob.map_err(|error| invalid(key, error))?);
    }
    set.build().map_err(|error| invalid(key, error))
}
