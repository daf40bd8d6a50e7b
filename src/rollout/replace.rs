//! Somebody wants another policy in force, at the control port. Where the policy lies in a file, the file is replaced too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::archive::Id;
use super::line::Past;
use super::stage::{Failed, Refused, Stage};
use super::{Artifact, Files, Inner, Rollout, Turn, blocking};
use crate::policy::shadow::Candidate;
use crate::policy::{About, Next, Origin};

/// What is wanted.
pub struct Change {
    /// What shall take force.
    pub what: What,
    /// Only as far as its cases.
    pub dry_run: bool,
    /// Whether it is still wanted, given what is in force when its turn comes.
    pub wanted: Wanted,
    /// What is not about to take force after so long does not any more.
    pub within: Option<Duration>,
}

/// Is told what is in force.
pub type Wanted = Box<dyn Fn(Option<&About>) -> bool + Send + Sync>;

/// What shall take force.
pub enum What {
    /// This.
    Given(Artifact),
    /// What was in force before.
    Before,
    /// The candidate, if it still is one.
    Proposed(Arc<Candidate>),
}

/// What came of it.
#[derive(Debug)]
pub enum Done {
    /// It decides. If it is gone after a restart, with the reason.
    InForce(Arc<About>, Option<String>),
    /// It could. Nothing changed.
    Passed {
        /// `sha256:…` of the component.
        digest: String,
        /// How many cases it was asked.
        cases: usize,
    },
}

/// Why nothing came of it.
#[derive(Debug)]
pub enum NotReplaced {
    /// Another change was asked for after it, while it waited for its turn.
    Overtaken,
    /// It was not wanted any more.
    Unwanted(Option<Arc<About>>),
    /// Another candidate took its place, or none.
    Withdrawn,
    /// There is nothing to go back to.
    NothingBefore(String),
    /// It took longer than was wanted.
    Late(Duration),
    /// A stage was not reached.
    Refused(Arc<Refused>),
}

impl Rollout {
    /// Takes a change all the way. It goes on when nobody waits for it any more.
    pub async fn replace(&self, change: Change) -> Result<Done, NotReplaced> {
        let (rollout, limit) = (self.clone(), Limit::from(change.within));
        let mut going = tokio::spawn({
            let limit = limit.clone();
            async move { rollout.go(change, limit).await }
        });
        let done = match limit.end {
            None => going.await,
            Some(end) => match timeout_at(end, &mut going).await {
                Ok(done) => done,
                // What is on its way is let go when it is through the stage that it is in.
                Err(_) if limit.decide() => return Err(limit.late()),
                Err(_) => going.await,
            },
        };
        let failed = |error| self.0.refuse(Failed::new(Stage::Active, error), None, &control_port());
        done.unwrap_or_else(|error| Err(NotReplaced::Refused(failed(error))))
    }

    async fn go(&self, change: Change, limit: Limit) -> Result<Done, NotReplaced> {
        let inner = &*self.0;
        // A rehearsal is in nobody's way.
        let turn = if change.dry_run {
            tokio::select! { turn = self.turn() => turn, () = limit.passed() => return Err(limit.late()) }
        } else {
            let (mut asked, mut number) = (inner.asked.subscribe(), 0);
            inner.asked.send_modify(|last| {
                *last += 1;
                number = *last;
            });
            tokio::select! {
                biased;
                _ = asked.wait_for(|last| *last != number) => return Err(NotReplaced::Overtaken),
                turn = self.turn() => turn,
                () = limit.passed() => return Err(limit.late()),
            }
        };
        let in_force = inner.gate.in_force();
        if !(change.wanted)(in_force.as_deref()) {
            return Err(NotReplaced::Unwanted(in_force));
        }
        let files = inner.place().files.clone();
        let goes_back = matches!(change.what, What::Before);
        let mut candidate = None;
        let (artifact, next) = match change.what {
            What::Proposed(proposed) => turn.promote(candidate.insert(proposed)).await?,
            What::Given(artifact) => {
                let artifact = with_cases_beside(artifact, files.as_ref(), inner).await;
                prepared(&turn, artifact.map_err(NotReplaced::Refused)?).await?
            }
            What::Before => {
                let artifact = before(inner, files.as_ref()).await.map_err(NotReplaced::NothingBefore)?;
                prepared(&turn, artifact).await?
            }
        };
        if !limit.decide() {
            return Err(limit.late());
        }
        if change.dry_run {
            let cases = next.papers.suite.as_ref().map_or(0, |suite| suite.cases.len());
            return Ok(Done::Passed { digest: next.policy.digest().to_string(), cases });
        }
        let gone = if goes_back { inner.line().go_back() } else { None };
        let (taken, only_here) = take(&turn, artifact, next, files).await;
        if taken.is_err() {
            inner.line().forth(gone);
        }
        if let (Ok(_), Some(candidate)) = (&taken, &candidate) {
            inner.ended(candidate);
        }
        taken.map(|about| Done::InForce(about, only_here)).map_err(NotReplaced::Refused)
    }
}

