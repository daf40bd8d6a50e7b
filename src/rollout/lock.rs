//! The right to put something in force: whoever is on the way has it, and one at a time is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::artifact::signature::key::TrustedKeys;
use crate::authz::evaluate::CountGuard;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::pipeline;
use crate::rollout::pipeline::{ProgressFn, StagesPassed};
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::stage::{ActivationError, Stage, StageError};
use crate::rollout::status::PendingActivation;
use crate::rollout::{EVERYBODY, Inner, Rollout, blocking};
use crate::util::clock::now_ms;
use crate::wasm::compile::Compiler;
use crate::wasm::host::PolicyContext;
use parking_lot::Mutex;

/// The right to put something in force. Who waits for one comes in turn.
pub struct ActivationGuard<'a> {
    pub(super) inner: &'a Inner,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Rollout {
    /// Waits for a turn.
    pub async fn turn(&self) -> ActivationGuard<'_> {
        let _one_more = CountGuard::new(&self.0.waiting);
        ActivationGuard { inner: &self.0, _turn: self.0.turn.lock().await }
    }

    /// How many wait for a turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }
}

impl ActivationGuard<'_> {
    /// Takes an artifact through all stages but the last.
    pub async fn prepare(
        &self,
        artifact: &PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let signatures = self.inner.signatures().clone();
        self.prepare_for(signatures, artifact, context, origin).await
    }

    /// The same for what is only asked. It has to be signed by somebody who is trusted; its number may be behind what was in force, for on
    /// one node it may have been asked before that was, and on another not.
    pub(super) async fn prepare_without_effect(
        &self,
        artifact: &PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let trust = Arc::clone(&self.inner.signatures().trust);
        self.prepare_for(SignaturePolicy { trust, ledger: Arc::default() }, artifact, context, origin).await
    }

    async fn prepare_for(
        &self,
        signatures: SignaturePolicy,
        artifact: &PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let walk = {
            let elsewhere = self.inner.elsewhere;
            let (artifact, context) = (artifact.clone(), Arc::clone(&context));
            move |compiler, reached| pipeline::walk(compiler, signatures, artifact, context, elsewhere, reached)
        };
        let StagesPassed { policy, attachments, signed } = self.on_its_way(artifact.digest(), &origin, walk).await?;
        let sequence = signed.map(|statement| statement.sequence).or(origin.sequence);
        Ok(PreparedPolicy { policy, context, origin: PolicyOrigin { sequence, signed, ..origin }, attachments })
    }

    /// Takes something through stages, while whoever asks is told how far it is. In a task of its own, so that one that panics is refused
    /// as any other.
    async fn on_its_way<T, W>(
        &self,
        digest: String,
        origin: &PolicyOrigin,
        walk: impl FnOnce(Compiler, ProgressFn) -> W,
    ) -> Result<T, Arc<ActivationError>>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, StageError>> + Send + 'static,
    {
        let Some(compiler) = self.inner.authorizer.compiler().cloned() else {
            return Err(self.inner.refuse(StageError::new(Stage::InForce, EVERYBODY), Some(digest), origin));
        };
        let candidate = PendingGuard::new(self.inner, digest.clone(), origin);
        let walked = tokio::spawn(walk(compiler, candidate.reached())).await;
        let walked = walked.unwrap_or_else(|error| Err(StageError::new(candidate.next(), error)));
        drop(candidate);
        walked.map_err(|failed| self.inner.refuse(failed, Some(digest), origin))
    }

    /// Whether an artifact is signed as it should be.
    pub async fn verify(&self, artifact: &PolicyBundle, origin: &PolicyOrigin) -> Result<(), Arc<ActivationError>> {
        let (signatures, artifact, digest) = (self.inner.signatures().clone(), artifact.clone(), artifact.digest());
        let verified = blocking(move || pipeline::verify(&signatures, &artifact).map(drop)).await;
        verified.map_err(|why| self.inner.refuse(StageError::new(Stage::Verified, why), Some(digest), origin))
    }

    /// Takes what is in force through the stages that depend on what is around it; none where nothing is in force.
    pub async fn renew(&self, context: Arc<PolicyContext>) -> Result<Option<PreparedPolicy>, Arc<ActivationError>> {
        let now = self.inner.line().active.clone();
        let (Some((policy, attachments)), Some(info)) = (now, self.inner.authorizer.active()) else { return Ok(None) };
        let origin = info.origin.clone();
        self.again(None, PreparedPolicy { policy, context, origin, attachments }).await.map(Some)
    }

    /// Takes what is compiled through the stages that depend on what is around it; its signature too, if there is one to look at.
    pub(super) async fn again(
        &self,
        signed: Option<&PolicyBundle>,
        mut next: PreparedPolicy,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        let walk = {
            let (policy, attachments, context) =
                (next.policy.clone(), next.attachments.clone(), Arc::clone(&next.context));
            let (signatures, elsewhere) = (self.inner.signatures().clone(), self.inner.elsewhere);
            let (signed, known) = (signed.cloned(), next.origin.signed);
            move |compiler: Compiler, reached: ProgressFn| async move {
                let signed = match &signed {
                    Some(artifact) => pipeline::verify(&signatures, artifact),
                    None => Ok(known),
                };
                let signed = signed.map_err(|error| StageError::new(Stage::Verified, error))?;
                reached(Stage::Compiled);
                pipeline::again(&compiler, &policy, &attachments, &context, elsewhere, &reached).await?;
                Ok(signed)
            }
        };
        let digest = next.policy.digest().to_string();
        next.origin.signed = self.on_its_way(digest, &next.origin, walk).await?;
        Ok(next)
    }

    /// Asks for signatures of these from now on.
    pub fn trust(&self, trust: &Arc<TrustedKeys>) {
        self.inner.signatures().trust = Arc::clone(trust);
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

/// A candidate in the status, as long as it is on its way.
struct PendingGuard<'a> {
    inner: &'a Inner,
    stage: Arc<Mutex<Option<Stage>>>,
}

impl<'a> PendingGuard<'a> {
    fn new(inner: &'a Inner, digest: String, origin: &PolicyOrigin) -> Self {
        let stage = Arc::default();
        let candidate =
            PendingActivation { digest, stage: Arc::clone(&stage), since: now_ms(), origin: origin.clone() };
        inner.history().candidate = Some(candidate);
        Self { inner, stage }
    }

    fn reached(&self) -> ProgressFn {
        let stage = Arc::clone(&self.stage);
        Arc::new(move |reached| *stage.lock() = Some(reached))
    }

    /// The stage that it is on its way to.
    fn next(&self) -> Stage {
        self.stage.lock().map_or(Stage::Fetched, Stage::next)
    }
}

impl Drop for PendingGuard<'_> {
    fn drop(&mut self) {
        self.inner.history().candidate = None;
    }
}
