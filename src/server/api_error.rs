//! Why a request to either port fails, and what HTTP makes of it: status, code, the client's text and the operator's text. This is the only
//! place that maps a cause to HTTP; handlers return `Result<Response, ApiError>`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{ALLOW, HeaderValue, RETRY_AFTER};
use serde_json::json;

use crate::artifact::digest::Digest;
use crate::artifact::signature::SignatureError;
use crate::fleet::push::PushError;
use crate::fleet::record::MissingBlob;
use crate::fleet::revocation::RevokeError;
use crate::fleet::shadow::push::NoShadowPolicy;
use crate::policy::Failure;
use crate::policy::info::PolicyInfo;
use crate::rollout::replace::ReplaceError;
use crate::rollout::stage::{ActivationError, Stage};
use crate::server::body_budget::NoMemory;
use crate::server::data::request::InvalidAck;
use crate::server::host::InvalidHost;
use crate::server::respond::{self, Response};
use crate::store::StoreError;
use crate::store::command::CommandError;
use crate::util::shares::Refusal;

/// Longest pause between two parts of a body.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a body cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// With the limit in bytes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// The client disconnected, or violated HTTP.
    #[error("the body ended early")]
    Incomplete,
    /// A slow client must not hold memory and permits without end.
    #[error("timeout while reading the body: {} s without a byte, or {total} s in total", BODY_IDLE_TIMEOUT.as_secs())]
    Timeout { total: u64 },
}

/// When to repeat a request for which there was no memory: the others have ended by then, or have been ended.
pub const RETRY_AFTER_SECONDS: &str = "2";

/// Codes of the errors with which the gateway itself refuses a stream request.
pub const REFUSAL_CODES: [&str; 6] = [
    "invalid_ack",
    "too_many_channels",
    "channel_not_allowed",
    "too_many_streams",
    "channel_memory_exhausted",
    "revoked",
];

