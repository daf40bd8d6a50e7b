//! One activation at a time: whoever may activate a policy has the guard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::artifact::signature::key::TrustedKeys;
use crate::authz::evaluate::CountGuard;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::pipeline::{self, PassedStages, Pipeline};
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::stage::{ActivationError, Stage, StageError};
use crate::rollout::status::PendingActivation;
use crate::rollout::{ALLOW_ALL, Inner, Rollout, blocking};
use crate::util::clock::now_ms;
use crate::wasm::host::PolicyContext;

/// The right to prepare and activate policies.
pub struct ActivationGuard<'a> {
    pub(super) inner: &'a Inner,
    _activation: tokio::sync::MutexGuard<'a, ()>,
}

impl Rollout {
    /// Waits until no other activation is in progress, in the order of the calls.
    pub async fn lock_activation(&self) -> ActivationGuard<'_> {
        let _one_more = CountGuard::new(&self.0.waiting);
        ActivationGuard { inner: &self.0, _activation: self.0.activation.lock().await }
    }

    /// How many calls of [`Self::lock_activation`] are waiting.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }
}

impl ActivationGuard<'_> {
    /// Takes a bundle through all stages but the last.
    pub async fn prepare(
        &self,
        bundle: &PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let signatures = self.inner.state().signatures.clone();
        self.prepare_signed(signatures, bundle, context, origin).await
    }

    /// The same for a shadow policy. A trusted key has to have signed it; its sequence number may be less than that of the active policy, for
    /// one node of a fleet may have started it before a push and another one after it.
    pub(super) async fn prepare_shadow(
        &self,
        bundle: &PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let trusted_keys = Arc::clone(&self.inner.state().signatures.trusted_keys);
        self.prepare_signed(SignaturePolicy { trusted_keys, ..SignaturePolicy::default() }, bundle, context, origin)
            .await
    }

    async fn prepare_signed(
        &self,
        signatures: SignaturePolicy,
        bundle: &PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let stages = {
            let (bundle, context) = (bundle.clone(), Arc::clone(&context));
            move |pipeline: Pipeline| pipeline.run_stages(bundle, context)
        };
        let PassedStages { policy, attachments, signed } =
            self.run(signatures, bundle.digest(), &origin, stages).await?;
        let sequence = signed.map(|statement| statement.sequence).or(origin.sequence);
        Ok(PreparedPolicy { policy, context, origin: PolicyOrigin { sequence, signed, ..origin }, attachments })
    }

    /// Takes the active policy through the stages that depend on the configuration; `None` where no policy is active.
    pub async fn revalidate_active(
        &self,
        context: Arc<PolicyContext>,
    ) -> Result<Option<PreparedPolicy>, Arc<ActivationError>> {
        let active = self.inner.history().active.clone();
        let (Some((policy, attachments)), Some(info)) = (active, self.inner.authorizer.active()) else {
            return Ok(None);
        };
        let origin = info.origin.clone();
        self.revalidate(None, PreparedPolicy { policy, context, origin, attachments }).await.map(Some)
    }

    /// Takes a compiled policy through the stages that depend on the configuration. With its bundle, the signature is checked, too.
    pub(super) async fn revalidate(
        &self,
        bundle: Option<&PolicyBundle>,
        mut next: PreparedPolicy,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let stages = {
            let (policy, attachments) = (next.policy.clone(), next.attachments.clone());
            let (context, signed, bundle) = (Arc::clone(&next.context), next.origin.signed, bundle.cloned());
            async move |pipeline: Pipeline| {
                let verified = bundle.map_or(Ok(signed), |bundle| pipeline::verify(&pipeline.signatures, &bundle));
                let signed = verified.map_err(|error| StageError::new(Stage::Verified, error))?;
                (pipeline.progress)(Stage::Compiled);
                pipeline.revalidate(&policy, &attachments, &context).await?;
                Ok(signed)
            }
        };
        let (signatures, digest) = (self.inner.state().signatures.clone(), next.policy.digest().to_string());
        next.origin.signed = self.run(signatures, digest, &next.origin, stages).await?;
        Ok(next)
    }

    /// Runs stages, in a task of their own, so that a panic is a failed stage as well. The status shows the policy as pending meanwhile.
    async fn run<T, F>(
        &self,
        signatures: SignaturePolicy,
        digest: String,
        origin: &PolicyOrigin,
        stages: impl FnOnce(Pipeline) -> F,
    ) -> Result<T, Arc<ActivationError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StageError>> + Send + 'static,
    {
        let Some(compiler) = self.inner.authorizer.compiler().cloned() else {
            return Err(self.inner.fail(StageError::new(Stage::Active, ALLOW_ALL), Some(digest), origin));
        };
        let stage = Arc::new(Mutex::new(None));
        let pending = PendingGuard::new(
            self.inner,
            PendingActivation {
                digest: digest.clone(),
                stage: Arc::clone(&stage),
                since: now_ms(),
                origin: origin.clone(),
            },
        );
        let progress = {
            let stage = Arc::clone(&stage);
            Arc::new(move |reached| *stage.lock() = Some(reached))
        };
        let checks_requirements = self.inner.checks_requirements;
        let pipeline = Pipeline { compiler, signatures, checks_requirements, progress };
        let result = tokio::spawn(stages(pipeline)).await;
        drop(pending);
        let failed_stage = stage.lock().map_or(Stage::Fetched, Stage::next);
        let result = result.unwrap_or_else(|error| Err(StageError::new(failed_stage, error)));
        result.map_err(|error| self.inner.fail(error, Some(digest), origin))
    }

    /// Checks a bundle's signature. A wrong one is reported as a failed activation.
    pub async fn verify(&self, bundle: &PolicyBundle, origin: &PolicyOrigin) -> Result<(), Arc<ActivationError>> {
        let (signatures, bundle, digest) = (self.inner.state().signatures.clone(), bundle.clone(), bundle.digest());
        let verified = blocking(move || pipeline::verify(&signatures, &bundle).map(drop)).await;
        verified.map_err(|reason| self.inner.fail(StageError::new(Stage::Verified, reason), Some(digest), origin))
    }

    /// Requires signatures of these keys from now on.
    pub fn trust(&self, trust: &Arc<TrustedKeys>) {
        self.inner.state().signatures.trusted_keys = Arc::clone(trust);
    }

    /// Activates a prepared policy, and waits until no answer of an older one is being sent any more. A bundle is saved for a rollback.
    pub async fn activate(
        &self,
        next: PreparedPolicy,
        bundle: Option<PolicyBundle>,
    ) -> Result<Arc<PolicyInfo>, Arc<ActivationError>> {
        self.inner.activate(next, bundle).await
    }
}

/// Shows a policy as pending, until it is dropped.
struct PendingGuard<'a>(&'a Inner);

impl<'a> PendingGuard<'a> {
    fn new(inner: &'a Inner, pending: PendingActivation) -> Self {
        inner.state().status.pending = Some(pending);
        Self(inner)
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        self.0.state().status.pending = None;
    }
}
