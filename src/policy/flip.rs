//! Two answers to one request, side by side.

use serde::Serialize;

use super::cases::answer::Answer;
use super::{Decision, Outcome};

/// What became another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flip {
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

impl Flip {
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

    /// The same for kinds of answers, as [`Answer::kind`] names them.
    #[must_use]
    pub const fn of(before: Kind, after: Kind, differ: bool) -> Option<Self> {
        match (before, after) {
            (Kind::Allow, Kind::Reject) => Some(Self::AllowToReject),
            (Kind::Allow, Kind::Error) => Some(Self::AllowToError),
            (Kind::Reject, Kind::Allow) => Some(Self::RejectToAllow),
            (Kind::Reject, Kind::Error) => Some(Self::RejectToError),
            (Kind::Error, Kind::Allow) => Some(Self::ErrorToAllow),
            (Kind::Error, Kind::Reject) => Some(Self::ErrorToReject),
            (Kind::Allow, Kind::Allow) | (Kind::Reject, Kind::Reject) | (Kind::Error, Kind::Error) => {
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
pub enum Kind {
    /// In.
    Allow,
    /// Out, by the policy.
    Reject,
    /// Out, because it could not be decided.
    Error,
}

const fn kind(outcome: &Outcome) -> Kind {
    match outcome {
        Outcome::Allowed(_) => Kind::Allow,
        Outcome::Rejected(_) => Kind::Reject,
        Outcome::Failed(_) => Kind::Error,
    }
}

/// The parts of two answers that differ. Reasons are for people, and the words of an error are not its kind.
#[must_use]
pub fn differences(before: &Decision, after: &Decision, channels: &[String]) -> Vec<&'static str> {
    answers_differ(&Answer::new(before, channels), &Answer::new(after, channels))
}

/// The same for answers. Those of different kinds have no parts to compare.
#[must_use]
pub fn answers_differ(before: &Answer, after: &Answer) -> Vec<&'static str> {
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
