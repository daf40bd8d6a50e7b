//! Where the policy comes from, what is written down of its decisions, and what a node is in its fleet.

use std::path::PathBuf;
use std::time::Duration;

use super::raw::{self, Source};
use super::{ConfigError, count, size, wrong};

/// Where the policy comes from and what it has to show.
#[derive(Clone, Debug)]
pub struct RolloutConfig {
    /// A file, or the store.
    pub source: Source,
    /// What it has to decide before it takes force; none for the file beside the component.
    pub cases: Option<PathBuf>,
    /// Public keys; with one at least, a policy has to be signed.
    pub trusted_keys: Vec<PathBuf>,
    /// Policies from the store need no signature.
    pub unsigned_fleet: bool,
    /// Streams of older versions are asked to come back within this time; none lets them stay.
    pub rotate_within: Option<Duration>,
}

/// A candidate that is asked beside the policy in force.
#[derive(Clone, Debug)]
pub struct ShadowConfig {
    /// Its component, if there is one from the start.
    pub file: Option<PathBuf>,
    /// The share of requests, from 0 to 1.
    pub share: f64,
    /// Its decisions at once.
    pub concurrency: usize,
}

/// What is written down of decisions.
#[derive(Clone, Debug)]
pub struct DecisionsConfig {
    /// `stdout`, or a file.
    pub log: Option<String>,
    /// Fields whose values are masked.
    pub mask: Vec<String>,
    /// A file for whole requests.
    pub record: Option<PathBuf>,
    /// The share of requests that are recorded, from 0 to 1.
    pub record_share: f64,
    /// Bytes of the recording.
    pub record_limit: usize,
}

/// Fields of the decision log that can be masked.
const MASKABLE: [&str; 3] = ["subject", "channels", "reason"];

/// Checks where the policy comes from.
pub fn rollout(raw: &raw::Policy) -> Result<RolloutConfig, ConfigError> {
    Ok(RolloutConfig {
        source: raw.source,
        cases: raw.cases.clone(),
        trusted_keys: raw.trusted_keys.clone(),
        unsigned_fleet: raw.unsigned_fleet,
        rotate_within: raw.rotate_within.0,
    })
}

/// Checks `[policy.shadow]`.
pub fn shadow(raw: &raw::Shadow) -> Result<ShadowConfig, ConfigError> {
    Ok(ShadowConfig {
        file: raw.file.clone(),
        share: share("policy.shadow.share", raw.share)?,
        concurrency: count("policy.shadow.concurrency", raw.concurrency, 1_000)?,
    })
}

/// Checks `[decisions]`.
pub fn decisions(raw: &raw::Decisions) -> Result<DecisionsConfig, ConfigError> {
    if let Some(field) = raw.mask.iter().find(|field| !MASKABLE.contains(&&***field)) {
        return Err(wrong("decisions.mask", format!("{field:?}: it is one of {}", MASKABLE.join(", "))));
    }
    Ok(DecisionsConfig {
        log: raw.log.clone(),
        mask: raw.mask.clone(),
        record: raw.record.clone(),
        record_share: share("decisions.record-share", raw.record_share)?,
        record_limit: size("decisions.record-limit", raw.record_limit, 1 << 10, 1 << 40)?,
    })
}

fn share(key: &str, share: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(wrong(key, format!("{share}: it is from 0 to 1"))) }
}
