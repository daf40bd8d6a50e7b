//! The status of activations for operators: the latest ones, the latest failures, the pending policy, and the state of the configuration.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use serde::Serialize;
use serde_json::{Value, json};

use crate::authz::active::RetiredGeneration;
use crate::policy::info::PolicyInfo;
use crate::rollout::pipeline::PendingActivation;
use crate::rollout::rollback_history::RollbackEntry;
use crate::rollout::stage::ActivationError;

/// Activations in the status, and failures.
const MAX_HISTORY: usize = 32;

/// The latest activations and failures.
#[derive(Clone, Debug, Default)]
pub struct RolloutStatus {
    /// The activations of the previous process, the latest first.
    pub previous_process: Vec<RollbackEntry>,
    /// The activations of this process, the latest first.
    pub activations: VecDeque<Arc<PolicyInfo>>,
    /// Policies that were not activated, the latest first.
    pub failures: VecDeque<Arc<ActivationError>>,
    /// The policy in the pipeline, which owns it.
    pub pending: Weak<PendingActivation>,
    /// The configuration as it was read last.
    pub configuration: ConfigurationStatus,
}

/// The configuration as it was read last.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConfigurationStatus {
    /// When it was read, ms since 1970; `None` if it was not read since the start.
    pub read_at: Option<u64>,
    /// Why it is invalid, if it is. The previous configuration stays in effect.
    pub error: Option<String>,
    /// Changed options that take effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

impl RolloutStatus {
    /// The body of `GET /v1/policy`.
    pub fn to_json(
        &self,
        active: Option<&PolicyInfo>,
        retired: &[RetiredGeneration],
        rollback_target: Option<&str>,
    ) -> Value {
        let with_decisions = |old: &RetiredGeneration| {
            let mut value = json!(*old.info);
            value["decisions_in_progress"] = old.decisions.into();
            value
        };
        let pending = |pending: Arc<PendingActivation>| {
            let PendingActivation { digest, stage, since, origin } = &*pending;
            json!({ "digest": digest, "stage": *stage.lock(), "since": since, "source": origin.source })
        };
        let past = |entry: &RollbackEntry| {
            let RollbackEntry { bundle, since, source } = entry;
            json!({ "digest": bundle.component, "cases": bundle.cases, "since": since, "source": source })
        };
        let active = active.map(|info| {
            let mut value = json!(info);
            value["signature"] = json!(info.origin.signed);
            value
        });
        json!({
            "active": active,
            "pending": self.pending.upgrade().map(pending),
            "last_failure": self.failures.front().map(|error| &**error),
            "retired": retired.iter().map(with_decisions).collect::<Vec<_>>(),
            "rollback_target": rollback_target,
            "configuration": self.configuration,
            "history": self.activations.iter().map(|info| &**info).collect::<Vec<_>>(),
            "previous_process": self.previous_process.iter().map(past).collect::<Vec<_>>(),
            "failures": self.failures.iter().map(|error| &**error).collect::<Vec<_>>(),
        })
    }
}

/// Adds an item to a list of the status.
pub fn push_latest<T>(latest_first: &mut VecDeque<Arc<T>>, item: &Arc<T>) {
    latest_first.push_front(Arc::clone(item));
    latest_first.truncate(MAX_HISTORY);
}
