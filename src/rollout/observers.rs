//! The observers of a gateway's decisions.

use std::sync::Arc;

use crate::audit::Audit;
use crate::authz::observer::DecisionObserver;
use crate::shadow::shadow_policy::ShadowEvaluator;

/// Everything that observes the decisions of one authorizer. Clones share the observers.
#[derive(Clone)]
pub struct Observers {
    /// The decision log and the recording.
    pub audit: Arc<Audit>,
    /// The shadow policy.
    pub shadow: Arc<ShadowEvaluator>,
}

impl Observers {
    /// Observers that write nothing yet, with at most `shadow_concurrency` concurrent shadow decisions.
    #[must_use]
    pub fn new(shadow_concurrency: usize) -> Self {
        Self { audit: Arc::default(), shadow: Arc::new(ShadowEvaluator::new(shadow_concurrency)) }
    }

    /// What an authorizer reports to.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<dyn DecisionObserver>> {
        vec![Arc::<Audit>::clone(&self.audit), Arc::<ShadowEvaluator>::clone(&self.shadow)]
    }
}
