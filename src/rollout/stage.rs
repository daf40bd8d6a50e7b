//! How far a policy came on its way into force, and why it came no further.

use serde::{Deserialize, Serialize};

use crate::policy::info::PolicyOrigin;

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Its bytes are here.
    Fetched,
    /// Its signature is right, or none is wanted.
    Verified,
    /// It is machine code.
    Compiled,
    /// All that it imports and requires is there.
    Linked,
    /// Its cases pass.
    Tested,
    /// It decides.
    Active,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::Fetched, Self::Verified, Self::Compiled, Self::Linked, Self::Tested, Self::Active];

    /// Its name in status, log and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Verified => "verified",
            Self::Compiled => "compiled",
            Self::Linked => "linked",
            Self::Tested => "tested",
            Self::Active => "active",
        }
    }

    /// The one behind it.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Fetched => Self::Verified,
            Self::Verified => Self::Compiled,
            Self::Compiled => Self::Linked,
            Self::Linked => Self::Tested,
            Self::Tested | Self::Active => Self::Active,
        }
    }
}

/// Bytes of a reason: it may quote an answer of any length, and is kept.
const WORDS: usize = 4 << 10;

/// A stage that was not reached, and why.
#[derive(Clone, Debug)]
pub struct StageError {
    /// What it did not become.
    pub stage: Stage,
    /// Why, for people.
    pub why: String,
}

impl StageError {
    /// Why a stage was not reached.
    pub fn new(stage: Stage, why: impl ToString) -> Self {
        let mut why = why.to_string();
        if why.len() > WORDS {
            why.truncate(why.floor_char_boundary(WORDS));
            why.push('…');
        }
        Self { stage, why }
    }
}

/// Why something did not take force.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("it could not be {}: {reason}", words(*stage))]
pub struct ActivationError {
    /// The stage that it did not reach.
    pub stage: Stage,
    /// Why, for people.
    pub reason: String,
    /// When, ms since 1970.
    pub time: u64,
    /// `sha256:…` of the component, if there was one.
    pub digest: Option<String>,
    /// Where it came from.
    #[serde(flatten)]
    pub origin: PolicyOrigin,
}

const fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Fetched => "read",
        Stage::Verified => "verified",
        Stage::Compiled => "compiled",
        Stage::Linked => "linked",
        Stage::Tested | Stage::Active => "put in force",
    }
}
