//! The outcome of a policy's evaluation in a test.

use std::fmt;

use crate::bindings::tidegate::policy::types::{Grant, Header, Rejection};

/// A policy's decision, with the host calls that it made. As text it is `allowed alice` or `403 Not a team member`.
#[derive(Debug)]
pub struct Decision {
    pub(super) result: Result<Grant, Rejection>,
    pub(super) calls: CallRecord,
}

/// What a policy passed to the host functions.
#[derive(Debug, Default)]
pub(super) struct CallRecord {
    pub reason: Option<String>,
    pub replay_since: Option<u64>,
    pub cache: Option<(u32, Vec<String>)>,
    pub any_address: bool,
    pub log: Vec<String>,
    pub lookups: Vec<String>,
}

impl Decision {
    /// Whether the client is admitted.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.result.is_ok()
    }

    /// The subject of a grant.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.result.as_ref().ok()?.subject.as_deref()
    }

    /// The channels of a grant; `None` for all requested channels.
    #[must_use]
    pub fn channels(&self) -> Option<&[String]> {
        self.result.as_ref().ok()?.channels.as_deref()
    }

    /// When a grant expires, in ms since 1970.
    #[must_use]
    pub fn expires_at(&self) -> Option<u64> {
        self.result.as_ref().ok()?.expires_at
    }

    /// The status of a rejection.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.result.as_ref().err().map(|rejection| rejection.status)
    }

    /// The body of a rejection, as text.
    #[must_use]
    pub fn body(&self) -> Option<String> {
        self.result.as_ref().err().map(|rejection| String::from_utf8_lossy(&rejection.body).into_owned())
    }

    /// Names and values of the response headers, in order.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, String)> {
        let headers = self.result.as_ref().map_or_else(|rejection| &rejection.headers, |grant| &grant.headers);
        let text = |header: &Header| (header.name.clone(), String::from_utf8_lossy(&header.value).into_owned());
        headers.iter().map(text).collect()
    }

    /// The reason, as in the decision log.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.calls.reason.as_deref()
    }

    /// The start of the replay, in ms since 1970.
    #[must_use]
    pub fn replay_since(&self) -> Option<u64> {
        self.calls.replay_since
    }

    /// For how many seconds the gateway may cache the answer, and by which headers it varies.
    #[must_use]
    pub fn cache(&self) -> Option<(u32, &[String])> {
        self.calls.cache.as_ref().map(|(seconds, vary)| (*seconds, vary.as_slice()))
    }

    /// Whether the cached answer is valid for clients of any address.
    #[must_use]
    pub fn is_for_any_address(&self) -> bool {
        self.calls.any_address
    }

    /// The log lines, such as `warn: …`.
    #[must_use]
    pub fn log(&self) -> &[String] {
        &self.calls.log
    }

    /// The keys that were looked up, in order.
    #[must_use]
    pub fn lookups(&self) -> &[String] {
        &self.calls.lookups
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(grant) => write!(f, "allowed {}", grant.subject.as_deref().unwrap_or("anonymous")),
            Err(rejection) => write!(f, "{} {}", rejection.status, String::from_utf8_lossy(&rejection.body)),
        }
    }
}
