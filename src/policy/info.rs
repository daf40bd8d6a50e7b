//! What operators see of a policy.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::artifact::signature::Statement;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyOrigin {
    /// For display: `file policy.wasm`, `fleet` or `control port`.
    pub source: String,
    /// The sequence that was signed or pushed, if any. In a fleet it only increases.
    pub sequence: Option<u64>,
    /// Whether the policy is lost at a restart.
    pub until_restart: bool,
    /// What was signed, if a signature was required.
    #[serde(skip)]
    pub signed: Option<Statement>,
}

/// The active policy, for status, metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyInfo {
    /// The generation: counts the activations of this process, from 1.
    pub number: u64,
    /// `sha256:…` of the component.
    #[serde(serialize_with = "as_text")]
    pub digest: Arc<str>,
    /// `sha256:…` of its test cases.
    #[serde(serialize_with = "as_optional_text")]
    pub cases: Option<Arc<str>>,
    /// Active since, in ms since the Unix epoch.
    pub since: u64,
    #[serde(flatten)]
    pub origin: PolicyOrigin,
}

fn as_text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

fn as_optional_text<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(to)
}
