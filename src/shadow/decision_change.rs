//! Compares two decisions on one request.

use serde::Serialize;

use crate::policy::decision_view::DecisionView;

/// How a decision differs from an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionChange {
    AllowToReject,
    RejectToAllow,
    AllowToError,
    RejectToError,
    ErrorToAllow,
    ErrorToReject,
    /// The same outcome with other fields.
    Other,
}

impl DecisionChange {
    /// All changes of the outcome.
    pub const OUTCOME_CHANGES: [Self; 6] = [
        Self::AllowToReject,
        Self::RejectToAllow,
        Self::AllowToError,
        Self::RejectToError,
        Self::ErrorToAllow,
        Self::ErrorToReject,
    ];

    /// The change from one decision to another, if there is any, and the fields that differ between decisions of one kind. Reasons and
    /// error messages do not count: their wording does not change the decision.
    pub fn between(before: &DecisionView, after: &DecisionView) -> Option<(Self, Vec<&'static str>)> {
        let change = match (before.kind(), after.kind()) {
            (Some("allow"), Some("status")) => Self::AllowToReject,
            (Some("allow"), Some("error")) => Self::AllowToError,
            (Some("status"), Some("allow")) => Self::RejectToAllow,
            (Some("status"), Some("error")) => Self::RejectToError,
            (Some("error"), Some("allow")) => Self::ErrorToAllow,
            (Some("error"), Some("status")) => Self::ErrorToReject,
            _ => {
                let only_after = after.fields.iter().filter(|(field, _)| before.get(field).is_none());
                let mut fields: Vec<_> = before.fields.iter().chain(only_after).map(|(field, _)| *field).collect();
                fields.retain(|field| !["reason", "message"].contains(field) && before.get(field) != after.get(field));
                return (!fields.is_empty()).then_some((Self::Other, fields));
            }
        };
        Some((change, Vec::new()))
    }

    /// For text output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowToReject => "allow → reject",
            Self::RejectToAllow => "reject → allow",
            Self::AllowToError => "allow → error",
            Self::RejectToError => "reject → error",
            Self::ErrorToAllow => "error → allow",
            Self::ErrorToReject => "error → reject",
            Self::Other => "different answer",
        }
    }
}
