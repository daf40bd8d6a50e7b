//! Options that take effect as soon as the configuration is read: they need neither a restart nor an activation.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::audit::recording::RecordingConfig;
use crate::audit::{AuditConfig, LogTarget};
use crate::config::channels::ChannelRules;
use crate::config::cors::Cors;
use crate::config::policy::ShadowConfig;
use crate::config::schema::{Decisions, Raw};
use crate::config::validate::{MAX_STEP, check_duration, check_range, check_size, is_token, parse_log_filter};
use crate::config::{ConfigError, cors, invalid};
use crate::util::hidden::Hidden;

/// The value of `decisions.log` for standard output instead of a file.
pub const STDOUT: &str = "stdout";
/// The maximum of `reject.delay`.
const MAX_REJECT_DELAY: Duration = Duration::from_secs(60);

/// Publishes the current options and their changes.
pub type LiveOptionsSender = watch::Sender<Arc<LiveOptions>>;

#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Bearer token of the control port.
    pub control_token: Option<Hidden>,
    /// Streams that an older policy admitted are closed within this time after an activation; `None` keeps them open.
    pub rotation_window: Option<Duration>,
    pub shadow: ShadowConfig,
    /// Which keys may be channels.
    pub channels: ChannelRules,
    /// Which web pages may read streams.
    pub cors: Cors,
    /// Delay for a rejected client that repeats its request.
    pub reject_delay: Duration,
    /// Bearer tokens of `/redis`.
    pub rest_tokens: Vec<Hidden>,
    pub decisions: AuditConfig,
    /// How long a node keeps serving after the signal to stop.
    pub drain_delay: Duration,
    /// The time over which streams are closed after `drain_delay`.
    pub drain_duration: Duration,
    pub log_filter: String,
}

impl LiveOptions {
    pub fn validate(raw: &Raw) -> Result<Self, ConfigError> {
        let control = raw.control.token.iter().map(|token| ("control.token".to_owned(), token));
        let rest =
            raw.redis_rest.tokens.iter().enumerate().map(|(n, token)| (format!("redis-rest.tokens[{n}]"), token));
        if let Some((key, token)) = control.chain(rest).find(|(_, token)| !is_token(token.reveal())) {
            let length = token.reveal().chars().count();
            let what = format!(
                "a token of {length} characters: must have at least one, all visible ASCII, without white space"
            );
            return Err(invalid(&key, what));
        }
        parse_log_filter(&raw.log.filter)?;
        let check_step = |key, time| check_duration(key, time, MAX_STEP, "a day");
        let rotation_window = raw.policy.rotation_window.0;
        let reject_limit = "60s, because proxies time out a silent response then";
        Ok(Self {
            control_token: raw.control.token.clone(),
            rotation_window: rotation_window.map(|time| check_step("policy.rotation-window", time)).transpose()?,
            shadow: ShadowConfig {
                file: raw.policy.shadow.file.clone(),
                share: check_range("policy.shadow.share", raw.policy.shadow.share, 0.0, 1.0)?,
            },
            channels: ChannelRules::validate(&raw.channels, &raw.policy.lookup.prefixes)?,
            cors: cors::check_cors(&raw.cors)?,
            reject_delay: check_duration("reject.delay", raw.reject.delay.0, MAX_REJECT_DELAY, reject_limit)?,
            rest_tokens: raw.redis_rest.tokens.clone(),
            decisions: check_decisions(&raw.decisions)?,
            drain_delay: check_step("drain.delay", raw.drain.delay.0)?,
            drain_duration: check_step("drain.duration", raw.drain.duration.0)?,
            log_filter: raw.log.filter.clone(),
        })
    }
}

fn check_decisions(raw: &Decisions) -> Result<AuditConfig, ConfigError> {
    let log = raw.log.as_ref().map(|target| match &**target {
        STDOUT => LogTarget::Stdout,
        path => LogTarget::File(path.into()),
    });
    let share = check_range("decisions.recording.share", raw.recording.share, 0.0, 1.0)?;
    let limit = check_size("decisions.recording.max-size", raw.recording.max_size, 1 << 10, 1 << 40)? as u64;
    if log.is_some() && log == raw.recording.file.clone().map(LogTarget::File) {
        return Err(invalid(
            "decisions.recording.file",
            "must not be the file of decisions.log: the recording contains credentials",
        ));
    }
    let recording = raw.recording.file.clone().map(|file| RecordingConfig { file, share, limit });
    Ok(AuditConfig { log, masked_fields: raw.masked_fields.clone(), recording })
}
