//! A decision's answer as it is told to operators: no header, no body, so no cookie and nothing that a client was sent.

use serde::Serialize;

use crate::audit::mask::{FieldMask, MaskedField};
use crate::policy::{Decision, Outcome};

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DecisionSummary {
    /// `allowed`, `rejected` or `error`; `revoked` where the policy allowed what was taken away for a while.
    pub outcome: &'static str,
    /// Of a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Who it is, by the policy's grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The channels that were granted, where those are not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<Vec<String>>,
    /// When the grant ends, ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The policy's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl DecisionSummary {
    /// As it was answered.
    #[must_use]
    pub fn new(decision: &Decision) -> Self {
        let outcome = match &decision.outcome {
            Outcome::Allowed(_) if decision.revoked => "revoked",
            Outcome::Allowed(_) => "allowed",
            Outcome::Rejected(_) => "rejected",
            Outcome::Failed(_) => "error",
        };
        let mut said = Self {
            outcome,
            status: None,
            kind: None,
            subject: None,
            granted: None,
            expires_at: None,
            reason: decision.reason.clone(),
        };
        match &decision.outcome {
            Outcome::Allowed(grant) => {
                said.subject.clone_from(&grant.subject);
                said.granted.clone_from(&grant.channels);
                said.expires_at = grant.expires_at;
            }
            Outcome::Rejected(rejection) => said.status = Some(rejection.status.as_u16()),
            Outcome::Failed(failure) => said.kind = Some(failure.kind()),
        }
        said
    }

    /// As it may be shown.
    #[must_use]
    pub fn masked(self, mask: &FieldMask) -> Self {
        Self {
            subject: self.subject.map(|subject| mask.show(MaskedField::Subject, &subject)),
            granted: self.granted.map(|granted| mask.all(MaskedField::Channels, &granted)),
            reason: self.reason.map(|reason| mask.show(MaskedField::Reason, &reason)),
            ..self
        }
    }

    /// Bytes of its texts, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        text(&self.subject) + text(&self.reason) + self.granted.as_ref().map_or(0, |granted| texts(granted))
    }
}

/// Bytes of these texts, about.
#[must_use]
pub fn texts(texts: &[String]) -> usize {
    texts.iter().map(|text| size_of::<String>() + text.len()).sum()
}
