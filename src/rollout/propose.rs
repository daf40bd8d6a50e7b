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
    whose: Whose,
}

/// Who wants it asked. The fleet's goes before a node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Node,
    Fleet,
}

impl Rollout {
    /// Takes an artifact up to its cases, and has it asked from then on. It goes on when nobody waits for it any more.
    pub async fn propose(&self, artifact: Artifact, share: Share) -> Result<Arc<Candidate>, Arc<Refused>> {
        let files = self.0.place().files.clone();
        let artifact = with_cases_beside(artifact, files.as_ref(), &self.0).await?;
        // It is written nowhere, so a restart begins without it.
        let origin = Origin { persisted: false, ..control_port() };
        self.take_up(artifact, origin, share, Whose::Node).await
    }

    /// The same for what lies in a file, with its cases and its signature beside it.
    pub async fn propose_file(&self, component: PathBuf, share: Share) -> Result<Arc<Candidate>, Arc<Refused>> {
        let files = Files::at(component);
        let origin = files.origin();
        let (artifact, _) = self.read(files).await?;
        self.take_up(artifact, origin, share, Whose::Node).await
    }

    /// The same for what every node of the fleet asks.
    pub async fn propose_for_all(
        &self,
        artifact: Artifact,
        origin: Origin,
        share: Share,
    ) -> Result<Arc<Candidate>, Arc<Refused>> {
        self.take_up(artifact, origin, share, Whose::Fleet).await
    }

    async fn take_up(
        &self,
        artifact: Artifact,
        origin: Origin,
        share: Share,
        whose: Whose,
    ) -> Result<Arc<Candidate>, Arc<Refused>> {
        let (rollout, from) = (self.clone(), origin.clone());
        let task = tokio::spawn(async move {
            let turn = rollout.turn().await;
            let basis = rollout.0.gate.basis();
            let next = match whose {
                Whose::Node => turn.prepare(&artifact, basis, from).await?,
                Whose::Fleet => turn.prepare_without_effect(&artifact, basis, from).await?,
            };
            rollout.0.ask_beside(artifact, next, share, whose)
        });
        let failed = |error| self.0.refuse(Failed::new(Stage::Active, error), None, &origin);
        task.await.unwrap_or_else(|error| Err(failed(error)))
    }

    /// What a candidate came as, if it still is one.
    #[must_use]
    pub fn artifact_of(&self, candidate: &Arc<Candidate>) -> Option<Artifact> {
        let proposed = self.0.proposed();
        let is = proposed.as_ref().filter(|proposed| Arc::ptr_eq(&proposed.candidate, candidate));
        is.map(|proposed| proposed.artifact.clone())
    }

    /// It is asked no more, if it still is.
    pub fn ended(&self, candidate: &Arc<Candidate>) {
        self.0.ended(candidate);
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

    fn ask_beside(
        &self,
        artifact: Artifact,
        next: Next,
        share: Share,
        whose: Whose,
    ) -> Result<Arc<Candidate>, Arc<Refused>> {
        let Next { policy, basis, origin, papers } = next;
        let beside = self.gate.beside();
        let candidate = Candidate::new(policy, origin.clone(), share, basis.limits.log_rate, beside.mask());
        let candidate = Arc::new(candidate);
        // Held for both, so that what is asked is what can be promoted.
        let mut proposed = self.proposed();
        if whose == Whose::Node && proposed.as_ref().is_some_and(|proposed| proposed.whose == Whose::Fleet) {
            drop(proposed);
            let failed = Failed::new(Stage::Active, "the fleet's candidate is asked here");
            return Err(self.refuse(failed, Some(candidate.policy().digest().to_string()), &origin));
        }
        tracing::info!(policy = %candidate.policy().digest(), share = share.share, source = origin.source, "a candidate is asked");
        beside.shadow().ask(Some(Arc::clone(&candidate)));
        *proposed = Some(Proposed { candidate: Arc::clone(&candidate), artifact, papers, origin, whose });
        Ok(candidate)
    }

    /// It is asked no more: it is in force by now, or somebody took it away.
    pub(super) fn ended(&self, candidate: &Arc<Candidate>) {
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
        // Whether the active policy is persisted is known once its file was written.
        let origin = Origin { persisted: true, ..origin };
        let next = Next { policy, basis, origin, papers };
        Ok((artifact.clone(), self.again(Some(&artifact), next).await.map_err(NotReplaced::Refused)?))
    }
}
