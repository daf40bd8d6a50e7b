//! Options that take effect as soon as the configuration is read: they need neither a restart nor an activation.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::audit;
use crate::config::cors::Cors;
use crate::config::policy::ShadowConfig;
use crate::config::schema::Raw;
use crate::config::{ChannelRules, ConfigError, cors, decisions, invalid, policy, validate};

/// Publishes the current options and their changes.
pub type Options = watch::Sender<Arc<Live>>;

/// The validated live options.
#[derive(Clone, Debug)]
pub struct Live {
    /// Bearer token of the control port.
    pub control_token: Option<String>,
    /// Streams that an older policy admitted are closed within this time; `None` keeps them open.
    pub rotation_window: Option<Duration>,
    /// The shadow policy.
    pub shadow: ShadowConfig,
    /// Which keys may be channels.
    pub channels: ChannelRules,
    /// Which web pages may read streams.
    pub cors: Cors,
    /// Delay for a rejected client that repeats its request.
    pub reject_delay: Duration,
    /// Bearer tokens of `/redis`.
    pub rest_tokens: Vec<String>,
    /// The decision log and the recording.
    pub decisions: audit::AuditConfig,
    /// How long a node keeps serving after the signal to stop.
    pub drain_delay: Duration,
    /// The time over which streams are closed then.
    pub drain_duration: Duration,
    /// The log filter.
    pub log_filter: String,
}

impl Live {
    /// Validates the options.
    pub fn validate(raw: &Raw) -> Result<Self, ConfigError> {
        let tokens = [&raw.control.token].into_iter().flatten().chain(&raw.redis_rest.tokens);
        if let Some(token) = tokens.into_iter().find(|token| !validate::is_token(token)) {
            let what =
                format!("a token of {} characters: must have at least one, all visible ASCII", token.chars().count());
            return Err(invalid("control.token and redis-rest.tokens", what));
        }
        validate::parse_log_filter(&raw.log.filter)?;
        let within = raw.policy.rotation_window.0;
        Ok(Self {
            control_token: raw.control.token.clone(),
            rotation_window: within
                .map(|time| validate::check_at_most_a_day("policy.rotation-window", time))
                .transpose()?,
            shadow: policy::check_shadow(&raw.policy.shadow)?,
            channels: ChannelRules {
                allow: validate::compile_patterns("channels.allow", &raw.channels.allow)?,
                deny: validate::compile_patterns("channels.deny", &raw.channels.deny)?,
            },
            cors: cors::check_cors(&raw.cors)?,
            reject_delay: validate::check_reject_delay(raw.reject.delay)?,
            rest_tokens: raw.redis_rest.tokens.clone(),
            decisions: decisions::check_decisions(&raw.decisions)?,
            drain_delay: validate::check_at_most_a_day("drain.delay", raw.drain.delay)?,
            drain_duration: validate::check_at_most_a_day("drain.duration", raw.drain.duration)?,
            log_filter: raw.log.filter.clone(),
        })
    }
}
