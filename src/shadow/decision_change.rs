//! Two answers to one request, side by side.

use serde::Serialize;

use crate::policy::decision_view::DecisionView;
use crate::policy::{Decision, Outcome};

/// What became another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionChange {
    /// Kept out, and was let in before.
    AllowToReject,
    /// Let in, and was kept out before.
    RejectToAllow,
    /// Not decided, and was let in before.
    AllowToError,
    /// Not decided, and was kept out by the policy before.
    RejectToError,
    /// Let in, and was not decided before.
    ErrorToAllow,
    /// Kept out by the policy, and was not decided before.
    ErrorToReject,
    /// Another answer of the same kind.
    Other,
}

impl DecisionChange {
    /// All that change who is let in, or whether it can be decided.
    pub const KINDS: [Self; 6] = [
        Self::AllowToReject,
        Self::RejectToAllow,
        Self::AllowToError,
        Self::RejectToError,
        Self::ErrorToAllow,
        Self::ErrorToReject,
    ];

    /// What lies between these outcomes; none if they are the same. `differ` says whether their parts do.
    #[must_use]
    pub const fn between(before: &Outcome, after: &Outcome, differ: bool) -> Option<Self> {
        Self::of(kind(before), kind(after), differ)
    }

    /// The same for kinds of answers, as [`DecisionView::kind`] names them.
    #[must_use]
    pub const fn of(before: OutcomeKind, after: OutcomeKind, differ: bool) -> Option<Self> {
        match (before, after) {
            (OutcomeKind::Allow, OutcomeKind::Reject) => Some(Self::AllowToReject),
            (OutcomeKind::Allow, OutcomeKind::Error) => Some(Self::AllowToError),
            (OutcomeKind::Reject, OutcomeKind::Allow) => Some(Self::RejectToAllow),
            (OutcomeKind::Reject, OutcomeKind::Error) => Some(Self::RejectToError),
            (OutcomeKind::Error, OutcomeKind::Allow) => Some(Self::ErrorToAllow),
            (OutcomeKind::Error, OutcomeKind::Reject) => Some(Self::ErrorToReject),
            (OutcomeKind::Allow, OutcomeKind::Allow)
            | (OutcomeKind::Reject, OutcomeKind::Reject)
            | (OutcomeKind::Error, OutcomeKind::Error) => {
                if differ {
                    Some(Self::Other)
                } else {
                    None
                }
            }
        }
    }

    /// For people.
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

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// In.
    Allow,
    /// Out, by the policy.
    Reject,
    /// Out, because it could not be decided.
    Error,
}

const fn kind(outcome: &Outcome) -> OutcomeKind {
    match outcome {
        Outcome::Allowed(_) => OutcomeKind::Allow,
        Outcome::Rejected(_) => OutcomeKind::Reject,
        Outcome::Failed(_) => OutcomeKind::Error,
    }
}

/// The parts of two answers that differ. Reasons are for people, and the words of an error are not its kind.
#[must_use]
pub fn differences(before: &Decision, after: &Decision, channels: &[String]) -> Vec<&'static str> {
    answers_differ(&DecisionView::new(before, channels), &DecisionView::new(after, channels))
}

/// The same for answers. Those of different kinds have no parts to compare.
#[must_use]
pub fn answers_differ(before: &DecisionView, after: &DecisionView) -> Vec<&'static str> {
    if before.kind() != after.kind() {
        return Vec::new();
    }
    let mut fields: Vec<&'static str> = before.fields.iter().chain(&after.fields).map(|(field, _)| *field).collect();
    let mut seen = Vec::new();
    fields.retain(|field| {
        let is_new = !seen.contains(field);
        seen.push(*field);
        is_new && !["reason", "message"].contains(field) && before.get(field) != after.get(field)
    });
    fields
}
