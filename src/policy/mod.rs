//! The model of policies: a request, and the decision whether its client may read a set of channels. Without a decision the client gets
//! no stream.

pub(crate) mod cache_directive;
pub(crate) mod decision_view;
pub mod info;
pub(crate) mod key_prefix;
pub(crate) mod request;
pub(crate) mod settings;
pub mod stream_selector;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::policy::info::PolicyInfo;

/// Approximate bytes that a header takes in addition to its name and value.
const HEADER_OVERHEAD_BYTES: usize = 128;

/// A client's request, as a policy sees it.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// `http` or `https`, as the client sees it.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
    /// As the client sent it.
    pub path_with_query: String,
    /// As the client sent them, except that several `cookie` fields are joined to one.
    pub headers: HeaderMap,
    /// The client's IP address, in canonical form; `None` if it is unknown, because a trusted proxy does not name it.
    pub client_address: Option<IpAddr>,
    /// Identifies the request in log lines.
    pub id: String,
}

impl Request {
    /// The client's address as policies and recordings have it: empty if it is unknown.
    pub fn client_address_text(&self) -> String {
        self.client_address.map_or_else(String::new, |address| address.to_string())
    }
}

/// The client may read.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// The policy's name for the client.
    pub subject: Option<String>,
    /// `None` for all channels that the client requested.
    pub channels: Option<Vec<String>>,
    /// When the stream ends, in ms since the Unix epoch.
    pub expires_at: Option<u64>,
    /// Older events are not replayed; in ms since the Unix epoch.
    pub replay_since: Option<u64>,
    /// Added to the response's head.
    pub headers: HeaderMap,
}

/// The policy's response to a client that may not read.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// From 200 to 599.
    pub status: StatusCode,
    /// Without the headers that the gateway controls.
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Rejection {
    /// The gateway's response to a client whose access is revoked.
    pub(crate) fn revoked() -> Self {
        Self { status: StatusCode::FORBIDDEN, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// Why there is no decision. The client gets no stream and no reason; the texts are for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no policy is active")]
    NoPolicy,
    #[error("the policy trapped: {0}")]
    Trap(String),
    #[error("the policy used more CPU time than policy.cpu-time allows")]
    Cpu,
    #[error("the policy took longer than policy.timeout allows")]
    Timeout,
    #[error("the policy wanted more memory than policy.max-memory allows")]
    Memory,
    #[error("no instance became free within policy.queue-timeout")]
    Busy,
    #[error("the policy's answer is invalid: {0}")]
    InvalidAnswer(String),
    #[error("the policy exceeded {0} in one decision")]
    Limit(&'static str),
    #[error("cannot create an instance of the policy: {0}")]
    Host(String),
}

impl Failure {
    /// All values of [`Self::kind`].
    pub const KINDS: [&str; 9] =
        ["no-policy", "trap", "cpu", "timeout", "memory", "busy", "invalid-answer", "limit", "host"];

    /// The name of the cause in logs, metrics and test cases.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoPolicy => "no-policy",
            Self::Trap(_) => "trap",
            Self::Cpu => "cpu",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Busy => "busy",
            Self::InvalidAnswer(_) => "invalid-answer",
            Self::Limit(_) => "limit",
            Self::Host(_) => "host",
        }
    }
}

#[derive(Clone, Debug)]
pub enum Outcome {
    Allowed(Grant),
    Rejected(Rejection),
    Failed(Failure),
}

impl Outcome {
    /// Approximate bytes of its texts and headers.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Allowed(Grant { subject, channels, headers, .. }) => {
                let channels = channels.as_deref().map_or(0, strings_size);
                subject.as_ref().map_or(0, String::len) + channels + headers_size(headers)
            }
            Self::Rejected(Rejection { headers, body, .. }) => headers_size(headers) + body.len(),
            Self::Failed(_) => 0,
        }
    }
}

/// Approximate bytes of these strings.
pub(crate) fn strings_size(strings: &[String]) -> usize {
    strings.iter().map(|string| size_of::<String>() + string.len()).sum()
}

/// Approximate bytes of these headers.
pub(crate) fn headers_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| HEADER_OVERHEAD_BYTES + name.as_str().len() + value.len()).sum()
}

/// The outcome of a request, with what logs and the playground show about it.
#[derive(Clone, Debug)]
pub struct Decision {
    pub outcome: Outcome,
    /// The policy's reason.
    pub reason: Option<String>,
    /// Whether the outcome comes from the decision cache.
    pub cached: bool,
    /// The policy allowed the client, but a revocation is active.
    pub revoked: bool,
    /// Includes the wait for an instance.
    pub duration: Duration,
    /// `None` with `--allow-all` and without an active policy.
    pub policy: Option<Arc<PolicyInfo>>,
}

impl Decision {
    /// The digest of the policy that decided, `sha256:…`; empty if there was none.
    pub fn policy_digest(&self) -> &str {
        self.policy.as_ref().map_or("", |info| &info.digest)
    }

    pub fn duration_us(&self) -> u64 {
        u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX)
    }
}

/// The limits of a decision, and of all decisions of a gateway together.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of one decision.
    pub cpu_time: Duration,
    /// Of one decision by the wall clock, look-ups included.
    pub timeout: Duration,
    /// Bytes of all memories and tables of one instance.
    pub max_memory: usize,
    /// Bytes of each idle memory of the pool that stay resident.
    pub pool_resident: usize,
    /// Concurrent decisions.
    pub concurrency: usize,
    pub prewarmed_instances: usize,
    /// How long a decision waits for an instance.
    pub queue_timeout: Duration,
    /// Bytes of an answer's headers and body.
    pub max_response_size: usize,
    /// Of one look-up.
    pub lookup_timeout: Duration,
    /// Per decision.
    pub max_lookups: u32,
    /// Outbound requests per decision.
    pub max_requests: u32,
    /// Log lines per second of all decisions together.
    pub log_rate: u32,
    /// Concurrent shadow decisions, in addition to `concurrency`.
    pub shadow_concurrency: usize,
    /// Of one compilation, by the wall clock.
    pub compile_timeout: Duration,
    /// Bytes of cached decisions.
    pub cache_size: usize,
    /// How long a decision is cached at most.
    pub cache_max_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_time: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
            max_memory: 64 << 20,
            pool_resident: 4 << 20,
            concurrency: 256,
            prewarmed_instances: 8,
            queue_timeout: Duration::from_secs(1),
            max_response_size: 1 << 20,
            lookup_timeout: Duration::from_secs(1),
            max_lookups: 64,
            max_requests: 8,
            log_rate: 100,
            shadow_concurrency: 4,
            compile_timeout: Duration::from_secs(120),
            cache_size: 16 << 20,
            cache_max_age: Duration::from_secs(300),
        }
    }
}
