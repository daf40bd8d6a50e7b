//! The activation lock: one activation runs at a time, and only the holder of the guard may run one.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::policy::info::PolicyOrigin;
use crate::rollout::Rollout;
use crate::rollout::pipeline::{PendingActivation, Pipeline, PreparedPolicy, verify};
use crate::rollout::stage::{ActivationResult, Stage, StageError};
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
        let _waiting = Arc::clone(&self.inner.waiting);
        ActivationGuard { rollout: self, _activation: self.inner.activation.lock().await }
    }

    /// How many calls of [`Self::lock_activation`] are waiting.
    pub fn waiting(&self) -> usize {
        Arc::strong_count(&self.inner.waiting) - 1
    }
}

impl ActivationGuard<'_> {
    /// Takes a bundle through all stages but the last.
    pub(super) async fn prepare(
        &self,
        signatures: SignaturePolicy,
        bundle: PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> ActivationResult<PreparedPolicy> {
        let (digest, from) = (bundle.digest(), origin.clone());
        self.run(signatures, digest, from, |pipeline| pipeline.prepare(bundle, context, origin)).await
    }

    /// Takes the active policy through the stages that depend on the configuration; `None` where no policy is active.
    pub async fn revalidate_active(&self, context: Arc<PolicyContext>) -> ActivationResult<Option<PreparedPolicy>> {
        let Some(active) = self.rollout.history().active.clone() else { return Ok(None) };
        self.revalidate(None, PreparedPolicy { context, ..active }).await.map(Some)
    }

    /// Takes a compiled policy through the stages that depend on the configuration. With its bundle, the signature is checked, too.
    pub(super) async fn revalidate(
        &self,
        bundle: Option<PolicyBundle>,
        mut next: PreparedPolicy,
    ) -> ActivationResult<PreparedPolicy> {
        let (digest, origin) = (next.policy.digest().to_string(), next.origin.clone());
        let stages = async move |pipeline: Pipeline| {
            if let Some(bundle) = bundle {
                next.origin.signed = verify(&pipeline.signatures, &bundle)?;
            }
            pipeline.revalidate(&next).await?;
            Ok(next)
        };
        self.run(self.rollout.signatures(), digest, origin, stages).await
    }

    /// Runs stages in a task of their own, so that a panic is a failed stage as well. The status shows the policy as pending meanwhile.
    async fn run<F>(
        &self,
        signatures: SignaturePolicy,
        digest: String,
        origin: PolicyOrigin,
        stages: impl FnOnce(Pipeline) -> F,
    ) -> ActivationResult<PreparedPolicy>
    where
        F: Future<Output = Result<PreparedPolicy, StageError>> + Send + 'static,
    {
        let rollout = self.rollout;
        let Some(compiler) = rollout.inner.authorizer.compiler().cloned() else {
            return Err(rollout.fail(StageError::new(Stage::Active, ALLOW_ALL), Some(digest), &origin));
        };
        let pending = Arc::new(PendingActivation { digest, stage: Mutex::default(), since: now_ms(), origin });
        rollout.state().status.pending = Arc::downgrade(&pending);
        let checks_requirements = rollout.checks_requirements;
        let pipeline = Pipeline { compiler, signatures, checks_requirements, pending: Arc::clone(&pending) };
        let result = tokio::spawn(stages(pipeline)).await.unwrap_or_else(|panic| {
            let failed_stage = pending.stage.lock().map_or(Stage::Fetched, Stage::next);
            Err(StageError::new(failed_stage, panic))
        });
        result.map_err(|error| rollout.fail(error, Some(pending.digest.clone()), &pending.origin))
    }

    /// Checks a bundle's signature. An invalid one is reported as a failed activation.
    pub(super) fn verify(&self, bundle: &PolicyBundle, origin: &PolicyOrigin) -> ActivationResult<()> {
        let verified = verify(&self.rollout.signatures(), bundle).map(drop);
        verified.map_err(|error| self.rollout.fail(error, Some(bundle.digest()), origin))
    }
}
