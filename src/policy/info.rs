//! What a policy is, as operators see it.

use serde::Serialize;

use crate::artifact::signature::Signature;

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyOrigin {
    /// For people: `file policy.wasm`, `fleet`, `control port`.
    pub source: String,
    /// The sequence with which it was signed or pushed, if it was. In a fleet it only increases.
    pub sequence: Option<u64>,
    /// Whether a restart activates it again; false for a policy that could not be written to its file.
    pub persisted: bool,
    /// The verified signature, where one is required.
    #[serde(skip)]
    pub signed: Option<Signature>,
}

impl Default for PolicyOrigin {
    fn default() -> Self {
        Self { source: String::new(), sequence: None, persisted: true, signed: None }
    }
}

/// The description of a policy generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyInfo {
    /// Counts the activations of this process, from 1.
    pub generation: u64,
    /// `sha256:…` of the component.
    pub digest: Box<str>,
    /// `sha256:…` of the cases that came with it.
    pub cases: Option<Box<str>>,
    /// When it was activated, in milliseconds since the Unix epoch.
    pub since: u64,
    #[serde(flatten)]
    pub origin: PolicyOrigin,
}
