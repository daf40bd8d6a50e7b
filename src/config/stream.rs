//! Validates `[stream]`, and matches request paths.

use std::time::Duration;

use humantime::format_duration;

use crate::channel::hub::HubSettings;
use crate::config::validate::{check_positive, check_range, check_size};
use crate::config::{ConfigError, invalid, schema};

/// How long the hub keeps a channel without streams.
const CHANNEL_LINGER: Duration = Duration::from_secs(30);

/// Options of event streams.
#[derive(Debug)]
pub struct StreamConfig {
    /// The path, without a trailing `/*`.
    pub path: String,
    /// Whether every path below matches as well.
    pub below: bool,
    /// How often an idle stream sends a ping.
    pub ping_interval: Duration,
    /// Maximum channels of one stream.
    pub max_channels_per_stream: usize,
    /// Maximum open streams.
    pub max_streams: usize,
    /// Bytes for the replays of all streams.
    pub replay_memory: usize,
    /// Options of the channels.
    pub hub: HubSettings,
}

impl StreamConfig {
    /// Whether a request's path is the path of the streams.
    pub fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&*self.path) {
            Some("") => true,
            Some(rest) => self.below && rest.starts_with('/'),
            None => false,
        }
    }
}

/// Validates `[stream]`.
pub fn check_stream(raw: &schema::Stream, fence: Duration) -> Result<StreamConfig, ConfigError> {
    let ping_interval = raw.ping_interval.0;
    if !(Duration::from_secs(1)..=Duration::from_secs(70)).contains(&ping_interval) {
        let what = "from 1s to 70s: the stock client gives up after 75 s of silence";
        return Err(invalid("stream.ping-interval", format!("{}: must be {what}", format_duration(ping_interval))));
    }
    let (path, below) = parse_path(&raw.path)?;
    let max_event_size = check_size("stream.max-event-size", raw.max_event_size, 1 << 10, 256 << 20)?;
    Ok(StreamConfig {
        path,
        below,
        ping_interval,
        max_channels_per_stream: check_range("stream.max-channels-per-stream", raw.max_channels_per_stream, 1, 1_000)?,
        max_streams: check_range("stream.max-streams", raw.max_streams, 1, 10_000_000)?,
        replay_memory: check_size("stream.replay-memory", raw.replay_memory, 1 << 20, 1 << 40)?,
        hub: HubSettings {
            channel_memory: check_size("stream.channel-memory", raw.channel_memory, 1 << 20, 1 << 40)?,
            buffer_memory: check_size("stream.buffer-memory", raw.buffer_memory, 0, 1 << 40)?,
            reconcile_interval: check_positive("stream.reconcile-interval", raw.reconcile_interval.0)?,
            fill_holes: raw.fill_holes,
            max_event_size,
            linger: CHANNEL_LINGER,
            fence,
        },
    })
}

/// The path without a trailing `/*`, and whether every path below matches as well.
fn parse_path(text: &str) -> Result<(String, bool), ConfigError> {
    let path = text.strip_suffix("/*").unwrap_or(text);
    check_path(path).map_err(|what| invalid("stream.path", what))?;
    if ["/redis", "/healthz", "/playground"].iter().any(|own| path == *own || path.starts_with(&format!("{own}/"))) {
        let what = "/redis, /healthz and /playground are the gateway's own endpoints: name another path";
        return Err(invalid("stream.path", what));
    }
    Ok((path.to_owned(), path != text))
}

/// Fails if no client requests this path.
fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') || path.contains(['?', '#', '*', ' ']) {
        return Err(
            "must begin with / and have no ?, # or space, and a * only as /* at the end, such as /api/realtime or /api/realtime/*",
        );
    }
    if path.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("clients resolve . and .. before they send a path: write the resolved path, such as /api/realtime");
    }
    if path.contains("/:") || path.contains(['{', '}']) {
        return Err("a path has no parameters: write /* for every path below, such as /api/realtime/*");
    }
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        // The characters of a path (RFC 3986); clients encode the others.
        let is_sent = match byte {
            b'%' => [rest.next(), rest.next()].iter().all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@/".contains(&byte),
        };
        if !is_sent {
            return Err(
                "clients send other characters than letters, digits and -._~!$&'()+,;=:@ encoded: write them as %C3%A9",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_that_clients_send() {
        for (valid, expect) in [
            ("/api/realtime", ("/api/realtime", false)),
            ("/api/realtime/*", ("/api/realtime", true)),
            ("/api/realtime/", ("/api/realtime/", false)),
            ("/", ("/", false)),
            ("/a/b%20c/~x@y:z", ("/a/b%20c/~x@y:z", false)),
            ("/redirect", ("/redirect", false)),
            ("/...", ("/...", false)),
        ] {
            assert_eq!(parse_path(valid).expect(valid), (expect.0.to_owned(), expect.1), "{valid}");
        }
        for (wrong, says) in [
            ("", "must begin with /"),
            ("api", "must begin with /"),
            ("https://gate.example/api", "must begin with /"),
            ("*", "must begin with /"),
            ("/api?x", "no ?"),
            ("/api#x", "no ?"),
            ("/a b", "space"),
            ("/api/*/x", "only as /* at the end"),
            ("/api*", "only as /* at the end"),
            ("/api/**", "only as /* at the end"),
            ("/api/../x", "resolve"),
            ("/api/./x", "resolve"),
            ("/..", "resolve"),
            ("/api/:tenant", "no parameters"),
            ("/api/{tenant}", "no parameters"),
            ("/é", "encoded"),
            ("/a%2", "encoded"),
            ("/a%zz", "encoded"),
            ("/a\\b", "encoded"),
            ("/a\n", "encoded"),
            ("/redis", "own endpoints"),
            ("/redis/x/*", "own endpoints"),
            ("/healthz", "own endpoints"),
            ("/playground/x", "own endpoints"),
        ] {
            let error = parse_path(wrong).expect_err(wrong).to_string();
            assert!(error.starts_with("configuration: stream.path: ") && error.contains(says), "{wrong}: {error}");
        }
    }
}
