//! The activation lock: one activation runs at a time, and only the holder of the guard may run one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::authz::evaluate::CountGuard;
use crate::policy::info::PolicyOrigin;
use crate::rollout::pipeline::{self, Pipeline, ReachedStage};
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::stage::{ActivationError, Stage, StageError};
use crate::rollout::status::PendingActivation;
use crate::rollout::{Rollout, blocking};
use crate::util::clock::now_ms;
use crate::wasm::host::PolicyContext;

/// The reason why no policy can be activated.
const ALLOW_ALL: &str = "this gateway admits every client (allow-all) and has no policy";

/// The right to prepare and activate policies.
pub struct ActivationGuard<'a> {
    pub(super) rollout: &'a Rollout,
    _activation: tokio::sync::MutexGuard<'a, ()>,
}

impl Rollout {
    /// Waits until no other activation is in progress, in the order of the calls.
    pub async fn lock_activation(&self) -> ActivationGuard<'_> {
        let _waiting = CountGuard::new(&self.inner.waiting);
        ActivationGuard { rollout: self, _activation: self.inner.activation.lock().await }
    }

    /// How many calls of [`Self::lock_activation`] are waiting.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Ordering::Relaxed)
    }
}

impl ActivationGuard<'_> {
    /// Takes a bundle through all stages but the last.
    pub async fn prepare(
        &self,
        bundle: PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        self.prepare_signed(self.rollout.signatures(), bundle, context, origin).await
    }

    /// The same with another signature policy.
    pub(super) async fn prepare_signed(
        &self,
        signatures: SignaturePolicy,
        bundle: PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let (digest, from) = (bundle.digest(), origin.clone());
        self.run(signatures, digest, &from, |pipeline| pipeline.prepare(bundle, context, origin)).await
    }

    /// Takes the active policy through the stages that depend on the configuration; `None` where no policy is active.
    pub async fn revalidate_active(
        &self,
        context: Arc<PolicyContext>,
    ) -> Result<Option<PreparedPolicy>, Arc<ActivationError>> {
        let active = self.rollout.history().active.clone();
        let (Some((policy, attachments)), Some(info)) = (active, self.rollout.inner.authorizer.active()) else {
            return Ok(None);
        };
        let origin = info.origin.clone();
        self.revalidate(None, PreparedPolicy { policy, context, origin, attachments }).await.map(Some)
    }

    /// Takes a compiled policy through the stages that depend on the configuration. With its bundle, the signature is checked, too.
    pub(super) async fn revalidate(
        &self,
        bundle: Option<PolicyBundle>,
        mut next: PreparedPolicy,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let (digest, origin) = (next.policy.digest().to_string(), next.origin.clone());
        let stages = async move |pipeline: Pipeline| {
            if let Some(bundle) = bundle {
                let verified = pipeline::verify(&pipeline.signatures, &bundle);
                next.origin.signed = verified.map_err(|error| StageError::new(Stage::Verified, error))?;
            }
            pipeline.revalidate(&next).await?;
            Ok(next)
        };
        self.run(self.rollout.signatures(), digest, &origin, stages).await
    }

    /// Runs stages in a task of their own, so that a panic is a failed stage as well. The status shows the policy as pending meanwhile.
    async fn run<F>(
        &self,
        signatures: SignaturePolicy,
        digest: String,
        origin: &PolicyOrigin,
        stages: impl FnOnce(Pipeline) -> F,
    ) -> Result<PreparedPolicy, Arc<ActivationError>>
    where
        F: Future<Output = Result<PreparedPolicy, StageError>> + Send + 'static,
    {
        let Some(compiler) = self.rollout.inner.authorizer.compiler().cloned() else {
            return Err(self.rollout.fail(StageError::new(Stage::Active, ALLOW_ALL), Some(digest), origin));
        };
        let stage = ReachedStage::default();
        let (checks_requirements, reached) = (self.rollout.checks_requirements, Arc::clone(&stage));
        let pending = PendingActivation {
            digest: digest.clone(),
            stage: Arc::clone(&stage),
            since: now_ms(),
            origin: origin.clone(),
        };
        self.rollout.state().status.pending = Some(pending);
        let pending = PendingGuard(self.rollout);
        let result = tokio::spawn(stages(Pipeline { compiler, signatures, checks_requirements, reached })).await;
        drop(pending);
        let failed_stage = stage.lock().map_or(Stage::Fetched, Stage::next);
        let result = result.unwrap_or_else(|error| Err(StageError::new(failed_stage, error)));
        result.map_err(|error| self.rollout.fail(error, Some(digest), origin))
    }

    /// Checks a bundle's signature. A wrong one is reported as a failed activation.
    pub(super) async fn verify(&self, bundle: PolicyBundle, origin: &PolicyOrigin) -> Result<(), Arc<ActivationError>> {
        let (signatures, digest) = (self.rollout.signatures(), bundle.digest());
        let verified = blocking(move || pipeline::verify(&signatures, &bundle).map(drop)).await;
        verified.map_err(|reason| self.rollout.fail(StageError::new(Stage::Verified, reason), Some(digest), origin))
    }
}

/// Removes the pending policy from the status when it is dropped.
struct PendingGuard<'a>(&'a Rollout);

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        self.0.state().status.pending = None;
    }
}
