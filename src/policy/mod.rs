//! The door: a WebAssembly component is asked, on a fresh instance each time, whether a client may read a set of channels.
//! Whatever goes wrong on the way keeps the client out.

pub(crate) mod answer;
pub mod asked;
pub(crate) mod cache;
pub mod cases;
pub mod compile;
pub mod component;
pub mod decisions;
mod denied;
pub mod digest;
pub mod engine;
pub mod flip;
pub mod gate;
pub(crate) mod host;
mod in_force;
mod instance;
mod limits;
pub(crate) mod log_rate;
pub mod measure;
mod octets;
mod pace;
mod places;
pub mod rehearsal;
mod secret;
pub mod shadow;
pub mod signature;
mod slow_lane;
pub mod tokens;
pub mod trace;
mod version;

pub use cache::{Forget, without_acks};
pub use denied::{Denial, Denied, Whom};
pub use host::{Clock, Surroundings};
pub use in_force::{Old, Pin, Swap};
pub(crate) use places::Counted;
pub use secret::{Secret, Settings};
pub use version::{About, Basis, Next, Origin, Papers};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// A client's request, as a policy is told of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// As it was sent.
    pub method: String,
    /// `http` or `https`, as the client sees it.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
    /// As they were sent.
    pub path_with_query: String,
    /// As they were sent; several `cookie` fields are one.
    pub headers: HeaderMap,
    /// The client's IP address.
    pub client_address: String,
    /// The same in every log line about this request.
    pub id: String,
}

/// The client is let in.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// Who it is.
    pub subject: Option<String>,
    /// The channels that it gets; `None` for all that it asked for.
    pub channels: Option<Vec<String>>,
    /// When the stream ends, ms since 1970.
    pub expires_at: Option<u64>,
    /// Nothing older than this is replayed, ms since 1970.
    pub replay_since: Option<u64>,
    /// For the head of the response.
    pub headers: HeaderMap,
}

/// The client is kept out, in the policy's own words.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// From 200 to 599.
    pub status: StatusCode,
    /// Without those that the gateway owns.
    pub headers: HeaderMap,
    /// As it stands.
    pub body: Bytes,
}

impl Rejection {
    /// That of a client whose right was taken away for a while: the host's word, and not the policy's.
    fn revoked() -> Self {
        Self { status: StatusCode::FORBIDDEN, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// Why there is no answer. The client is kept out, and not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No policy is in force.
    #[error("no policy is in force")]
    NoPolicy,
    /// The component trapped.
    #[error("the policy trapped: {0}")]
    Trap(String),
    /// The component used up its CPU time.
    #[error("the policy used more CPU time than policy.cpu-time allows")]
    Cpu,
    /// The decision took too long, by the clock on the wall.
    #[error("the policy took longer than policy.timeout allows")]
    Timeout,
    /// The component asked for more memory than it may have.
    #[error("the policy wanted more memory than policy.max-memory allows")]
    Memory,
    /// All instances were busy for too long.
    #[error("no instance became free within policy.queue-timeout")]
    Busy,
    /// The answer is not one that the interface allows.
    #[error("the policy's answer is invalid: {0}")]
    InvalidAnswer(String),
    /// The policy asked for more than it may in one decision.
    #[error("the policy went beyond {0} in one decision")]
    Limit(&'static str),
    /// The host could not make an instance.
    #[error("no instance could be made: {0}")]
    Host(String),
}

impl Failure {
    /// All the names that [`Self::kind`] has.
    pub const KINDS: [&str; 9] =
        ["no-policy", "trap", "cpu", "timeout", "memory", "busy", "invalid-answer", "limit", "host"];

    /// A short name for logs and the playground.
    #[must_use]
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

/// What came of asking.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// In.
    Allowed(Grant),
    /// Out, by the policy.
    Rejected(Rejection),
    /// Out, because it could not be decided.
    Failed(Failure),
}

/// A decision, with what is told of it in logs and in the playground.
#[derive(Clone, Debug)]
pub struct Decision {
    /// In or out.
    pub outcome: Outcome,
    /// The policy's own reason.
    pub reason: Option<String>,
    /// Whether it was decided before, and given again.
    pub cached: bool,
    /// The policy said yes, and the host no: the right was taken away for a while.
    pub revoked: bool,
    /// How long it took, waiting for an instance included.
    pub took: Duration,
    /// The policy that decided; none for `--allow-all` and where there was none.
    pub by: Option<Arc<About>>,
}

impl Decision {
    /// The digest of the policy that decided, `sha256:…`; empty where there was none.
    #[must_use]
    pub fn policy(&self) -> &str {
        self.by.as_ref().map_or("", |about| &about.digest)
    }
}

/// The bounds of one decision and of all together.
#[derive(Clone, Debug)]
pub struct Limits {
    /// CPU time of one decision.
    pub cpu: Duration,
    /// One decision by the clock on the wall, time in look-ups included.
    pub timeout: Duration,
    /// Bytes of all memories and tables of one instance.
    pub memory: usize,
    /// Decisions at once.
    pub concurrency: usize,
    /// Instances that are made ahead, for policies that take long to start.
    pub prepared: usize,
    /// A decision waits so long for a free instance.
    pub queue_timeout: Duration,
    /// Bytes of an answer: headers and body.
    pub answer: usize,
    /// One look-up.
    pub lookup_timeout: Duration,
    /// Look-ups of one decision.
    pub lookups: u32,
    /// Requests of one decision.
    pub requests: u32,
    /// Lines in the log a second, of all decisions together.
    pub log_rate: u32,
    /// Decisions of a candidate at once, beside the others.
    pub shadow: usize,
    /// Compiling a policy, by the clock on the wall.
    pub compile_timeout: Duration,
    /// Bytes of answers that are given again.
    pub cache: usize,
    /// The longest time that one is given again.
    pub cache_max_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
            memory: 64 << 20,
            concurrency: 256,
            prepared: 8,
            queue_timeout: Duration::from_secs(1),
            answer: 1 << 20,
            lookup_timeout: Duration::from_secs(1),
            lookups: 64,
            requests: 8,
            log_rate: 100,
            shadow: 4,
            compile_timeout: Duration::from_secs(120),
            cache: 16 << 20,
            cache_max_age: Duration::from_secs(300),
        }
    }
}
