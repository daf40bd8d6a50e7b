//! Validates `[server]`, and derives the bound on connections.

use std::time::Duration;

use crate::config::validate::{check_duration, check_positive, check_range, check_size};
use crate::config::{ConfigError, invalid, schema};
use crate::policy::Limits;

/// Connections of the control port, which are kept for operators while the data port is full.
pub const CONTROL_CONNECTIONS: usize = 64;
/// Outbound requests of policies, each with a connection.
const EGRESS_DESCRIPTORS: usize = 256;
/// For links to the store, fetches of keys, listening sockets, files, and connections that are being refused or replaced.
const OTHER_DESCRIPTORS: usize = 128;
/// Descriptors that the data port does not use.
const RESERVED_DESCRIPTORS: usize = CONTROL_CONNECTIONS + EGRESS_DESCRIPTORS + OTHER_DESCRIPTORS;
/// Connections by default that have no stream, for each stream: while clients reconnect, some have two.
const CONNECTIONS_PER_STREAM: usize = 2;
const ADDITIONAL_CONNECTIONS: usize = 1_000;
/// The longest timeout.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// Bounds of connections.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `None` for the default.
    pub max_connections: Option<usize>,
    pub head_timeout: Duration,
    pub idle_timeout: Duration,
    pub http2_idle_timeout: Duration,
    pub response_timeout: Duration,
    /// Bytes for incomplete heads and unread responses of the data port.
    pub connection_memory: usize,
}

impl ServerConfig {
    /// The maximum number of connections of the data port in a process with this limit on file descriptors.
    pub fn connection_limit(&self, max_streams: usize, descriptors: usize) -> usize {
        let default = max_streams.saturating_mul(CONNECTIONS_PER_STREAM).saturating_add(ADDITIONAL_CONNECTIONS);
        // With very few descriptors both parts get half.
        let available = descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(descriptors / 2).max(1);
        self.max_connections.unwrap_or(default).min(available)
    }

    /// Why the data port has fewer connections than were asked for, or than streams are allowed.
    pub fn connection_warning(&self, max_streams: usize, descriptors: usize) -> Option<String> {
        let limit = self.connection_limit(max_streams, descriptors);
        let (wanted, option) = match self.max_connections {
            Some(wanted) if wanted > limit => (wanted, "server.max-connections"),
            None if max_streams > limit => (max_streams, "stream.max-streams"),
            _ => return None,
        };
        Some(format!(
            "{option} is {wanted}, but the data port can have only {limit} connections: the process may have {descriptors} file \
             descriptors, and some are kept for the control port, the store and files; raise the limit (LimitNOFILE, ulimit -n), or lower \
             {option}"
        ))
    }
}

/// Validates `[server]`.
pub fn check_server(raw: &schema::Server, limits: &Limits) -> Result<ServerConfig, ConfigError> {
    let max_connections = raw.max_connections;
    if let Some(connections) = max_connections {
        check_range("server.max-connections", connections, 1, 10_000_000)?;
    }
    let connection_memory = check_size("server.connection-memory", raw.connection_memory, 1 << 20, 1 << 40)?;
    if connection_memory / 2 < limits.max_response_size {
        return Err(invalid(
            "server.connection-memory",
            format!("{}: must be at least twice policy.max-response-size", raw.connection_memory),
        ));
    }
    Ok(ServerConfig {
        max_connections,
        head_timeout: check_timeout("server.head-timeout", raw.head_timeout.0)?,
        idle_timeout: check_timeout("server.idle-timeout", raw.idle_timeout.0)?,
        http2_idle_timeout: check_timeout("server.http2-idle-timeout", raw.http2_idle_timeout.0)?,
        response_timeout: check_timeout("server.response-timeout", raw.response_timeout.0)?,
        connection_memory,
    })
}

fn check_timeout(key: &str, time: Duration) -> Result<Duration, ConfigError> {
    check_duration(key, check_positive(key, time)?, MAX_TIMEOUT, "1h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_limit_leaves_descriptors_for_operators_and_the_store() {
        let check = |max_connections, max_streams, descriptors, expect| {
            let raw = schema::Server { max_connections, ..Default::default() };
            let config = check_server(&raw, &Limits::default()).expect("valid");
            let limit = config.connection_limit(max_streams, descriptors);
            let warned = config.connection_warning(max_streams, descriptors).is_some();
            assert_eq!((limit, warned), expect, "{max_connections:?} {max_streams} {descriptors}");
        };
        check(None, 20_000, 65_536, (41_000, false));
        check(None, 20_000, 20_448, (20_000, false));
        check(None, 20_000, 1_024, (576, true));
        check(None, 100, 1_024, (576, false));
        check(None, 100, 200, (100, false));
        check(Some(50), 100, 65_536, (50, false));
        check(Some(500), 100, 65_536, (500, false));
        check(Some(500), 100, 900, (452, true));
        check(None, 1, 0, (1, false));
    }
}
