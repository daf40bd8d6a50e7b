//! A candidate: it comes through all stages but the last, and is asked beside what is in force until it takes force itself, another
//! takes its place, or it is taken back.

use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::replace::{NotReplaced, control_port, with_cases_beside};
use super::stage::{Failed, Refused, Stage};
use super::{Artifact, Files, Inner, Rollout, Turn};
use crate::policy::shadow::{Candidate, Share};
use crate::policy::{Next, Origin, Papers};

/// The candidate, with what it takes to put it in force.
#[derive(Clone)]
pub struct Proposed {
    candidate: Arc<Candidate>,
    artifact: Artifact,
    papers: Papers,
    origin: Origin,
}

impl Rollout {
    /// Takes an artifact up to its cases, and has it asked from then on. It goes on when nobody waits for it any more.
    pub async fn propose(&self, artifact: Artifact, share: Share) -> Result<Arc<Candidate>, Arc<Refused>> {
        let files = self.0.place().files.clone();
        let artifact = with_cases_beside(artifact, files.as_ref(), &self.0).await?;
        self.take_up(artifact, control_port(), share).await
    }

    /// The same for what lies in a file, with its cases and its signature beside it.
    pub async fn propose_file(&self, component: PathBuf, share: Share) -> Result<Arc<Candidate>, Arc<Refused>> {
        let files = Files::at(component);
        let origin = files.origin();
        let (artifact, _) = self.read(files).await?;
        self.take_up(artifact, origin, share).await
    }

    async fn take_up(&self, artifact: Artifact, origin: Origin, share: Share) -> Result<Arc<Candidate>, Arc<Refused>> {
        let (rollout, from) = (self.clone(), origin.clone());
        let task = tokio::spawn(async move {
            let turn = rollout.turn().await;
            let next = turn.prepare(&artifact, rollout.0.gate.basis(), from).await?;
            Ok(rollout.0.ask_beside(artifact, next, share))
        });
        let failed = |error| self.0.refuse(Failed::new(Stage::InForce, error), None, &origin);
        task.await.unwrap_or_else(|error| Err(failed(error)))
    }

    /// What a candidate came as, if it still is one.
    #[must_use]
    pub fn artifact_of(&self, candidate: &Arc<Candidate>) -> Option<Artifact> {
        let proposed = self.0.proposed();
        let is = proposed.as_ref().filter(|proposed| Arc::ptr_eq(&proposed.candidate, candidate));
        is.map(|proposed| proposed.artifact.clone())
    }

    /// A candidate is in force by now, so it is nobody's candidate.
    pub fn promoted(&self, candidate: &Arc<Candidate>) {
        self.0.promoted(candidate);
    }

    /// Nobody is asked any more. Returns who was.
    pub fn withdraw(&self) -> Option<Arc<Candidate>> {
        let mut proposed = self.0.proposed();
        self.0.gate.beside().shadow().ask(None);
        proposed.take().map(|proposed| proposed.candidate)
    }
}

impl Inner {
    fn proposed(&self) -> MutexGuard<'_, Option<Proposed>> {
        self.proposed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_beside(&self, artifact: Artifact, next: Next, share: Share) -> Arc<Candidate> {
        let Next { policy, basis, origin, papers } = next;
        let beside = self.gate.beside();
        let candidate = Candidate::new(policy, origin.clone(), share, basis.limits.log_rate, beside.mask());
        let candidate = Arc::new(candidate);
        tracing::info!(policy = %candidate.policy().digest(), share = share.share, source = origin.source, "a candidate is asked");
        // Held for both, so that what is asked is what can be promoted.
        let mut proposed = self.proposed();
        beside.shadow().ask(Some(Arc::clone(&candidate)));
        *proposed = Some(Proposed { candidate: Arc::clone(&candidate), artifact, papers, origin });
        candidate
    }

    /// It is in force by now, so it is nobody's candidate.
    pub(super) fn promoted(&self, candidate: &Arc<Candidate>) {
        let mut proposed = self.proposed();
        if proposed.as_ref().is_some_and(|proposed| Arc::ptr_eq(&proposed.candidate, candidate)) {
            self.gate.beside().shadow().ask(None);
            *proposed = None;
        }
    }
}

impl Turn<'_> {
    /// What takes force if a candidate is promoted. It is machine code already; what depends on the configuration of now, signatures and cases,
    /// is looked at again.
    pub(super) async fn promote(&self, candidate: &Arc<Candidate>) -> Result<(Artifact, Next), NotReplaced> {
        let proposed = self.inner.proposed().clone();
        let Some(proposed) = proposed.filter(|proposed| Arc::ptr_eq(&proposed.candidate, candidate)) else {
            return Err(NotReplaced::Withdrawn);
        };
        let Proposed { artifact, papers, origin, .. } = proposed;
        let (policy, basis) = (candidate.policy().clone(), self.inner.gate.basis());
        let next = Next { policy, basis, origin, papers };
        Ok((artifact.clone(), self.again(Some(&artifact), next).await.map_err(NotReplaced::Refused)?))
    }
}
