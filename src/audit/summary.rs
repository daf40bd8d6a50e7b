//! A decision as operators see it, without headers and body, so without cookies and response data.

use serde::Serialize;

use crate::audit::mask::{FieldMask, MaskedField};
use crate::policy::{Decision, Outcome};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DecisionSummary {
    /// `allowed`, `rejected` or `error`; `revoked` if a revocation overrides the policy's grant.
    pub outcome: &'static str,
    /// HTTP status of a rejection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Kind of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Subject of a grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The granted channels, if they are not all that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<Vec<String>>,
    /// Expiry of a grant, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The policy's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl DecisionSummary {
    pub fn new(decision: &Decision) -> Self {
        let outcome = match &decision.outcome {
            Outcome::Allowed(_) if decision.revoked => "revoked",
            Outcome::Allowed(_) => "allowed",
            Outcome::Rejected(_) => "rejected",
            Outcome::Failed(_) => "error",
        };
        let mut summary = Self {
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
                summary.subject.clone_from(&grant.subject);
                summary.granted.clone_from(&grant.channels);
                summary.expires_at = grant.expires_at;
            }
            Outcome::Rejected(rejection) => summary.status = Some(rejection.status.as_u16()),
            Outcome::Failed(failure) => summary.kind = Some(failure.kind()),
        }
        summary
    }

    /// Masks its fields.
    pub fn masked(self, mask: &FieldMask) -> Self {
        Self {
            subject: self.subject.map(|subject| mask.mask(MaskedField::Subject, &subject)),
            granted: self.granted.map(|granted| mask.mask_all(MaskedField::Channels, &granted)),
            reason: self.reason.map(|reason| mask.mask(MaskedField::Reason, &reason)),
            ..self
        }
    }

    /// Approximate bytes of its strings.
    pub fn size(&self) -> usize {
        let length = |string: &Option<String>| string.as_ref().map_or(0, String::len);
        length(&self.subject) + length(&self.reason) + self.granted.as_ref().map_or(0, |granted| strings_size(granted))
    }
}

/// Approximate bytes of these strings.
pub fn strings_size(strings: &[String]) -> usize {
    strings.iter().map(|string| size_of::<String>() + string.len()).sum()
}
