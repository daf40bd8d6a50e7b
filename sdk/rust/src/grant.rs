//! Letting a client in.

use std::time::Duration;

use crate::bindings::tidegate::policy::types;
use crate::{answer, context};

/// Lets a client in.
#[derive(Clone, Debug)]
#[must_use = "a grant lets nobody in until it is returned"]
pub struct Grant {
    pub(crate) inner: types::Grant,
    pub(crate) reason: Option<String>,
}

impl Grant {
    /// For a user of that name or id: it stands in logs, and limits and revocation go by it. Other clients never see it.
    pub fn to(subject: impl Into<String>) -> Self {
        Self::new(Some(subject.into()))
    }

    /// For whoever it is.
    pub fn to_anybody() -> Self {
        Self::new(None)
    }

    fn new(subject: Option<String>) -> Self {
        Self { inner: types::Grant { subject, channels: None, expires_at: None, headers: Vec::new() }, reason: None }
    }

    /// Only these of the channels that were asked for; without this it is all of them.
    pub fn channels<S: Into<String>>(mut self, channels: impl IntoIterator<Item = S>) -> Self {
        self.inner.channels = Some(channels.into_iter().map(Into::into).collect());
        self
    }

    /// Until then, in ms since 1970. The policy is asked again before.
    pub fn expires_at(mut self, time: u64) -> Self {
        self.inner.expires_at = Some(time);
        self
    }

    /// For so long from now.
    pub fn expires_in(self, time: Duration) -> Self {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.expires_at(context::now().saturating_add(time))
    }

    /// A header of the response: `set-cookie`, or one that begins with `x-`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.inner.headers.push(types::Header { name: name.into(), value: value.into() });
        self
    }

    /// Why, for the operator's log.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
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
