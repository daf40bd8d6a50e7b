//! What a policy's author expects of it: a table of requests, each with the world that it meets and the decision that shall
//! come of it. [`file`] reads them, [`run`] asks a policy, [`answer`] compares. Nothing here prints.

pub(crate) mod bench;
pub mod file;
pub(crate) mod run;

use std::collections::{BTreeMap, HashMap};

use http::HeaderMap;
use serde::Deserialize;

use crate::policy::decision_view::DecisionView;
use crate::store::memory::Seed;
use crate::tokens::Tokens;

/// The cases of a file, in its order.
#[derive(Clone, Debug)]
pub struct TestSuite {
    /// No two of the same name. One at least, unless something is required.
    pub cases: Vec<TestCase>,
    /// What the policy cannot do without.
    pub requires: Requirements,
}

/// What the gateway has to be configured with, or the policy would let nobody in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Requirements {
    /// Names of `[policy.settings]`.
    pub settings: Vec<String>,
    /// Names of token profiles.
    pub tokens: Vec<String>,
    /// What the keys begin with that it looks up.
    pub lookup: Vec<String>,
    /// Where it sends requests: scheme, host and port.
    pub egress: Vec<String>,
}

/// A request, its world, and what shall come of it.
#[derive(Clone, Debug)]
pub struct TestCase {
    /// What it is called.
    pub name: String,
    /// Where it begins in its file, counted from 1.
    pub line: usize,
    /// What is asked.
    pub ask: TestRequest,
    /// What the policy meets.
    pub world: TestWorld,
    /// What it shall answer; what is not said here may be anything.
    pub expect: DecisionView,
}

/// A request to read channels.
#[derive(Clone, Debug)]
pub struct TestRequest {
    /// `GET`, unless the case says otherwise.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Host and port.
    pub authority: String,
    /// Path and query.
    pub path_with_query: String,
    /// Header fields, less repeated cookies.
    pub headers: HeaderMap,
    /// The client's IP address.
    pub client_address: String,
    /// The channels that the query names.
    pub channels: Vec<String>,
}

/// What a policy may see and ask.
#[derive(Clone, Debug)]
pub struct TestWorld {
    /// Its clock, ms since 1970; none for this machine's.
    pub now: Option<u64>,
    /// Keys that may be looked up begin with one of these.
    pub prefixes: Vec<String>,
    /// What is looked up.
    pub store: HashMap<String, Seed>,
    /// Every look-up fails.
    pub store_away: bool,
    /// What it may ask for by name.
    pub settings: BTreeMap<String, String>,
    /// Whose tokens it may have checked.
    pub tokens: Tokens,
}

/// Why a file of cases is none. Each says where, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CasesError(pub String);

#[cfg(test)]
mod tests;
