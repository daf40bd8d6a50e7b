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
pub fn check_stream(raw: &schema::Stream) -> Result<StreamConfig, ConfigError> {
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
        },
    })
}

/// The path without a trailing `/*`, and whether every path below matches as well.
fn parse_path(text: &str) -> Result<(String, bool), ConfigError> {
    let path = text.strip_suffix("/*").unwrap_or(text);
    if !path.starts_with('/') || path.contains(['?', '#', '*', ' ']) {
        return Err(invalid(
            "stream.path",
            "must begin with / and have no ?, # or space, such as /api/realtime or /api/realtime/*",
        ));
    }
    if ["/redis", "/healthz", "/playground"].iter().any(|own| path == *own || path.starts_with(&format!("{own}/"))) {
        let what = "/redis, /healthz and /playground are the gateway's own endpoints: name another path";
        return Err(invalid("stream.path", what));
    }
    Ok((path.to_owned(), path != text))
}
