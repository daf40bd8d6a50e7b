//! The answer that admits a client.

use std::time::Duration;

use crate::bindings::tidegate::policy::types;
use crate::{answer, context};

/// Admits a client.
#[derive(Clone, Debug)]
#[must_use = "a grant has no effect until it is returned"]
pub struct Grant {
    pub(crate) inner: types::Grant,
    pub(crate) reason: Option<String>,
}

impl Grant {
    /// Admits a user with this name or id. Logs, limits and revocation use the subject; other clients never see it.
    pub fn to(subject: impl Into<String>) -> Self {
        Self::new(Some(subject.into()))
    }

    /// Admits a client without a subject.
    pub fn anonymous() -> Self {
        Self::new(None)
    }

    fn new(subject: Option<String>) -> Self {
        Self { inner: types::Grant { subject, channels: None, expires_at: None, headers: Vec::new() }, reason: None }
    }

    /// Grants only these of the requested channels; the default is all of them.
    pub fn channels<S: Into<String>>(mut self, channels: impl IntoIterator<Item = S>) -> Self {
        self.inner.channels = Some(channels.into_iter().map(Into::into).collect());
        self
    }

    /// The end of the grant, in ms since 1970. The stream is rotated before that, and the policy decides again.
    pub fn expires_at(mut self, time: u64) -> Self {
        self.inner.expires_at = Some(time);
        self
    }

    /// The end of the grant, as a time from now.
    pub fn expires_in(self, time: Duration) -> Self {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.expires_at(context::now().saturating_add(time))
    }

    /// Adds a response header: `set-cookie`, or one that begins with `x-`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.inner.headers.push(types::Header { name: name.into(), value: value.into() });
        self
    }

    /// The reason for the decision, for the operator's log; never sent to the client.
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub(crate) fn answer(self) -> types::Grant {
        if let Some(reason) = &self.reason {
            answer::reason(reason);
        }
        self.inner
    }
}
