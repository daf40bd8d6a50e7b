//! The node's side of a candidate for the whole fleet: it is taken through the stages and asked, or it is said why not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::fleet::follower::{AGAIN, SOON};
use crate::fleet::node::{Fleet, FleetState, ShadowNodeStatus, lock, shorter};
use crate::fleet::record;
use crate::fleet::record::{MissingBlob, PrepareFailure, PushId};
use crate::fleet::shadow::push::ShadowPush;
use crate::policy::info::PolicyOrigin;
use crate::rollout::stage::Stage;
use crate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

/// What became of a candidate here.
pub(crate) struct ShadowFollower {
    note: Vec<u8>,
    /// None where the note cannot be read.
    push: Option<PushId>,
    candidate: Result<Arc<ShadowPolicy>, Refusal>,
}

/// Why it is not asked, and when it is tried again. What did not come through a stage is not: it would fail there every time.
struct Refusal {
    why: PrepareFailure,
    again: Option<Instant>,
}

impl ShadowFollower {
    /// What this node says of it.
    pub fn word(&self) -> ShadowNodeStatus {
        let push = self.push.clone();
        match &self.candidate {
            Ok(candidate) => ShadowNodeStatus {
                push,
                since: Some(candidate.since()),
                counts: Some(candidate.counts()),
                refused: None,
            },
            Err(refusal) => ShadowNodeStatus { push, since: None, counts: None, refused: Some(refusal.why.clone()) },
        }
    }

    fn again(&self) -> Option<Instant> {
        self.candidate.as_ref().err()?.again
    }
}

impl Fleet {
    /// Asks what the fleet says is to be asked, for as long as it says so. Apart from what follows the pointer: a candidate that takes long
    /// to compile is in the way of no push but by its turn.
    pub(crate) async fn ask_beside(self: Arc<Self>, mut heard: watch::Receiver<FleetState>) {
        loop {
            let again = lock(&self.trial).as_ref().and_then(ShadowFollower::again);
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
        let known = |trial: &ShadowFollower| {
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
        let proposal = record::parse::<ShadowPush>(&note);
        let push = proposal.as_ref().ok().map(|proposal| proposal.pointer.push.clone());
        let candidate = match proposal {
            Ok(proposal) => self.asked(proposal).await,
            Err(error) => {
                tracing::error!(error, "what the store says is to be asked beside cannot be read");
                Err(refusal(Stage::Fetched, &error, None))
            }
        };
        if let Err(refusal) = &candidate {
            tracing::warn!(why = refusal.why.why, "the fleet's candidate is not asked here");
        }
        let before = lock(&self.trial).replace(ShadowFollower { note, push, candidate });
        self.end(before);
        self.tell();
    }

    /// Another one has taken its place already, or none has.
    fn end(&self, trial: Option<ShadowFollower>) {
        if let Some(ShadowFollower { candidate: Ok(candidate), .. }) = trial {
            self.rollout.stop_shadow(&candidate);
        }
    }

    async fn asked(&self, proposal: ShadowPush) -> Result<Arc<ShadowPolicy>, Refusal> {
        let ShadowPush { pointer, share } = proposal;
        let artifact = pointer.fetch(&self.store).await.map_err(|missing| {
            let pause = if matches!(missing, MissingBlob::Store(_)) { SOON } else { AGAIN };
            refusal(Stage::Fetched, &missing.to_string(), Some(pause))
        })?;
        if pointer.is_numbered_otherwise() {
            return Err(refusal(Stage::Verified, record::OTHER_NUMBER, None));
        }
        let origin =
            PolicyOrigin { source: "fleet".into(), sequence: Some(pointer.sequence), ..PolicyOrigin::default() };
        let share = ShadowSampling { share: share.into(), concurrency: self.concurrency };
        let asked = self.rollout.start_fleet_shadow(artifact, origin, share).await;
        asked.map_err(|refused| refusal(refused.stage, &refused.why, None))
    }
}

fn refusal(stage: Stage, why: &str, pause: Option<Duration>) -> Refusal {
    Refusal { why: PrepareFailure { stage, why: shorter(why) }, again: pause.map(|pause| Instant::now() + pause) }
}
