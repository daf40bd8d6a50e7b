//! The shadow policy: it goes through all stages but the last, and then decides without effect until it is promoted, replaced or stopped.

use std::path::PathBuf;
use std::sync::Arc;

use crate::artifact::bundle::PolicyBundle;
use crate::policy::info::PolicyOrigin;
use crate::rollout::lock::ActivationGuard;
use crate::rollout::prepared::{PolicyAttachments, PreparedPolicy};
use crate::rollout::replace::{ReplaceError, control_port, with_cases_of_file};
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::{ActivationError, Stage, StageError};
use crate::rollout::{Inner, Rollout};
use crate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

/// The shadow policy, with everything that a promotion needs.
#[derive(Clone)]
pub struct ShadowState {
    policy: Arc<ShadowPolicy>,
    bundle: PolicyBundle,
    attachments: PolicyAttachments,
    origin: PolicyOrigin,
    owner: ShadowOwner,
}

/// Who started the shadow policy. A node does not replace that of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShadowOwner {
    Node,
    Fleet,
}

impl Rollout {
    /// Starts a shadow policy that the control port sent. Like the two below, this goes on when its caller is gone.
    pub async fn start_shadow(
        &self,
        bundle: PolicyBundle,
        sampling: ShadowSampling,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        let source = self.0.state().source.files.clone();
        let bundle = with_cases_of_file(bundle, source.as_ref(), &self.0).await?;
        // It is not written to a file, so the next start has no shadow policy.
        let origin = PolicyOrigin { persisted: false, ..control_port() };
        self.run_shadow(bundle, origin, sampling, ShadowOwner::Node).await
    }

    /// Starts the shadow policy in a file, with the cases and the signature that belong to it.
    pub async fn start_shadow_file(
        &self,
        component: PathBuf,
        sampling: ShadowSampling,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        let source = PolicySource::at(component);
        let origin = source.origin();
        let (bundle, _) = self.read(source).await?;
        self.run_shadow(bundle, origin, sampling, ShadowOwner::Node).await
    }

    /// Starts the shadow policy of the fleet.
    pub async fn start_fleet_shadow(
        &self,
        bundle: PolicyBundle,
        origin: PolicyOrigin,
        sampling: ShadowSampling,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        self.run_shadow(bundle, origin, sampling, ShadowOwner::Fleet).await
    }

    async fn run_shadow(
        &self,
        bundle: PolicyBundle,
        origin: PolicyOrigin,
        sampling: ShadowSampling,
        owner: ShadowOwner,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        let (rollout, from) = (self.clone(), origin.clone());
        let task = tokio::spawn(async move {
            let guard = rollout.lock_activation().await;
            let context = rollout.0.authorizer.context();
            let prepared = match owner {
                ShadowOwner::Node => guard.prepare(&bundle, context, from).await?,
                ShadowOwner::Fleet => guard.prepare_shadow(&bundle, context, from).await?,
            };
            rollout.0.set_shadow(bundle, prepared, sampling, owner)
        });
        let failed = |error| self.0.fail(StageError::new(Stage::Active, error), None, &origin);
        task.await.unwrap_or_else(|error| Err(failed(error)))
    }

    /// The bundle of a shadow policy, if it still is the current one.
    #[must_use]
    pub fn shadow_bundle(&self, policy: &Arc<ShadowPolicy>) -> Option<PolicyBundle> {
        self.0.shadow(policy).map(|shadow| shadow.bundle)
    }

    /// Stops a shadow policy, if it still is the current one.
    pub fn stop_shadow(&self, policy: &Arc<ShadowPolicy>) {
        self.0.stop_shadow(policy);
    }

    /// Stops the current shadow policy, and returns it.
    pub fn take_shadow(&self) -> Option<Arc<ShadowPolicy>> {
        let mut state = self.0.state();
        self.0.observers.shadow.replace(None);
        state.shadow.take().map(|shadow| shadow.policy)
    }
}

impl Inner {
    fn shadow(&self, policy: &Arc<ShadowPolicy>) -> Option<ShadowState> {
        self.state().shadow.as_ref().filter(|shadow| Arc::ptr_eq(&shadow.policy, policy)).cloned()
    }

    fn set_shadow(
        &self,
        bundle: PolicyBundle,
        prepared: PreparedPolicy,
        sampling: ShadowSampling,
        owner: ShadowOwner,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        let PreparedPolicy { policy, context, origin, attachments } = prepared;
        let digest = policy.digest().to_string();
        let policy =
            ShadowPolicy::new(policy, origin.clone(), sampling, context.limits.log_rate, self.observers.audit.mask());
        let policy = Arc::new(policy);
        // Locked for both, so that the policy that decides is the one that a promotion activates.
        let mut state = self.state();
        if owner == ShadowOwner::Node && state.shadow.as_ref().is_some_and(|shadow| shadow.owner == ShadowOwner::Fleet)
        {
            drop(state);
            let failed = StageError::new(Stage::Active, "the shadow policy of the fleet runs on this node");
            return Err(self.fail(failed, Some(digest), &origin));
        }
        tracing::info!(policy = digest, share = sampling.share, source = origin.source, "shadow policy started");
        self.observers.shadow.replace(Some(Arc::clone(&policy)));
        state.shadow = Some(ShadowState { policy: Arc::clone(&policy), bundle, attachments, origin, owner });
        Ok(policy)
    }

    pub(super) fn stop_shadow(&self, policy: &Arc<ShadowPolicy>) {
        let mut state = self.state();
        if state.shadow.as_ref().is_some_and(|shadow| Arc::ptr_eq(&shadow.policy, policy)) {
            self.observers.shadow.replace(None);
            state.shadow = None;
        }
    }
}

impl ActivationGuard<'_> {
    /// Prepares the activation of a shadow policy. It is compiled already; its signature is checked against the keys and the sequence number
    /// of now, and its test cases run with the configuration of now.
    pub(super) async fn promote(
        &self,
        policy: &Arc<ShadowPolicy>,
    ) -> Result<(PolicyBundle, PreparedPolicy), ReplaceError> {
        let shadow = self.inner.shadow(policy).ok_or(ReplaceError::ShadowReplaced)?;
        let ShadowState { bundle, attachments, origin, .. } = shadow;
        let (policy, context) = (policy.policy().clone(), self.inner.authorizer.context());
        // Whether the active policy is persisted is known after its file is written.
        let origin = PolicyOrigin { persisted: true, ..origin };
        let next = PreparedPolicy { policy, context, origin, attachments };
        let next = self.revalidate(Some(&bundle), next).await.map_err(ReplaceError::Activation)?;
        Ok((bundle, next))
    }
}
