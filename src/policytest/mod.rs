//! Test cases for policies: requests, each with an environment and an expected decision. [`file`] reads them, [`run`] evaluates and
//! compares, [`bench`] measures. Nothing here prints.

pub(crate) mod bench;
pub mod file;
pub(crate) mod run;

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::policy::Request;
use crate::policy::decision_view::DecisionView;
use crate::store::memory::Seed;
use crate::tokens::Tokens;

/// The test cases of a file, in its order.
#[derive(Clone, Debug)]
pub struct TestSuite {
    /// Names are unique. There is at least one case, unless there are requirements.
    pub cases: Vec<TestCase>,
    pub requires: Requirements,
}

/// Configuration that the policy needs. Activation fails if the gateway lacks any of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Requirements {
    /// Names of `[policy.settings]`.
    pub settings: Vec<String>,
    /// Names of token profiles.
    pub tokens: Vec<String>,
    /// Prefixes of the keys that it looks up.
    pub lookup: Vec<String>,
    /// Origins of its outbound requests: scheme, host and port.
    pub egress: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct TestCase {
    pub name: String,
    /// The line where it begins in its file, counted from 1.
    pub line: usize,
    /// Its id is replaced in each evaluation.
    pub request: Request,
    /// The channels in the request's query.
    pub channels: Vec<String>,
    pub env: TestEnv,
    /// The expected fields of the decision. Other fields may have any value.
    pub expect: DecisionView,
}

/// The environment of a policy in one test case.
#[derive(Clone, Debug)]
pub struct TestEnv {
    /// The policy's clock, in milliseconds since the Unix epoch; `None` for the system clock.
    pub now: Option<u64>,
    /// Prefixes of the keys that it may look up.
    pub prefixes: Vec<String>,
    /// The keys of the store.
    pub store: HashMap<String, Seed>,
    /// Every look-up fails.
    pub store_unavailable: bool,
    pub settings: BTreeMap<String, String>,
    /// Token profiles.
    pub tokens: Tokens,
}

/// An invalid file of test cases. The text says where, and what would be valid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CasesError(pub String);

#[cfg(test)]
mod tests;
