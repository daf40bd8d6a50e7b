//! The right to put something in force: whoever is on the way has it, and one at a time is.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::artifact::Artifact;
use super::history::Candidate;
use super::stage::{Failed, Refused, Stage};
use super::stages::{self, Reached, Walked};
use super::{EVERYBODY, Inner, Rollout, blocking};
use crate::policy::Counted;
use crate::policy::compile::Compiler;
use crate::policy::signature::{Signatures, Trust};
use crate::policy::{About, Basis, Next, Origin};
use crate::stream::now_ms;

/// The right to put something in force. Who waits for one comes in turn.
pub struct Turn<'a> {
    pub(super) inner: &'a Inner,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Rollout {
    /// Waits for a turn.
    pub async fn turn(&self) -> Turn<'_> {
        let _one_more = Counted::new(&self.0.waiting);
        Turn { inner: &self.0, _turn: self.0.turn.lock().await }
    }

    /// How many wait for a turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }
}

impl Turn<'_> {
    /// Takes an artifact through all stages but the last.
    pub async fn prepare(&self, artifact: &Artifact, basis: Arc<Basis>, origin: Origin) -> Result<Next, Arc<Refused>> {
        let signatures = self.inner.signatures().clone();
        self.prepare_for(signatures, artifact, basis, origin).await
    }

    /// The same for what is only asked. It has to be signed by somebody who is trusted; its number may be behind what was in force, for on
    /// one node it may have been asked before that was, and on another not.
    pub(super) async fn prepare_without_effect(
        &self,
        artifact: &Artifact,
        basis: Arc<Basis>,
        origin: Origin,
    ) -> Result<Next, Arc<Refused>> {
        let trust = Arc::clone(&self.inner.signatures().trust);
        self.prepare_for(Signatures { trust, seen: Arc::default() }, artifact, basis, origin).await
    }

    async fn prepare_for(
        &self,
        signatures: Signatures,
        artifact: &Artifact,
        basis: Arc<Basis>,
        origin: Origin,
    ) -> Result<Next, Arc<Refused>> {
        let walk = {
            let elsewhere = self.inner.elsewhere;
            let (artifact, basis) = (artifact.clone(), Arc::clone(&basis));
            move |compiler, reached| stages::walk(compiler, signatures, artifact, basis, elsewhere, reached)
        };
        let Walked { policy, papers, signed } = self.on_its_way(artifact.digest(), &origin, walk).await?;
        let sequence = signed.map(|statement| statement.sequence).or(origin.sequence);
        Ok(Next { policy, basis, origin: Origin { sequence, signed, ..origin }, papers })
    }

    /// Takes something through stages, while whoever asks is told how far it is. In a task of its own, so that one that panics is refused
    /// as any other.
    async fn on_its_way<T, W>(
        &self,
        digest: String,
        origin: &Origin,
        walk: impl FnOnce(Compiler, Reached) -> W,
    ) -> Result<T, Arc<Refused>>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        let Some(compiler) = self.inner.gate.compiler().cloned() else {
            return Err(self.inner.refuse(Failed::new(Stage::Active, EVERYBODY), Some(digest), origin));
        };
        let candidate = OnItsWay::new(self.inner, digest.clone(), origin);
        let walked = tokio::spawn(walk(compiler, candidate.reached())).await;
        let walked = walked.unwrap_or_else(|error| Err(Failed::new(candidate.next(), error)));
        drop(candidate);
        walked.map_err(|failed| self.inner.refuse(failed, Some(digest), origin))
    }

    /// Whether an artifact is signed as it should be.
    pub async fn verify(&self, artifact: &Artifact, origin: &Origin) -> Result<(), Arc<Refused>> {
        let (signatures, artifact, digest) = (self.inner.signatures().clone(), artifact.clone(), artifact.digest());
        let verified = blocking(move || stages::verify(&signatures, &artifact).map(drop)).await;
        verified.map_err(|why| self.inner.refuse(Failed::new(Stage::Verified, why), Some(digest), origin))
    }

    /// Takes what is in force through the stages that depend on what is around it; none where nothing is in force.
    pub async fn renew(&self, basis: Arc<Basis>) -> Result<Option<Next>, Arc<Refused>> {
        let now = self.inner.line().now.clone();
        let (Some((policy, papers)), Some(about)) = (now, self.inner.gate.in_force()) else { return Ok(None) };
        let origin = about.origin.clone();
        self.again(None, Next { policy, basis, origin, papers }).await.map(Some)
    }

    /// Takes what is compiled through the stages that depend on what is around it; its signature too, if there is one to look at.
    pub(super) async fn again(&self, signed: Option<&Artifact>, mut next: Next) -> Result<Next, Arc<Refused>> {
        let walk = {
            let (policy, papers, basis) = (next.policy.clone(), next.papers.clone(), Arc::clone(&next.basis));
            let (signatures, elsewhere) = (self.inner.signatures().clone(), self.inner.elsewhere);
            let (signed, known) = (signed.cloned(), next.origin.signed);
            move |compiler: Compiler, reached: Reached| async move {
                let signed = match &signed {
                    Some(artifact) => stages::verify(&signatures, artifact),
                    None => Ok(known),
                };
                let signed = signed.map_err(|error| Failed::new(Stage::Verified, error))?;
                reached(Stage::Compiled);
                stages::again(&compiler, &policy, &papers, &basis, elsewhere, &reached).await?;
                Ok(signed)
            }
        };
        let digest = next.policy.digest().to_string();
        next.origin.signed = self.on_its_way(digest, &next.origin, walk).await?;
        Ok(next)
    }

    /// Keeps an artifact for the way back. What cannot be kept takes force all the same.
    pub async fn keep(&self, artifact: Artifact) {
        let Some(archive) = self.inner.archive.clone() else { return };
        let kept = tokio::task::spawn_blocking(move || archive.keep(&artifact)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "a policy cannot be kept in cache-dir, so one cannot roll back to it");
        }
    }

    /// Asks for signatures of these from now on.
    pub fn trust(&self, trust: &Arc<Trust>) {
        self.inner.signatures().trust = Arc::clone(trust);
    }

    /// Puts what was prepared in force, and waits until no answer of an older version is on its way out any more.
    pub async fn put_in_force(&self, next: Next) -> Result<Arc<About>, Arc<Refused>> {
        self.inner.put_in_force(next).await
    }
}

/// A candidate in the status, as long as it is on its way.
struct OnItsWay<'a> {
    inner: &'a Inner,
    stage: Arc<Mutex<Option<Stage>>>,
}

impl<'a> OnItsWay<'a> {
    fn new(inner: &'a Inner, digest: String, origin: &Origin) -> Self {
        let stage = Arc::default();
        let candidate = Candidate { digest, stage: Arc::clone(&stage), since: now_ms(), origin: origin.clone() };
        inner.history().candidate = Some(candidate);
        Self { inner, stage }
    }

    fn reached(&self) -> Reached {
        let stage = Arc::clone(&self.stage);
        Arc::new(move |reached| *stage.lock().unwrap_or_else(PoisonError::into_inner) = Some(reached))
    }

    /// The stage that it is on its way to.
    fn next(&self) -> Stage {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner).map_or(Stage::Fetched, Stage::next)
    }
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.inner.history().candidate = None;
    }
}
