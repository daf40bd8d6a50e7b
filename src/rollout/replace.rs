//! Somebody wants another policy in force, at the control port. Where the policy lies in a file, the file is replaced too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::artifact::bundle::PolicyBundle;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::lock::ActivationGuard;
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::{ActivationError, Stage, StageError};
use crate::rollout::{Inner, Rollout, blocking};
use crate::shadow::shadow_policy::ShadowPolicy;

/// What is wanted.
pub struct ReplacementKind {
    /// What shall take force.
    pub what: ReplacementSource,
    /// Only as far as its cases.
    pub dry_run: bool,
    /// Whether it is still wanted, given what is in force when its turn comes.
    pub wanted: ReplacementRequest,
    /// What is not about to take force after so long does not any more.
    pub within: Option<Duration>,
}

/// Is told what is in force.
pub type ReplacementRequest = Box<dyn Fn(Option<&PolicyInfo>) -> bool + Send + Sync>;

/// What shall take force.
pub enum ReplacementSource {
    /// This.
    Given(PolicyBundle),
    /// What was in force before.
    Before,
    /// The candidate, if it still is one.
    Proposed(Arc<ShadowPolicy>),
}

/// What came of it.
#[derive(Debug)]
pub enum Replacement {
    /// It decides. If it is gone after a restart, with the reason.
    InForce(Arc<PolicyInfo>, Option<String>),
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
pub enum ReplaceError {
    /// Another change was asked for after it, while it waited for its turn.
    Overtaken,
    /// It was not wanted any more.
    Unwanted(Option<Arc<PolicyInfo>>),
    /// Another candidate took its place, or none.
    Withdrawn,
    /// There is nothing to go back to.
    NothingBefore(String),
    /// It took longer than was wanted.
    Late(Duration),
    /// A stage was not reached.
    Activation(Arc<ActivationError>),
}

impl Rollout {
    /// Takes a change all the way. It goes on when nobody waits for it any more.
    pub async fn replace(&self, change: ReplacementKind) -> Result<Replacement, ReplaceError> {
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
        let failed = |error| self.0.refuse(StageError::new(Stage::InForce, error), None, &control_port());
        done.unwrap_or_else(|error| Err(ReplaceError::Activation(failed(error))))
    }

    async fn go(&self, change: ReplacementKind, limit: Limit) -> Result<Replacement, ReplaceError> {
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
                _ = asked.wait_for(|last| *last != number) => return Err(ReplaceError::Overtaken),
                turn = self.turn() => turn,
                () = limit.passed() => return Err(limit.late()),
            }
        };
        let active = inner.authorizer.active();
        if !(change.wanted)(active.as_deref()) {
            return Err(ReplaceError::Unwanted(active));
        }
        let files = inner.place().files.clone();
        let goes_back = matches!(change.what, ReplacementSource::Before);
        let mut candidate = None;
        let (artifact, next) = match change.what {
            ReplacementSource::Proposed(proposed) => turn.promote(candidate.insert(proposed)).await?,
            ReplacementSource::Given(artifact) => {
                let artifact = with_cases_beside(artifact, files.as_ref(), inner).await;
                prepared(&turn, artifact.map_err(ReplaceError::Activation)?).await?
            }
            ReplacementSource::Before => {
                let artifact = before(inner, files.as_ref()).await.map_err(ReplaceError::NothingBefore)?;
                prepared(&turn, artifact).await?
            }
        };
        if !limit.decide() {
            return Err(limit.late());
        }
        if change.dry_run {
            let cases = next.attachments.suite.as_ref().map_or(0, |suite| suite.cases.len());
            return Ok(Replacement::Passed { digest: next.policy.digest().to_string(), cases });
        }
        let gone = if goes_back { inner.line().remove_active() } else { None };
        let (taken, only_here) = take(&turn, artifact, next, files).await;
        if taken.is_err() {
            inner.line().restore(gone);
        }
        if let (Ok(_), Some(candidate)) = (&taken, &candidate) {
            inner.ended(candidate);
        }
        taken.map(|info| Replacement::InForce(info, only_here)).map_err(ReplaceError::Activation)
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

    const fn late(&self) -> ReplaceError {
        ReplaceError::Late(self.within)
    }
}

async fn prepared(
    turn: &ActivationGuard<'_>,
    artifact: PolicyBundle,
) -> Result<(PolicyBundle, PreparedPolicy), ReplaceError> {
    let next = turn.prepare(&artifact, turn.inner.authorizer.context(), control_port()).await;
    Ok((artifact, next.map_err(ReplaceError::Activation)?))
}

pub(super) fn control_port() -> PolicyOrigin {
    PolicyOrigin { source: "control port".into(), ..PolicyOrigin::default() }
}

/// The file first: who starts behind this starts with what is about to take force, and it has passed everything already.
async fn take(
    turn: &ActivationGuard<'_>,
    artifact: PolicyBundle,
    mut next: PreparedPolicy,
    files: Option<PolicySource>,
) -> (Result<Arc<PolicyInfo>, Arc<ActivationError>>, Option<String>) {
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
            next.origin.until_restart = true;
            Some(why)
        }
    };
    (turn.activate(next, Some(artifact)).await, only_here)
}

/// Whoever brings no cases of his own has to pass those that lie beside the file: the next start asks them.
pub(super) async fn with_cases_beside(
    mut artifact: PolicyBundle,
    files: Option<&PolicySource>,
    inner: &Inner,
) -> Result<PolicyBundle, Arc<ActivationError>> {
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
            let failed = StageError::new(Stage::Fetched, why);
            Err(inner.refuse(failed, Some(artifact.digest()), &control_port()))
        }
    }
}

async fn before(inner: &Inner, files: Option<&PolicySource>) -> Result<PolicyBundle, String> {
    let target = inner.line().target().map(|entry| entry.bundle);
    let digests = target.ok_or("no other policy was active here that is remembered")?;
    let records = inner.records.clone().ok_or("without a cache-dir no policy is saved to roll back to")?;
    let read = blocking(move || records.store().read(&digests)).await;
    let bundle = read.map_err(|error| format!("{} cannot be read from cache-dir: {error}", digests.component))?;
    Ok(PolicyBundle { folder: files.and_then(|files| files.cases.parent()).map(Into::into), ..bundle })
}
