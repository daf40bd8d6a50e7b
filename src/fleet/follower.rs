//! The node's side of a push: what is current is put in force, what is a candidate is prepared and told of.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::artifact::bundle::PolicyBundle;
use crate::fleet::node::{Fleet, FleetState, lock, short};
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, MissingBlob, PendingPush, PrepareFailure, PrepareReport};
use crate::policy::info::PolicyOrigin;
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::stage::Stage;

/// What was refused is tried again so much later, since what was missing may be there then.
pub(super) const AGAIN: Duration = Duration::from_secs(30);
/// The same, when the store did not answer.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// A push waits for what this node says of it, so that it says it again if the store was away at that moment.
const REPORTS: usize = 5;

/// What waits for its flip. There is one at the most.
struct Prepared {
    pointer: ActiveRecord,
    next: PreparedPolicy,
}

/// A note that could not be put in force, and when it is tried again.
struct Tried {
    note: Vec<u8>,
    again: Instant,
}

impl Fleet {
    /// Puts the fleet's policy in force at start: the current one, or the one that was kept. Without either, nobody is let in.
    pub async fn first(&self) {
        let why = match self.store.current().await {
            Ok(Some(note)) => match self.apply(&note, None).await {
                Ok(()) => return,
                Err((_, why)) => format!("the fleet's policy cannot be put in force: {why}"),
            },
            Ok(None) => "nothing was pushed to this store yet (`tidegate policy push`)".into(),
            Err(error) => error.to_string(),
        };
        match self.put_copy_in_force().await {
            Ok(true) => {
                tracing::warn!(why, "this node starts with the policy that it kept");
            }
            Ok(false) => tracing::error!(why, "no policy is in force, so nobody is let in"),
            Err(error) => {
                tracing::error!(
                    why,
                    error,
                    "no policy is in force, so nobody is let in; the one that was kept cannot be used"
                );
            }
        }
        *lock(&self.trouble) = Some(why);
    }

    /// Puts in force what was kept; false if nothing was.
    async fn put_copy_in_force(&self) -> Result<bool, String> {
        let Some(copy) = &self.copy else { return Ok(false) };
        let Some(pointer) = copy.active_record()? else { return Ok(false) };
        let artifact = copy.bundle(&pointer)?;
        let source = "fleet (kept on this machine)".to_owned();
        let next = self.stages(&pointer, artifact, source).await.map_err(|refused| refused.why)?;
        self.rollout.activate(next).await.map_err(|refused| refused.to_string())?;
        *lock(&self.applied) = Some(pointer);
        Ok(true)
    }

    pub(super) async fn follow(self: Arc<Self>, mut heard: watch::Receiver<FleetState>) {
        let mut prepared: Option<Prepared> = None;
        let mut reported: Option<Vec<u8>> = None;
        let mut tried: Option<Tried> = None;
        while heard.changed().await.is_ok() {
            let FleetState { current, candidate, .. } = heard.borrow_and_update().clone();
            if let Some(note) = current {
                self.current(&note, &mut prepared, &mut tried).await;
            } else if self.authorizer.active().is_none() {
                *lock(&self.trouble) = Some("nothing was pushed to this store yet (`tidegate policy push`)".into());
            } else {
                // What is in force stays, be it that the store lost everything.
                *lock(&self.trouble) = None;
            }
            match candidate {
                // Flipped, given up or forgotten: what was prepared for it is let go.
                None => (prepared, reported) = (None, None),
                Some(note) if reported.as_ref() != Some(&note) => {
                    prepared = self.prepare(&note).await;
                    reported = Some(note);
                }
                Some(_) => {}
            }
        }
    }

    async fn current(&self, note: &[u8], prepared: &mut Option<Prepared>, tried: &mut Option<Tried>) {
        if let Some(before) = tried.as_ref()
            && before.note == note
            && Instant::now() < before.again
        {
            return;
        }
        match self.apply(note, prepared.take_if(|prepared| is(note, &prepared.pointer))).await {
            Ok(()) => (*tried, *lock(&self.trouble)) = (None, None),
            Err((pause, why)) => {
                let news = lock(&self.trouble).replace(why.clone()).as_ref() != Some(&why);
                if news {
                    tracing::error!(why, "the fleet's policy cannot be put in force here; what is in force stays");
                }
                *tried = Some(Tried { note: note.to_vec(), again: Instant::now() + pause });
            }
        }
        self.tell();
    }

