//! The shadow policy: it goes through all stages but the last, and then decides without effect until it is promoted, replaced or stopped.

use std::path::PathBuf;
use std::sync::Arc;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::policy::info::PolicyOrigin;
use crate::rollout::Rollout;
use crate::rollout::lock::ActivationGuard;
use crate::rollout::pipeline::PreparedPolicy;
use crate::rollout::replace::{ReplaceError, control_port};
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::{ActivationResult, Stage, StageError};
use crate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

/// The shadow policy, with everything that a promotion needs.
#[derive(Clone)]
pub struct ShadowState {
    policy: Arc<ShadowPolicy>,
    bundle: PolicyBundle,
    prepared: PreparedPolicy,
    owner: ShadowOwner,
}

/// Who starts the shadow policy. A node does not replace that of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowOwner {
    Node,
    Fleet,
}

impl Rollout {
    /// Starts a shadow policy that the control port sent.
    pub async fn start_shadow(
        &self,
        bundle: PolicyBundle,
        sampling: ShadowSampling,
    ) -> ActivationResult<Arc<ShadowPolicy>> {
        let source = self.state().source.files.clone();
        let bundle = self.with_cases_of_file(bundle, source.as_ref()).await?;
        // It is not written to a file, so the next start has no shadow policy.
        let origin = PolicyOrigin { persisted: false, ..control_port() };
        self.start_shadow_of(ShadowOwner::Node, bundle, origin, sampling).await
    }

    /// Starts the shadow policy in a file, with the cases and the signature that belong to it.
    pub async fn start_shadow_file(
        &self,
        component: PathBuf,
        sampling: ShadowSampling,
    ) -> ActivationResult<Arc<ShadowPolicy>> {
        let source = PolicySource::at(component);
        let origin = source.origin();
        let (bundle, _) = self.read(source).await?;
        self.start_shadow_of(ShadowOwner::Node, bundle, origin, sampling).await
    }

    /// Starts a shadow policy, also if the caller is dropped meanwhile.
    pub async fn start_shadow_of(
        &self,
        owner: ShadowOwner,
        bundle: PolicyBundle,
        origin: PolicyOrigin,
        sampling: ShadowSampling,
    ) -> ActivationResult<Arc<ShadowPolicy>> {
        let (rollout, from) = (self.clone(), origin.clone());
        let task = tokio::spawn(async move {
            let guard = rollout.lock_activation().await;
            let mut signatures = rollout.signatures();
            if owner == ShadowOwner::Fleet {
                // Its sequence may be less than that of the active policy: one node may have started it before a push, another one after it.
                signatures = SignaturePolicy { trusted_keys: signatures.trusted_keys, ..SignaturePolicy::default() };
            }
            let context = rollout.inner.authorizer.context();
            let prepared = guard.prepare(signatures, bundle.clone(), context, from).await?;
            rollout.set_shadow(owner, bundle, prepared, sampling)
        });
        let failed = |panic| self.fail(StageError::new(Stage::Active, panic), None, &origin);
        task.await.unwrap_or_else(|panic| Err(failed(panic)))
    }

    fn set_shadow(
        &self,
        owner: ShadowOwner,
        bundle: PolicyBundle,
        prepared: PreparedPolicy,
        sampling: ShadowSampling,
    ) -> ActivationResult<Arc<ShadowPolicy>> {
        let PreparedPolicy { policy, context, origin, .. } = prepared.clone();
        let digest = policy.digest().to_string();
        let (log_rate, mask) = (context.limits.log_rate, self.inner.observers.audit.mask());
        let policy = Arc::new(ShadowPolicy::new(policy, origin.clone(), sampling, log_rate, mask));
        // Locked for both, so that the policy that decides is the one that a promotion activates.
        let mut state = self.state();
        let has_fleet_shadow = state.shadow.as_ref().is_some_and(|shadow| shadow.owner == ShadowOwner::Fleet);
        if owner == ShadowOwner::Node && has_fleet_shadow {
            drop(state);
            let error = StageError::new(Stage::Active, "the shadow policy of the fleet runs on this node");
            return Err(self.fail(error, Some(digest), &origin));
        }
        tracing::info!(policy = digest, share = sampling.share, source = origin.source, "shadow policy started");
        self.inner.observers.shadow.replace(Some(Arc::clone(&policy)));
        state.shadow = Some(ShadowState { policy: Arc::clone(&policy), bundle, prepared, owner });
        Ok(policy)
    }

    fn shadow(&self, policy: &Arc<ShadowPolicy>) -> Option<ShadowState> {
        self.state().shadow.as_ref().filter(|shadow| Arc::ptr_eq(&shadow.policy, policy)).cloned()
    }

    /// The bundle of a shadow policy, if it still is the current one.
    pub fn shadow_bundle(&self, policy: &Arc<ShadowPolicy>) -> Option<PolicyBundle> {
        self.shadow(policy).map(|shadow| shadow.bundle)
    }

    /// Stops a shadow policy, if it still is the current one.
    pub fn stop_shadow(&self, policy: &Arc<ShadowPolicy>) {
        let mut state = self.state();
        if state.shadow.take_if(|shadow| Arc::ptr_eq(&shadow.policy, policy)).is_some() {
            self.inner.observers.shadow.replace(None);
        }
    }

    /// Stops the current shadow policy, and returns it.
    pub fn take_shadow(&self) -> Option<Arc<ShadowPolicy>> {
        let mut state = self.state();
        self.inner.observers.shadow.replace(None);
        state.shadow.take().map(|shadow| shadow.policy)
    }
}

impl ActivationGuard<'_> {
    /// Prepares the activation of a shadow policy. It is compiled already; its signature is checked against the present keys and sequence,
    /// and its test cases run with the present configuration.
    pub(super) async fn promote(&self, policy: &Arc<ShadowPolicy>) -> Result<PreparedPolicy, ReplaceError> {
        let ShadowState { bundle, prepared, .. } = self.rollout.shadow(policy).ok_or(ReplaceError::ShadowReplaced)?;
        let context = self.rollout.inner.authorizer.context();
        // Whether the active policy is persisted is known after its file is written.
        let origin = PolicyOrigin { persisted: true, ..prepared.origin };
        let next = PreparedPolicy { context, origin, ..prepared };
        Ok(self.revalidate(Some(bundle), next).await?)
    }
}
