//! The stages of an activation, and the errors of those that fail.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::policy::info::PolicyOrigin;
use crate::util::named::named_variants;

/// A stage of the activation pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The bundle was read.
    Fetched,
    /// The signature is valid, or none is required.
    Verified,
    /// The component is machine code.
    Compiled,
    /// Everything that the policy imports and requires is available.
    Linked,
    /// The test cases pass.
    Tested,
    /// The policy makes the decisions.
    Active,
}

named_variants!(Stage {
    Fetched => "fetched",
    Verified => "verified",
    Compiled => "compiled",
    Linked => "linked",
    Tested => "tested",
    Active => "active",
});

impl Stage {
    /// The stage after this one.
    pub fn next(self) -> Self {
        Self::ALL.into_iter().find(|stage| *stage > self).unwrap_or(Self::Active)
    }
}

/// Longest reason in bytes: it may quote a response of any length, and the status keeps it.
const MAX_REASON_BYTES: usize = 4 << 10;

/// The error of a stage that was not reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageError {
    pub stage: Stage,
    /// For operators.
    pub reason: String,
}

impl StageError {
    /// Shortens the reason, if it is too long.
    pub fn new(stage: Stage, reason: impl ToString) -> Self {
        let mut reason = reason.to_string();
        if reason.len() > MAX_REASON_BYTES {
            reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
            reason.push('…');
        }
        Self { stage, reason }
    }
}

/// The error of a policy that was not activated.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("the new policy could not be {}: {reason}", participle(*stage))]
pub struct ActivationError {
    /// The stage that it did not reach.
    pub stage: Stage,
    /// For operators.
    pub reason: String,
    /// When the stage failed, ms since 1970.
    pub time: u64,
    /// `sha256:…` of the component, if there was one.
    pub digest: Option<String>,
    /// Where it came from.
    #[serde(flatten)]
    pub origin: PolicyOrigin,
}

/// The result of an activation, or of a part of it. The status shares the error.
pub type ActivationResult<T> = Result<T, Arc<ActivationError>>;

const fn participle(stage: Stage) -> &'static str {
    match stage {
        Stage::Fetched => "read",
        Stage::Verified => "verified",
        Stage::Compiled => "compiled",
        Stage::Linked => "linked",
        Stage::Tested | Stage::Active => "activated",
    }
}
