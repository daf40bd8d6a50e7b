//! Options that take force as soon as a configuration was read: they need no restart, and no policy is asked about them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::audit;
use crate::config::cors::Cors;
use crate::config::operations;
use crate::config::operations::ShadowConfig;
use crate::config::raw::Raw;
use crate::config::{ChannelRules, ConfigError, check, cors, wrong};

/// Their names.
pub const LIVE: [&str; 18] = [
    "control.token",
    "policy.rotate-within",
    "policy.shadow.file",
    "policy.shadow.share",
    "channels.allow",
    "channels.deny",
    "cors.origins",
    "cors.credentials",
    "reject.hold",
    "redis-rest.tokens",
    "decisions.log",
    "decisions.mask",
    "decisions.record",
    "decisions.record-share",
    "decisions.record-limit",
    "drain.delay",
    "drain.time",
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
    pub rotate_within: Option<Duration>,
    /// What is asked beside the policy.
    pub shadow: ShadowConfig,
    /// Which keys may be channels.
    pub channels: ChannelRules,
    /// Which web pages may read.
    pub cors: Cors,
    /// A client that was refused and asks again at once waits so long.
    pub reject_hold: Duration,
    /// Tokens of `/redis`.
    pub rest_tokens: Vec<String>,
    /// What is written down of decisions.
    pub decisions: audit::AuditConfig,
    /// A node that was told to stop serves on for so long.
    pub drain_delay: Duration,
    /// The time that streams have to leave.
    pub drain: Duration,
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
        let within = raw.policy.rotate_within.0;
        Ok(Self {
            control_token: raw.control.token.clone(),
            rotate_within: within.map(|time| operations::up_to_a_day("policy.rotate-within", time)).transpose()?,
            shadow: operations::shadow(&raw.policy.shadow)?,
            channels: ChannelRules {
                allow: check::patterns("channels.allow", &raw.channels.allow)?,
                deny: check::patterns("channels.deny", &raw.channels.deny)?,
            },
            cors: cors::cors(&raw.cors)?,
            reject_hold: check::hold(raw.reject.hold)?,
            rest_tokens: raw.redis_rest.tokens.clone(),
            decisions: operations::decisions(&raw.decisions)?,
            drain_delay: operations::up_to_a_day("drain.delay", raw.drain.delay)?,
            drain: operations::up_to_a_day("drain.time", raw.drain.time)?,
            log_filter: raw.log.filter.clone(),
        })
    }
}
