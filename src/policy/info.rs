//! What a policy is, as operators see it.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::artifact::signature::Statement;

/// Where a policy comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyOrigin {
    /// For people: `file policy.wasm`, `fleet`, `control port`.
    pub source: String,
    /// The number under which it was signed or pushed, where there is one. In a fleet it only goes upwards.
    pub sequence: Option<u64>,
    /// Whether it is gone after a restart.
    pub until_restart: bool,
    /// What was signed, where it had to be.
    #[serde(skip)]
    pub signed: Option<Statement>,
}

/// What is in force, as it is told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyInfo {
    /// Counts the activations of this process, from 1.
    #[serde(rename = "number")]
    pub generation: u64,
    /// `sha256:…` of the component.
    #[serde(serialize_with = "as_text")]
    pub digest: Arc<str>,
    /// `sha256:…` of the cases that came with it.
    #[serde(serialize_with = "as_optional_text")]
    pub cases: Option<Arc<str>>,
    /// In force since, ms since 1970.
    pub since: u64,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: PolicyOrigin,
}

fn as_text<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

fn as_optional_text<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
    text.as_deref().serialize(to)
}
