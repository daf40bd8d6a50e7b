//! A decision as operators see it, without headers and body, so without cookies and response data.

use serde::Serialize;

use crate::audit::mask::{FieldMask, MaskedField};
use crate::policy::{Decision, Outcome, strings_size};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
        let summary = match &decision.outcome {
            Outcome::Allowed(grant) => Self {
                outcome: if decision.revoked { "revoked" } else { "allowed" },
                subject: grant.subject.clone(),
                granted: grant.channels.clone(),
                expires_at: grant.expires_at,
                ..Self::default()
            },
            Outcome::Rejected(rejection) => {
                Self { outcome: "rejected", status: Some(rejection.status.as_u16()), ..Self::default() }
            }
            Outcome::Failed(failure) => Self { outcome: "error", kind: Some(failure.kind()), ..Self::default() },
        };
        Self { reason: decision.reason.clone(), ..summary }
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
        length(&self.subject) + length(&self.reason) + self.granted.as_deref().map_or(0, strings_size)
    }
}
