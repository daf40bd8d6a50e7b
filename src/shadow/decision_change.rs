//! Compares two decisions on one request.

use serde::Serialize;

use crate::policy::decision_view::DecisionView;
use crate::policy::{Decision, Outcome};

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

    /// The change between two outcomes, if any. `differ` says whether their fields differ.
    #[must_use]
    pub const fn between(before: &Outcome, after: &Outcome, differ: bool) -> Option<Self> {
        Self::between_kinds(kind(before), kind(after), differ)
    }

    /// The same for kinds of outcomes.
    #[must_use]
    pub const fn between_kinds(before: OutcomeKind, after: OutcomeKind, differ: bool) -> Option<Self> {
        match (before, after) {
            (OutcomeKind::Allow, OutcomeKind::Reject) => Some(Self::AllowToReject),
            (OutcomeKind::Allow, OutcomeKind::Error) => Some(Self::AllowToError),
            (OutcomeKind::Reject, OutcomeKind::Allow) => Some(Self::RejectToAllow),
            (OutcomeKind::Reject, OutcomeKind::Error) => Some(Self::RejectToError),
            (OutcomeKind::Error, OutcomeKind::Allow) => Some(Self::ErrorToAllow),
            (OutcomeKind::Error, OutcomeKind::Reject) => Some(Self::ErrorToReject),
            _ if differ => Some(Self::Other),
            _ => None,
        }
    }

    /// For text output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllowToReject => "allow → reject",
            Self::RejectToAllow => "reject → allow",
            Self::AllowToError => "allow → error",
            Self::RejectToError => "reject → error",
            Self::ErrorToAllow => "error → allow",
            Self::ErrorToReject => "error → reject",
            Self::Other => "another answer",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    Allow,
    Reject,
    Error,
}

const fn kind(outcome: &Outcome) -> OutcomeKind {
    match outcome {
        Outcome::Allowed(_) => OutcomeKind::Allow,
        Outcome::Rejected(_) => OutcomeKind::Reject,
        Outcome::Failed(_) => OutcomeKind::Error,
    }
}

/// The fields in which two decisions differ.
#[must_use]
pub fn changed_fields(before: &Decision, after: &Decision, channels: &[String]) -> Vec<&'static str> {
    view_changes(&DecisionView::new(before, channels), &DecisionView::new(after, channels))
}

/// The same for views. There are none between decisions of different kinds. Reasons and error messages do not count: their wording does
/// not change the decision.
#[must_use]
pub fn view_changes(before: &DecisionView, after: &DecisionView) -> Vec<&'static str> {
    if before.kind() != after.kind() {
        return Vec::new();
    }
    let only_after = after.fields.iter().filter(|(field, _)| before.get(field).is_none());
    let fields = before.fields.iter().chain(only_after).map(|(field, _)| *field);
    fields.filter(|field| !["reason", "message"].contains(field) && before.get(field) != after.get(field)).collect()
}