/// The time that somebody gives a change. Either it passes, or the change is made.
#[derive(Clone, Default)]
struct Limit {
    within: Duration,
    end: Option<Instant>,
    decided: Arc<AtomicBool>,
}

impl From<Option<Duration>> for Limit {
    fn from(within: Option<Duration>) -> Self {
        let end = within.and_then(|within| Instant::now().checked_add(within));
        Self { within: within.unwrap_or_default(), end, decided: Arc::default() }
    }
}

impl Limit {
    async fn passed(&self) {
        match self.end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }

    /// True for the first who asks: whoever waits, when the time is over; or the change, when it is about to be made.
    fn decide(&self) -> bool {
        !self.decided.swap(true, Ordering::Relaxed)
    }

    const fn late(&self) -> NotReplaced {
        NotReplaced::Late(self.within)
    }
}

async fn prepared(turn: &Turn<'_>, artifact: Artifact) -> Result<(Artifact, Next), NotReplaced> {
    let next = turn.prepare(&artifact, turn.inner.gate.basis(), control_port()).await;
    Ok((artifact, next.map_err(NotReplaced::Refused)?))
}

pub(super) fn control_port() -> Origin {
    Origin { source: "control port".into(), ..Origin::default() }
}

/// The file first: who starts behind this starts with what is about to take force, and it has passed everything already.
async fn take(
    turn: &Turn<'_>,
    artifact: Artifact,
    mut next: Next,
    files: Option<Files>,
) -> (Result<Arc<About>, Arc<Refused>>, Option<String>) {
    let written = match files {
        None => Err("the policy in the configuration is no file".to_owned()),
        Some(files) => {
            let artifact = artifact.clone();
            blocking(move || files.write(&artifact)).await
        }
    };
    let only_here = match written {
        Ok(stamp) => {
            turn.inner.place().seen = stamp;
            None
        }
        Err(why) => {
            tracing::warn!(policy = %next.policy.digest(), why, "the policy's file cannot be replaced: this one is in force until the next start");
            next.origin.persisted = false;
            Some(why)
        }
    };
    turn.keep(artifact).await;
    (turn.put_in_force(next).await, only_here)
}

/// Whoever brings no cases of his own has to pass those that lie beside the file: the next start asks them.
pub(super) async fn with_cases_beside(
    mut artifact: Artifact,
    files: Option<&Files>,
    inner: &Inner,
) -> Result<Artifact, Arc<Refused>> {
    let Some(files) = files.filter(|_| artifact.cases.is_none()).cloned() else { return Ok(artifact) };
    let folder = files.cases.parent().map(Into::into);
    match blocking(move || files.cases_text()).await {
        Ok(Some(cases)) => {
            artifact.cases = Some(cases);
            artifact.folder = folder;
            Ok(artifact)
        }
        Ok(None) => Ok(artifact),
        Err(why) => {
            let failed = Failed::new(Stage::Fetched, why);
            Err(inner.refuse(failed, Some(artifact.digest()), &control_port()))
        }
    }
}

async fn before(inner: &Inner, files: Option<&Files>) -> Result<Artifact, String> {
    let id: Id = inner.line().back().map(Past::id).ok_or("nothing else was in force here that is remembered")?;
    let archive = inner.archive.clone().ok_or("without a cache-dir nothing is kept to go back to")?;
    let digest = id.component.clone();
    let got = blocking(move || archive.get(&id)).await;
    let mut artifact = got.map_err(|error| format!("{digest} is not in cache-dir any more: {error}"))?;
    artifact.folder = files.and_then(|files| files.cases.parent()).map(Into::into);
    Ok(artifact)
}
