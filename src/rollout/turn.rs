//! The right to put something in force: whoever is on the way has it, and one at a time is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::artifact::Artifact;
use super::history::Candidate;
use super::stage::{Failed, Refused, Stage};
use super::stages::{self, Reached, Walked};
use super::{EVERYBODY, Inner, Rollout};
use crate::policy::signature::Trust;
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
        let _one_more = Waiting::new(&self.0.waiting);
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
        let digest = artifact.digest();
        let Some(compiler) = self.inner.gate.compiler().cloned() else {
            return Err(self.inner.refuse(Failed::new(Stage::InForce, EVERYBODY), Some(digest), &origin));
        };
        let candidate = OnItsWay::new(self.inner, digest.clone(), &origin);
        let signatures = self.inner.signatures().clone();
        let walk = stages::walk(
            compiler,
            signatures,
            artifact.clone(),
            Arc::clone(&basis),
            self.inner.elsewhere,
            candidate.reached(),
        );
        // In a task of its own, so that one that panics is refused as any other.
        let walked = tokio::spawn(walk).await.unwrap_or_else(|error| Err(Failed::new(candidate.next(), error)));
        drop(candidate);
        match walked {
            Ok(Walked { policy, papers, signed }) => {
                let sequence = signed.map(|statement| statement.sequence).or(origin.sequence);
                Ok(Next { policy, basis, origin: Origin { sequence, signed, ..origin }, papers })
            }
            Err(failed) => Err(self.inner.refuse(failed, Some(digest), &origin)),
        }
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
        let digest = next.policy.digest().to_string();
        let Some(compiler) = self.inner.gate.compiler().cloned() else {
            return Err(self.inner.refuse(Failed::new(Stage::InForce, EVERYBODY), Some(digest), &next.origin));
        };
        if let Some(artifact) = signed {
            let signatures = self.inner.signatures().clone();
            match stages::verify(&signatures, artifact) {
                Ok(signed) => next.origin.signed = signed,
                Err(error) => {
                    let failed = Failed::new(Stage::Verified, error);
                    return Err(self.inner.refuse(failed, Some(digest), &next.origin));
                }
            }
        }
        let candidate = OnItsWay::new(self.inner, digest.clone(), &next.origin);
        let reached = candidate.reached();
        reached(Stage::Compiled);
        let again = {
            let (policy, papers, basis) = (next.policy.clone(), next.papers.clone(), Arc::clone(&next.basis));
            let elsewhere = self.inner.elsewhere;
            async move { stages::again(&compiler, &policy, &papers, &basis, elsewhere, &reached).await }
        };
        let walked = tokio::spawn(again).await.unwrap_or_else(|error| Err(Failed::new(candidate.next(), error)));
        drop(candidate);
        match walked {
            Ok(()) => Ok(next),
            Err(failed) => Err(self.inner.refuse(failed, Some(digest), &next.origin)),
        }
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

/// One who waits, as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