    /// Puts a pointer in force, unless it is; and how long to wait before it is tried again, if that fails.
    async fn apply(&self, note: &[u8], prepared: Option<Prepared>) -> Result<(), (Duration, String)> {
        let pointer: ActiveRecord = record::parse(note)
            .map_err(|error| (AGAIN, format!("what the store says is in force cannot be read: {error}")))?;
        if let Some(applied) = &mut *lock(&self.applied)
            && (applied.sequence, applied.component, applied.cases)
                == (pointer.sequence, pointer.component, pointer.cases)
        {
            // It may have come with another push, or with none: what decides is the same.
            *applied = pointer;
            return Ok(());
        }
        let next = match prepared {
            Some(prepared) => prepared.next,
            None => self.fetched(&pointer).await.map_err(|(pause, why)| (pause, why.why))?,
        };
        if let Some(statement) = &next.origin.signed {
            // Before it is kept: what cannot take force is nothing to start with.
            let ledger = self.rollout.signatures().ledger;
            ledger.check(statement).map_err(|error| (AGAIN, error.to_string()))?;
        }
        if let Some(copy) = &self.copy {
            copy.commit(&pointer).map_err(|error| (AGAIN, format!("it cannot be kept: {error}")))?;
        }
        // The configuration may have been loaded anew since it was prepared.
        let next = PreparedPolicy { context: self.authorizer.context(), ..next };
        self.rollout.activate(next).await.map_err(|refused| (AGAIN, refused.to_string()))?;
        *lock(&self.applied) = Some(pointer);
        Ok(())
    }

    /// Prepares a candidate, and says what came of it.
    async fn prepare(&self, note: &[u8]) -> Option<Prepared> {
        let PendingPush { pointer } = match record::parse(note) {
            Ok(candidate) => candidate,
            Err(error) => {
                tracing::error!(error, "what the store says is to be prepared cannot be read");
                return None;
            }
        };
        let result = self.fetched(&pointer).await.map_err(|(_, why)| why);
        let refused = result.as_ref().err().cloned();
        let report = record::note(&PrepareReport { instance: self.instance.clone(), refused });
        for _ in 0..REPORTS {
            match self.store.report(pointer.push.as_str(), &self.name, &report).await {
                Ok(()) => break,
                // At the worst the push waits for this node until its time is over, and changes nothing.
                Err(error) => tracing::warn!(%error, "the fleet could not be told that a policy is prepared"),
            }
            tokio::time::sleep(SOON).await;
        }
        self.tell();
        result.ok().map(|next| Prepared { pointer, next })
    }

    /// Takes what a pointer points to through the stages, and keeps it.
    async fn fetched(&self, pointer: &ActiveRecord) -> Result<PreparedPolicy, (Duration, PrepareFailure)> {
        let why = |stage, why: String| PrepareFailure { stage, why: short(&why) };
        let kept = self.copy.as_ref().and_then(|copy| copy.bundle(pointer).ok());
        let artifact = match kept {
            Some(artifact) => artifact,
            None => pointer.fetch(&self.store).await.map_err(|missing| {
                let pause = if matches!(missing, MissingBlob::Store(_)) { SOON } else { AGAIN };
                (pause, why(Stage::Fetched, missing.to_string()))
            })?,
        };
        let next = self.stages(pointer, artifact.clone(), "fleet".into()).await.map_err(|why| (AGAIN, why))?;
        if let Some(copy) = &self.copy {
            let failed = |error: std::io::Error| {
                (AGAIN, why(Stage::Fetched, format!("it cannot be kept on this machine: {error}")))
            };
            copy.save_prepared(pointer, &artifact).map_err(failed)?;
        }
        Ok(next)
    }

    async fn stages(
        &self,
        pointer: &ActiveRecord,
        artifact: PolicyBundle,
        source: String,
    ) -> Result<PreparedPolicy, PrepareFailure> {
        let refused = |stage, why: String| PrepareFailure { stage, why: short(&why) };
        if pointer.is_numbered_otherwise() {
            return Err(refused(Stage::Verified, record::OTHER_NUMBER.into()));
        }
        let origin = PolicyOrigin { source, sequence: Some(pointer.sequence), ..PolicyOrigin::default() };
        let next = self.rollout.prepare(artifact, self.authorizer.context(), origin).await;
        next.map_err(|error| refused(error.stage, error.why.clone()))
    }
}

/// Whether a note is this pointer.
fn is(note: &[u8], pointer: &ActiveRecord) -> bool {
    record::parse::<ActiveRecord>(note).is_ok_and(|other| other == *pointer)
}
