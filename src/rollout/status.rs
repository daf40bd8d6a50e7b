//! What is told of the way into force: what was, what is on its way, what was refused, and what became of the configuration.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use crate::artifact::bundle::BundleDigests;
use crate::artifact::digest::Digest;
use crate::authz::active::RetiredGeneration;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::rollback_history::RollbackEntry;
use crate::rollout::stage::{ActivationError, Stage};

/// Swaps and failures that are remembered for those who ask.
const REMEMBERED: usize = 32;

/// What was in force and what was refused, the latest first.
#[derive(Clone, Debug, Default)]
pub struct RolloutStatus {
    /// What was in force before this process began.
    pub earlier: Vec<PastActivation>,
    /// What took force.
    pub swaps: VecDeque<Arc<PolicyInfo>>,
    /// What did not.
    pub refused: VecDeque<Arc<ActivationError>>,
    /// How often something was refused since the start, by the stage that it did not reach.
    pub refusals: BTreeMap<Stage, u64>,
    /// What is on its way.
    pub candidate: Option<PendingActivation>,
    /// The configuration, as it was read last.
    pub configuration: Configuration,
}

/// A policy that was active before this process began.
#[derive(Clone, Debug, Serialize)]
pub struct PastActivation {
    /// `sha256:…` of the component.
    pub digest: Digest,
    /// `sha256:…` of its cases.
    pub cases: Option<Digest>,
    /// Active since, ms since 1970.
    pub since: u64,
    /// Where it came from.
    pub source: String,
}

impl From<&RollbackEntry> for PastActivation {
    fn from(entry: &RollbackEntry) -> Self {
        let BundleDigests { component: digest, cases, .. } = entry.bundle;
        Self { digest, cases, since: entry.since, source: entry.source.clone() }
    }
}

/// Something on its way into force.
#[derive(Clone, Debug)]
pub struct PendingActivation {
    /// `sha256:…` of the component.
    pub digest: String,
    /// The stage that it has reached, if any.
    pub(super) stage: Arc<Mutex<Option<Stage>>>,
    /// Since when, ms since 1970.
    pub since: u64,
    /// Where it comes from.
    pub origin: PolicyOrigin,
}

impl PendingActivation {
    /// The stage that it has reached; none yet if its bytes were not looked at.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        *self.stage.lock()
    }

    fn to_json(&self) -> Value {
        json!({ "digest": self.digest, "stage": self.stage(), "since": self.since, "source": self.origin.source })
    }
}

/// What became of the configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Configuration {
    /// When it was read last, ms since 1970; none if not since the start.
    pub read: Option<u64>,
    /// What was wrong with it then. What was in force before stays.
    pub error: Option<String>,
    /// Options that were changed and need a restart.
    pub needs_restart: Vec<&'static str>,
}

impl RolloutStatus {
    pub(super) fn record_activation(&mut self, info: &Arc<PolicyInfo>) {
        remember(&mut self.swaps, Arc::clone(info));
    }

    pub(super) fn was_refused(&mut self, refused: &Arc<ActivationError>) {
        remember(&mut self.refused, Arc::clone(refused));
        *self.refusals.entry(refused.stage).or_default() += 1;
    }

    /// The whole as JSON.
    #[must_use]
    pub fn to_json(&self, active: Option<&PolicyInfo>, old: &[RetiredGeneration], before: Option<&str>) -> Value {
        let with_decisions = |old: &RetiredGeneration| {
            let mut value = json!(*old.info);
            value["decisions"] = old.decisions.into();
            value
        };
        json!({
            "in_force": active,
            "candidate": self.candidate.as_ref().map(PendingActivation::to_json),
            "last_refusal": self.refused.front().map(|refused| &**refused),
            "old": old.iter().map(with_decisions).collect::<Vec<_>>(),
            "rolls_back_to": before,
            "configuration": self.configuration,
            "history": self.swaps.iter().map(|info| &**info).collect::<Vec<_>>(),
            "earlier": self.earlier,
            "refusals": self.refused.iter().map(|refused| &**refused).collect::<Vec<_>>(),
        })
    }
}

fn remember<T>(past: &mut VecDeque<T>, now: T) {
    past.push_front(now);
    past.truncate(REMEMBERED);
}