/// Why a request fails. [`Display`](std::fmt::Display) is the operator's text; [`ApiError::message`] is the client's.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("nothing is served at this path")]
    NotFound,
    #[error("this path allows {allow} only")]
    MethodNotAllowed { allow: String },
    #[error("the request line and headers are larger than {max_bytes} bytes (server.max-header-size)")]
    HeaderTooLarge { max_bytes: usize },
    #[error(transparent)]
    InvalidHost(#[from] InvalidHost),
    #[error("requests of web pages of other origins are not allowed")]
    OriginNotAllowed,
    #[error("use the address of this port, or localhost, or set control.token")]
    HostNotAllowed,
    #[error("{}", if *.token_sent { "the token is not the control port's token" } else { "the control port requires its token: authorization: Bearer …" })]
    Unauthorized { token_sent: bool },
    #[error("the bearer token is not one of redis-rest.tokens")]
    InvalidRestToken,
    #[error(
        "`tidegate dev` answers this machine only, by an IP address or localhost; --playground-unsafe opens it to all"
    )]
    LoopbackOnly,
    #[error("{0}")]
    InvalidParameter(String),
    #[error("{expected}")]
    UnsupportedMediaType { expected: &'static str },
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// The code depends on what the body should have been.
    #[error("{reason}")]
    InvalidBody { code: &'static str, reason: String },

    #[error(transparent)]
    InvalidAck(#[from] InvalidAck),
    #[error("the request has {count} channels; at most {max} are allowed (stream.max-channels-per-stream)")]
    TooManyChannels { count: usize, max: usize },
    #[error("{0:?} is not a channel here (channels.allow, channels.deny)")]
    ChannelNotAllowed(String),
    #[error("{}", too_many_streams(*.max, *.refusal))]
    TooManyStreams { max: usize, refusal: Refusal },
    #[error("{}", channel_memory_exhausted(*.0))]
    ChannelMemoryExhausted(Refusal),
    #[error("an operator revoked this access for a while")]
    Revoked,
    #[error(transparent)]
    Decision(#[from] Failure),

    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("an event of more than {max_bytes} bytes (stream.max-event-size) cannot be delivered")]
    EventTooLarge { max_bytes: usize },

    #[error(transparent)]
    Revoke(#[from] RevokeError),
    #[error("there is no revocation with this id")]
    NoSuchRevocation,
    /// The store could not distribute the revocation; this node ended its own streams.
    #[error(
        "{cause}; this node ended {streams} of its streams, but it is unknown whether the revocation was stored and other nodes received it: \
         revoke again when the store is available"
    )]
    RevokedOnThisNodeOnly { streams: usize, cause: StoreError },

    #[error("{0}")]
    PolicyNotManagedHere(&'static str),
    #[error("{0}")]
    NoFleet(&'static str),
    #[error("{max} policies are being uploaded already; try again")]
    TooManyUploads { max: usize },
    #[error("{}", active_policy(.active.as_deref()))]
    PreconditionFailed { active: Option<Arc<PolicyInfo>> },
    #[error("another policy was sent while this one waited")]
    Superseded,
    #[error("the activation was not complete after {within:?}; nothing was changed")]
    NotPrepared { within: Duration },
    #[error("cannot roll back: {0}")]
    NoPreviousPolicy(String),
    #[error(
        "the fleet's policies are signed, and no node accepts a smaller sequence: send a signature of the earlier policy with a greater one \
         (`tidegate policy rollback --key` does)"
    )]
    SignatureRequired,
    #[error(transparent)]
    ActivationFailed(#[from] Arc<ActivationError>),
    #[error("{cause}")]
    InvalidSignature { cause: SignatureError, digest: Digest },
    #[error(transparent)]
    Push(#[from] PushError),

    #[error("there is no shadow policy: PUT one to /v1/policy/shadow (`tidegate policy shadow`)")]
    NoShadowPolicy,
    #[error("the shadow policy is {digest}")]
    OtherShadowPolicy { digest: String },
    #[error("the shadow policy was replaced or removed meanwhile")]
    ShadowPolicyChanged,
    #[error("{0}")]
    ShadowPolicyUnreadable(String),

    #[error("{0}")]
    Internal(String),
}

fn too_many_streams(max: usize, refusal: Refusal) -> String {
    match refusal {
        Refusal::Exhausted => format!("this node has {max} streams already (stream.max-streams)"),
        Refusal::ShareExceeded => {
            format!("this node has almost {max} streams (stream.max-streams), and this client has its share of them")
        }
    }
}

fn channel_memory_exhausted(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Exhausted => "there is no room for more channels on this node (stream.channel-memory)",
        Refusal::ShareExceeded => {
            "there is little room for more channels on this node (stream.channel-memory), and this client has its share of it"
        }
    }
}

fn active_policy(active: Option<&PolicyInfo>) -> String {
    let digest = active.map_or("no policy", |info| &*info.digest);
    format!("{digest} is active, which if-match or if-none-match does not allow")
}

impl ApiError {
    /// The status and the code, for programs.
    const fn classify(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::NotFound => (S::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed { .. } => (S::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::HeaderTooLarge { .. } => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_too_large"),
            Self::InvalidHost(_) => (S::BAD_REQUEST, "invalid_host"),
            Self::OriginNotAllowed => (S::FORBIDDEN, "origin_not_allowed"),
            Self::HostNotAllowed => (S::FORBIDDEN, "host_not_allowed"),
            Self::Unauthorized { .. } | Self::InvalidRestToken => (S::UNAUTHORIZED, "unauthorized"),
            Self::LoopbackOnly => (S::FORBIDDEN, "loopback_only"),
            Self::InvalidParameter(_) => (S::BAD_REQUEST, "invalid_parameter"),
            Self::UnsupportedMediaType { .. } => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::Body(BodyError::TooLarge(_) | BodyError::NoMemory(NoMemory::TooLarge { .. }))
            | Self::NoMemory(NoMemory::TooLarge { .. })
            | Self::Push(PushError::TooLarge { .. }) => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::Body(BodyError::NoMemory(NoMemory::Busy)) | Self::NoMemory(NoMemory::Busy) => {
                (S::SERVICE_UNAVAILABLE, "busy")
            }
            Self::Body(BodyError::Incomplete) => (S::BAD_REQUEST, "body_incomplete"),
            Self::Body(BodyError::Timeout { .. }) => (S::REQUEST_TIMEOUT, "body_timeout"),
            Self::InvalidBody { code, .. } => (S::BAD_REQUEST, code),

            Self::InvalidAck(_) => (S::BAD_REQUEST, "invalid_ack"),
            Self::TooManyChannels { .. } => (S::BAD_REQUEST, "too_many_channels"),
            Self::ChannelNotAllowed(_) => (S::FORBIDDEN, "channel_not_allowed"),
            Self::TooManyStreams { .. } => (S::SERVICE_UNAVAILABLE, "too_many_streams"),
            Self::ChannelMemoryExhausted(_) => (S::SERVICE_UNAVAILABLE, "channel_memory_exhausted"),
            Self::Revoked => (S::FORBIDDEN, "revoked"),
            Self::Decision(Failure::NoPolicy | Failure::Busy) => (S::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Decision(_) => (S::INTERNAL_SERVER_ERROR, "decision_error"),

            Self::Store(cause)
            | Self::Revoke(RevokeError::Store(cause))
            | Self::RevokedOnThisNodeOnly { cause, .. }
            | Self::Push(PushError::Store(cause) | PushError::NotCommitted(cause)) => classify_store(cause),
            Self::Push(PushError::StoreTimeout(_)) => (S::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::Command(CommandError::Unknown(_)) => (S::BAD_REQUEST, "unknown_command"),
            Self::Command(_) => (S::BAD_REQUEST, "invalid_command"),
            Self::EventTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "event_too_large"),

            Self::Revoke(RevokeError::InvalidRequest(_)) => (S::BAD_REQUEST, "invalid_revocation"),
            Self::Revoke(RevokeError::Ended(_)) => (S::CONFLICT, "revocation_ended"),
            Self::Revoke(RevokeError::Full) => (S::CONFLICT, "too_many_revocations"),
            Self::NoSuchRevocation => (S::NOT_FOUND, "no_such_revocation"),

            Self::PolicyNotManagedHere(_) => (S::CONFLICT, "policy_not_managed_here"),
            Self::NoFleet(_) => (S::CONFLICT, "no_fleet"),
            Self::TooManyUploads { .. } => (S::SERVICE_UNAVAILABLE, "busy"),
            Self::PreconditionFailed { .. } => (S::PRECONDITION_FAILED, "precondition_failed"),
            Self::Superseded | Self::Push(PushError::Superseded) => (S::CONFLICT, "superseded"),
            Self::NotPrepared { .. }
            | Self::Push(PushError::NoNodes | PushError::Expired | PushError::PrepareTimeout { .. }) => {
                (S::SERVICE_UNAVAILABLE, "not_prepared")
            }
            Self::NoPreviousPolicy(_) => (S::CONFLICT, "no_previous_policy"),
            Self::SignatureRequired => (S::CONFLICT, "signature_required"),
            Self::ActivationFailed(_) | Self::InvalidSignature { .. } => (S::UNPROCESSABLE_ENTITY, "activation_failed"),
            Self::Push(PushError::PrepareFailed(_)) => (S::UNPROCESSABLE_ENTITY, "activation_failed"),
            Self::Push(PushError::InProgress) => (S::CONFLICT, "push_in_progress"),
            Self::Push(PushError::Replaced(_) | PushError::CommitLost) => (S::CONFLICT, "replaced"),
            Self::Push(PushError::SequenceNotIncreasing { .. } | PushError::SequencesExhausted) => {
                (S::CONFLICT, "sequence_not_increasing")
            }
            Self::Push(PushError::ActivationTimeout { .. } | PushError::CommitUnknown(_)) => {
                (S::GATEWAY_TIMEOUT, "partially_applied")
            }

            Self::NoShadowPolicy => (S::NOT_FOUND, "no_shadow_policy"),
            Self::OtherShadowPolicy { .. } => (S::PRECONDITION_FAILED, "digest_mismatch"),
            Self::ShadowPolicyChanged => (S::CONFLICT, "shadow_policy_changed"),
            Self::ShadowPolicyUnreadable(_) => (S::CONFLICT, "shadow_policy_unreadable"),

            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal_error"),
        }
    }

    /// The HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.classify().0
    }

    /// The code, for programs.
    pub const fn code(&self) -> &'static str {
        self.classify().1
    }

    /// The text that the client gets. It does not disclose what the operator's text may: why a policy failed, where the store is.
    pub fn message(&self) -> String {
        match self {
            Self::Decision(Failure::NoPolicy | Failure::Busy) => "this request cannot be decided now; try again".into(),
            Self::Decision(_) => "this request could not be decided".into(),
            Self::Store(StoreError::Unavailable(_)) | Self::Push(PushError::Store(StoreError::Unavailable(_))) => {
                "the store does not answer".into()
            }
            Self::Push(PushError::NotCommitted(StoreError::Unavailable(_))) => {
                "the store does not answer; nothing was changed anywhere".into()
            }
            Self::Push(PushError::CommitUnknown(_)) => {
                "it is unknown whether the policy is active, and where: run `tidegate policy status`".into()
            }
            Self::Internal(_) => "internal error; the gateway's log has the cause".into(),
            _ => self.to_string(),
        }
    }

    /// `{"error":{"code","message",…}}` with the status. A decision's failure was logged when it was made; other server errors are logged here.
    pub fn into_response(self) -> Response {
        let (status, code) = self.classify();
        match &self {
            Self::Internal(error) => tracing::error!(error, "internal error"),
            Self::Decision(_) => {}
            error if status.is_server_error() => tracing::debug!(code, %error, "request failed"),
            _ => {}
        }
        let mut error = json!({ "code": code, "message": self.message() });
        match &self {
            Self::ActivationFailed(failure) => {
                error["stage"] = json!(failure.stage);
                error["digest"] = json!(failure.digest);
            }
            Self::InvalidSignature { digest, .. } => {
                error["stage"] = json!(Stage::Verified);
                error["digest"] = json!(digest);
            }
            Self::Push(PushError::PrepareFailed(nodes)) => error["nodes"] = json!(nodes),
            _ => {}
        }
        let mut response = respond::json(status, &json!({ "error": error }));
        if let Self::MethodNotAllowed { allow } = &self
            && let Ok(allow) = HeaderValue::from_str(allow)
        {
            response.headers_mut().insert(ALLOW, allow);
        }
        if code == "busy" {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if let Self::PreconditionFailed { active } = &self {
            response = respond::with_etag(response, active.as_deref());
        }
        response
    }

    /// A policy of the fleet cannot be fetched. `missing` is the error if the store does not have it.
    pub fn not_fetched(cause: MissingBlob, missing: fn(String) -> Self) -> Self {
        match cause {
            MissingBlob::Store(cause) => Self::Store(cause),
            cause => missing(cause.to_string()),
        }
    }
}

/// A store that refuses a command is a fault of the deployment, and so not a client error.
const fn classify_store(cause: &StoreError) -> (StatusCode, &'static str) {
    use StatusCode as S;
    match cause {
        StoreError::Unavailable(_) | StoreError::NotReady(_) => (S::SERVICE_UNAVAILABLE, "store_unavailable"),
        StoreError::WrongType => (S::CONFLICT, "wrong_type"),
        StoreError::InvalidCommand(_) | StoreError::AnswerTooLarge(_) => (S::BAD_REQUEST, "invalid_command"),
        StoreError::TokenReused(_) => (S::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
        StoreError::Refused(_) => (S::BAD_GATEWAY, "store_refused"),
    }
}

impl From<ReplaceError> for ApiError {
    fn from(cause: ReplaceError) -> Self {
        match cause {
            ReplaceError::Superseded => Self::Superseded,
            ReplaceError::PreconditionFailed(active) => Self::PreconditionFailed { active },
            ReplaceError::ShadowReplaced => Self::ShadowPolicyChanged,
            ReplaceError::NoPreviousPolicy(reason) => Self::NoPreviousPolicy(reason),
            ReplaceError::TimedOut(within) => Self::NotPrepared { within },
            ReplaceError::Activation(failure) => Self::ActivationFailed(failure),
        }
    }
}

impl From<NoShadowPolicy> for ApiError {
    fn from(cause: NoShadowPolicy) -> Self {
        match cause {
            NoShadowPolicy::Store(cause) => Self::Store(cause),
            NoShadowPolicy::None => Self::NoShadowPolicy,
            NoShadowPolicy::Changed => Self::ShadowPolicyChanged,
            unreadable @ NoShadowPolicy::Unreadable(_) => Self::ShadowPolicyUnreadable(unreadable.to_string()),
        }
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(cause: tokio::task::JoinError) -> Self {
        Self::Internal(cause.to_string())
    }
}
