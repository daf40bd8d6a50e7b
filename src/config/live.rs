//! Options that take force as soon as a configuration was read: they need no restart, and no policy is asked about them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::operations::{self, ShadowConfig};
use super::raw::Raw;
use super::{ChannelRules, ConfigError, Cors, check, cors, wrong};
use crate::policy::decisions;

/// Their names.
pub const LIVE: [&str; 18] = [
    "control.token",
    "policy.rotation-window",
    "policy.shadow.file",
    "policy.shadow.share",
    "channels.allow",
    "channels.deny",
    "cors.origins",
    "cors.credentials",
    "reject.delay",
    "redis-rest.tokens",
    "decisions.log",
    "decisions.masked-fields",
    "decisions.recording.file",
    "decisions.recording.share",
    "decisions.recording.max-size",
    "drain.delay",
    "drain.duration",
    "log.filter",
];

/// Those of now, for whoever wants to know when they change.
pub type Options = watch::Sender<Arc<Live>>;

/// These options, checked.
#[derive(Clone, Debug)]
pub struct Live {
    /// What operators have to show.
    pub control_token: Option<String>,
    /// Streams of older versions are asked to come back within this time; none lets them stay.
    pub rotation_window: Option<Duration>,
    /// What is asked beside the policy.
    pub shadow: ShadowConfig,
    /// Which keys may be channels.
    pub channels: ChannelRules,
    /// Which web pages may read.
    pub cors: Cors,
    /// A client that was refused and asks again at once waits so long.
    pub reject_delay: Duration,
    /// Tokens of `/redis`.
    pub rest_tokens: Vec<String>,
    /// What is written down of decisions.
    pub decisions: decisions::Settings,
    /// A node that was told to stop serves on for so long.
    pub drain_delay: Duration,
    /// The time that streams have to leave.
    pub drain_duration: Duration,
    /// What is logged.
    pub log_filter: String,
}

impl Live {
    /// Checks them.
    pub fn check(raw: &Raw) -> Result<Self, ConfigError> {
        let tokens = [&raw.control.token].into_iter().flatten().chain(&raw.redis_rest.tokens);
        if let Some(token) = tokens.into_iter().find(|token| !check::is_token(token)) {
            let what =
                format!("a token of {} characters; it has at least one, and only visible ASCII", token.chars().count());
            return Err(wrong("control.token and redis-rest.tokens", what));
        }
        check::log_filter(&raw.log.filter)?;
        let within = raw.policy.rotation_window.0;
        Ok(Self {
            control_token: raw.control.token.clone(),
            rotation_window: within.map(|time| operations::up_to_a_day("policy.rotation-window", time)).transpose()?,
            shadow: operations::shadow(&raw.policy.shadow)?,
            channels: ChannelRules {
                allow: check::patterns("channels.allow", &raw.channels.allow)?,
                deny: check::patterns("channels.deny", &raw.channels.deny)?,
            },
            cors: cors::cors(&raw.cors)?,
            reject_delay: check::reject_delay(raw.reject.delay)?,
            rest_tokens: raw.redis_rest.tokens.clone(),
            decisions: operations::decisions(&raw.decisions)?,
            drain_delay: operations::up_to_a_day("drain.delay", raw.drain.delay)?,
            drain_duration: operations::up_to_a_day("drain.duration", raw.drain.duration)?,
            log_filter: raw.log.filter.clone(),
        })
    }
}
