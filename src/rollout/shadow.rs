//! A candidate: it comes through all stages but the last, and is asked beside what is in force until it takes force itself, another
//! takes its place, or it is taken back.

use std::path::PathBuf;
use std::sync::Arc;

use crate::artifact::bundle::PolicyBundle;
use crate::policy::info::PolicyOrigin;
use crate::rollout::lock::ActivationGuard;
use crate::rollout::prepared::PolicyAttachments;
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::replace::{ReplaceError, control_port, with_cases_beside};
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::{ActivationError, Stage, StageError};
use crate::rollout::{Inner, Rollout};
use crate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};
use parking_lot::MutexGuard;

/// The candidate, with what it takes to put it in force.
#[derive(Clone)]
pub struct ShadowState {
    candidate: Arc<ShadowPolicy>,
    artifact: PolicyBundle,
    attachments: PolicyAttachments,
    origin: PolicyOrigin,
    whose: ShadowOwner,
}

/// Who wants it asked. The fleet's goes before a node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShadowOwner {
    Node,
    Fleet,
}

impl Rollout {
    /// Takes an artifact up to its cases, and has it asked from then on. It goes on when nobody waits for it any more.
    pub async fn propose(
        &self,
        artifact: PolicyBundle,
        share: ShadowSampling,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        let files = self.0.place().files.clone();
        let artifact = with_cases_beside(artifact, files.as_ref(), &self.0).await?;
        // It is written nowhere, so a restart begins without it.
        let origin = PolicyOrigin { persisted: false, ..control_port() };
        self.take_up(artifact, origin, share, ShadowOwner::Node).await
    }

    /// The same for what lies in a file, with its cases and its signature beside it.
    pub async fn propose_file(
        &self,
        component: PathBuf,
        share: ShadowSampling,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        let files = PolicySource::at(component);
        let origin = files.origin();
        let (artifact, _) = self.read(files).await?;
        self.take_up(artifact, origin, share, ShadowOwner::Node).await
    }

    /// The same for what every node of the fleet asks.
    pub async fn propose_for_all(
        &self,
        artifact: PolicyBundle,
        origin: PolicyOrigin,
        share: ShadowSampling,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        self.take_up(artifact, origin, share, ShadowOwner::Fleet).await
    }

    async fn take_up(
        &self,
        artifact: PolicyBundle,
        origin: PolicyOrigin,
        share: ShadowSampling,
        whose: ShadowOwner,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        let (rollout, from) = (self.clone(), origin.clone());
        let task = tokio::spawn(async move {
            let turn = rollout.turn().await;
            let context = rollout.0.authorizer.context();
            let next = match whose {
                ShadowOwner::Node => turn.prepare(&artifact, context, from).await?,
                ShadowOwner::Fleet => turn.prepare_without_effect(&artifact, context, from).await?,
            };
            rollout.0.ask_beside(artifact, next, share, whose)
        });
        let failed = |error| self.0.refuse(StageError::new(Stage::Active, error), None, &origin);
        task.await.unwrap_or_else(|error| Err(failed(error)))
    }

    /// What a candidate came as, if it still is one.
    #[must_use]
    pub fn artifact_of(&self, candidate: &Arc<ShadowPolicy>) -> Option<PolicyBundle> {
        let proposed = self.0.proposed();
        let is = proposed.as_ref().filter(|proposed| Arc::ptr_eq(&proposed.candidate, candidate));
        is.map(|proposed| proposed.artifact.clone())
    }

    /// It is asked no more, if it still is.
    pub fn ended(&self, candidate: &Arc<ShadowPolicy>) {
        self.0.ended(candidate);
    }

    /// Nobody is asked any more. Returns who was.
    pub fn withdraw(&self) -> Option<Arc<ShadowPolicy>> {
        let mut proposed = self.0.proposed();
        self.0.observers.shadow.replace(None);
        proposed.take().map(|proposed| proposed.candidate)
    }
}

impl Inner {
    fn proposed(&self) -> MutexGuard<'_, Option<ShadowState>> {
        self.proposed.lock()
    }

    fn ask_beside(
        &self,
        artifact: PolicyBundle,
        next: PreparedPolicy,
        share: ShadowSampling,
        whose: ShadowOwner,
    ) -> Result<Arc<ShadowPolicy>, Arc<ActivationError>> {
        let PreparedPolicy { policy, context, origin, attachments } = next;
        let candidate =
            ShadowPolicy::new(policy, origin.clone(), share, context.limits.log_rate, self.observers.audit.mask());
        let candidate = Arc::new(candidate);
        // Held for both, so that what is asked is what can be promoted.
        let mut proposed = self.proposed();
        if whose == ShadowOwner::Node && proposed.as_ref().is_some_and(|proposed| proposed.whose == ShadowOwner::Fleet)
        {
            drop(proposed);
            let failed = StageError::new(Stage::Active, "the fleet's candidate is asked here");
            return Err(self.refuse(failed, Some(candidate.policy().digest().to_string()), &origin));
        }
        tracing::info!(policy = %candidate.policy().digest(), share = share.share, source = origin.source, "a candidate is asked");
        self.observers.shadow.replace(Some(Arc::clone(&candidate)));
        *proposed = Some(ShadowState { candidate: Arc::clone(&candidate), artifact, attachments, origin, whose });
        Ok(candidate)
    }

    /// It is asked no more: it is in force by now, or somebody took it away.
    pub(super) fn ended(&self, candidate: &Arc<ShadowPolicy>) {
        let mut proposed = self.proposed();
        if proposed.as_ref().is_some_and(|proposed| Arc::ptr_eq(&proposed.candidate, candidate)) {
            self.observers.shadow.replace(None);
            *proposed = None;
        }
    }
}

impl ActivationGuard<'_> {
    /// What takes force if a candidate is promoted. It is machine code already; what depends on the configuration of now, signatures and cases,
    /// is looked at again.
    pub(super) async fn promote(
        &self,
        candidate: &Arc<ShadowPolicy>,
    ) -> Result<(PolicyBundle, PreparedPolicy), ReplaceError> {
        let proposed = self.inner.proposed().clone();
        let Some(proposed) = proposed.filter(|proposed| Arc::ptr_eq(&proposed.candidate, candidate)) else {
            return Err(ReplaceError::Withdrawn);
        };
        let ShadowState { artifact, attachments, origin, .. } = proposed;
        let (policy, context) = (candidate.policy().clone(), self.inner.authorizer.context());
        // Whether the active policy is persisted is known once its file was written.
        let origin = PolicyOrigin { persisted: true, ..origin };
        let next = PreparedPolicy { policy, context, origin, attachments };
        Ok((artifact.clone(), self.again(Some(&artifact), next).await.map_err(ReplaceError::Activation)?))
    }
}
