//! The node's side of a candidate for the whole fleet: it is taken through the stages and asked, or it is said why not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::follow::{AGAIN, SOON};
use super::member::{Beside, Fleet, Heard, lock, shorter};
use super::pointer::{self, Missing, PushId, Why};
use super::proposal::Proposal;
use crate::policy::Origin;
use crate::policy::shadow::{Candidate, Share};
use crate::rollout::Stage;

/// What became of a candidate here.
pub(super) struct Trial {
    note: Vec<u8>,
    /// None where the note cannot be read.
    push: Option<PushId>,
    candidate: Result<Arc<Candidate>, Refusal>,
}

/// Why it is not asked, and when it is tried again. What did not come through a stage is not: it would fail there every time.
struct Refusal {
    why: Why,
    again: Option<Instant>,
}

impl Trial {
    /// What this node says of it.
    pub fn word(&self) -> Beside {
        let push_id = self.push.clone();
        match &self.candidate {
            Ok(candidate) => {
                Beside { push_id, since: Some(candidate.since()), counts: Some(candidate.counts()), failure: None }
            }
            Err(refusal) => Beside { push_id, since: None, counts: None, failure: Some(refusal.why.clone()) },
        }
    }

    fn again(&self) -> Option<Instant> {
        self.candidate.as_ref().err()?.again
    }
}

impl Fleet {
    /// Asks what the fleet says is to be asked, for as long as it says so. Apart from what follows the pointer: a candidate that takes long
    /// to compile is in the way of no push but by its turn.
    pub(super) async fn ask_beside(self: Arc<Self>, mut heard: watch::Receiver<Heard>) {
        loop {
            let again = lock(&self.trial).as_ref().and_then(Trial::again);
            let retry = async {
                match again {
                    Some(again) => sleep_until(again).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = heard.changed() => if changed.is_err() { return },
                () = retry => {}
            }
            let note = heard.borrow_and_update().shadow.clone();
            self.take_up(note).await;
        }
    }

    async fn take_up(&self, note: Option<Vec<u8>>) {
        let known = |trial: &Trial| {
            Some(&trial.note) == note.as_ref() && trial.again().is_none_or(|again| Instant::now() < again)
        };
        if lock(&self.trial).as_ref().is_some_and(known) {
            return;
        }
        let Some(note) = note else {
            let before = lock(&self.trial).take();
            self.end(before);
            return;
        };
        let proposal = pointer::parse::<Proposal>(&note);
        let push = proposal.as_ref().ok().map(|proposal| proposal.pointer.push_id.clone());
        let candidate = match proposal {
            Ok(proposal) => self.asked(proposal).await,
            Err(error) => {
                tracing::error!(error, "what the store says is to be asked beside cannot be read");
                Err(refusal(Stage::Fetched, &error, None))
            }
        };
        if let Err(refusal) = &candidate {
            tracing::warn!(why = refusal.why.reason, "the fleet's candidate is not asked here");
        }
        let before = lock(&self.trial).replace(Trial { note, push, candidate });
        self.end(before);
        self.tell();
    }

    /// Another one has taken its place already, or none has.
    fn end(&self, trial: Option<Trial>) {
        if let Some(Trial { candidate: Ok(candidate), .. }) = trial {
            self.rollout.ended(&candidate);
        }
    }

    async fn asked(&self, proposal: Proposal) -> Result<Arc<Candidate>, Refusal> {
        let Proposal { pointer, share } = proposal;
        let artifact = pointer.fetch(&self.store).await.map_err(|missing| {
            let pause = if matches!(missing, Missing::Store(_)) { SOON } else { AGAIN };
            refusal(Stage::Fetched, &missing.to_string(), Some(pause))
        })?;
        if pointer.is_numbered_otherwise() {
            return Err(refusal(Stage::Verified, pointer::OTHER_NUMBER, None));
        }
        let origin = Origin { source: "fleet".into(), sequence: Some(pointer.sequence), ..Origin::default() };
        let share = Share { share: share.into(), concurrency: self.concurrency };
        let asked = self.rollout.propose_for_all(artifact, origin, share).await;
        asked.map_err(|refused| refusal(refused.stage, &refused.reason, None))
    }
}

fn refusal(stage: Stage, why: &str, pause: Option<Duration>) -> Refusal {
    Refusal { why: Why { stage, reason: shorter(why) }, again: pause.map(|pause| Instant::now() + pause) }
}
