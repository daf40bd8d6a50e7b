//! What a policy decided.

use std::fmt;

use crate::bindings::tidegate::policy::types::{Grant, Header, Rejection};

/// What a policy decided, and what else it said and did. As text it is `allowed alice`, or `403 Not a team member`.
#[derive(Debug)]
pub struct Answer {
    pub(super) result: Result<Grant, Rejection>,
    pub(super) said: Said,
}

#[derive(Debug, Default)]
pub(super) struct Said {
    pub reason: Option<String>,
    pub replay_since: Option<u64>,
    pub cache: Option<(u32, Vec<String>)>,
    pub any_address: bool,
    pub log: Vec<String>,
    pub lookups: Vec<String>,
}

impl Answer {
    /// Whether the client is let in.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.result.is_ok()
    }

    /// Who is let in.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.result.as_ref().ok()?.subject.as_deref()
    }

    /// The channels of whoever is let in; none for all.
    #[must_use]
    pub fn channels(&self) -> Option<&[String]> {
        self.result.as_ref().ok()?.channels.as_deref()
    }

    /// When the grant ends, ms since 1970.
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

    /// Names and values of the response's headers, in order.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, String)> {
        let headers = self.result.as_ref().map_or_else(|rejection| &rejection.headers, |grant| &grant.headers);
        let text = |header: &Header| (header.name.clone(), String::from_utf8_lossy(&header.value).into_owned());
        headers.iter().map(text).collect()
    }

    /// Why, as the operator's log has it.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.said.reason.as_deref()
    }

    /// Nothing older is replayed.
    #[must_use]
    pub fn replay_since(&self) -> Option<u64> {
        self.said.replay_since
    }

    /// For how many seconds the answer may be kept, and by which headers it varies.
    #[must_use]
    pub fn cache(&self) -> Option<(u32, &[String])> {
        self.said.cache.as_ref().map(|(seconds, vary)| (*seconds, vary.as_slice()))
    }

    /// Whether a kept answer holds for any address.
    #[must_use]
    pub fn is_for_any_address(&self) -> bool {
        self.said.any_address
    }

    /// The lines of the log, `warn: …`.
    #[must_use]
    pub fn log(&self) -> &[String] {
        &self.said.log
    }

    /// The keys that were looked up, in order.
    #[must_use]
    pub fn lookups(&self) -> &[String] {
        &self.said.lookups
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(grant) => write!(f, "allowed {}", grant.subject.as_deref().unwrap_or("anybody")),
            Err(rejection) => write!(f, "{} {}", rejection.status, String::from_utf8_lossy(&rejection.body)),
        }
    }
}
