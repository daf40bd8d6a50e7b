//! A policy on its way into force: fetched → verified → compiled → linked → its cases pass → in force. Whatever fails on the way
//! leaves what is in force as it is, and says why.

mod archive;
mod artifact;
mod file;
mod follow;
mod history;
mod propose;
mod replace;
mod requires;
mod stage;
mod stages;
mod watching;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::policy::component::Policy;
use crate::policy::gate::Gate;
use crate::policy::signature::{Signatures, Trust};
use crate::policy::{About, Basis, Next, Origin, Papers};
use crate::stream::now_ms;
use crate::telemetry::metrics;
use archive::{Archive, Id};
use file::Stamp;
use propose::Proposed;
use stage::Failed;
use stages::{Reached, Walked};

pub use artifact::{Artifact, digest};
pub use file::Files;
pub use follow::{Follow, Load};
pub use history::{Candidate, Configuration, History};
pub use replace::{Change, Done, NotReplaced, Wanted, What};
pub use stage::{Refused, Stage};
pub use stages::MAX_CASES;

/// Why nothing takes force where there is no door.
const EVERYBODY: &str = "this gateway lets everybody in (allow-all), so no policy is asked";
/// Versions that one can go back through.
const LINE: usize = 8;

/// The way into force. There is one in a process; clones are the same.
#[derive(Clone)]
pub struct Rollout(Arc<Inner>);

struct Inner {
    gate: Arc<Gate>,
    archive: Option<Archive>,
    signatures: Mutex<Signatures>,
    /// Whoever is on the way holds it: one at a time compiles and takes force.
    turn: tokio::sync::Mutex<()>,
    /// Replacements that were asked for; of those that wait only the last one goes on.
    asked: watch::Sender<u64>,
    waiting: AtomicUsize,
    history: Mutex<History>,
    /// Held while something takes force, so that what was seen, what one goes back to and what is in force are the same.
    in_force: Mutex<Line>,
    place: Mutex<Place>,
    /// The candidate beside what is in force.
    proposed: Mutex<Option<Proposed>>,
}

/// What is in force, and the way back.
#[derive(Default)]
struct Line {
    now: Option<(Policy, Papers)>,
    /// What was in force, the latest last.
    before: Vec<Id>,
}

/// Where the policy lies.
#[derive(Clone, Default)]
struct Place {
    files: Option<Files>,
    /// The files as they were when they were looked at last.
    seen: Stamp,
}

/// The right to put something in force. Who waits for one comes in turn.
pub struct Turn<'a> {
    inner: &'a Inner,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Rollout {
    /// The way to this door, for those that are signed as they should be. What was in force lately is kept below `cache_dir`.
    #[must_use]
    pub fn new(gate: Arc<Gate>, signatures: Signatures, cache_dir: Option<&Path>) -> Self {
        Self(Arc::new(Inner {
            gate,
            signatures: Mutex::new(signatures),
            archive: cache_dir.map(Archive::below),
            turn: tokio::sync::Mutex::default(),
            asked: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            history: Mutex::default(),
            in_force: Mutex::default(),
            place: Mutex::default(),
            proposed: Mutex::default(),
        }))
    }

    /// Who may sign, and how far sequence numbers went.
    #[must_use]
    pub fn signatures(&self) -> Signatures {
        self.0.signatures().clone()
    }

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

    /// Takes an artifact through all stages but the last. Nothing changes by it but the history, if it fails.
    pub async fn prepare(&self, artifact: Artifact, basis: Arc<Basis>, origin: Origin) -> Result<Next, Arc<Refused>> {
        self.turn().await.prepare(&artifact, basis, origin).await
    }

    /// Puts what was prepared in force, at once, and waits until no answer of an older version is on its way out any more. Refused
    /// is only what something newer that was signed came before, or what cannot be remembered.
    pub async fn put_in_force(&self, next: Next) -> Result<Arc<About>, Arc<Refused>> {
        // The configuration may have changed since it was prepared.
        let basis = self.0.gate.basis();
        let requires = next.papers.suite.as_ref().map(|suite| &suite.requires);
        let missing = requires.map(|requires| requires::missing(requires, &basis.surroundings)).unwrap_or_default();
        if !missing.is_empty() {
            tracing::error!(policy = %next.policy.digest(), ?missing, "the policy requires what was configured when it was prepared");
        }
        self.0.put_in_force(Next { basis, ..next }).await
    }

    /// Takes the first policy into force: that in the files, or the example.
    pub async fn begin(&self, files: Option<Files>, example: &'static [u8]) -> Result<Arc<About>, Arc<Refused>> {
        let turn = self.turn().await;
        let (artifact, next) = self.first(&turn, files, example).await?;
        turn.keep(artifact).await;
        turn.put_in_force(next).await
    }

    /// Takes the first policy as far as its cases.
    pub async fn check(&self, files: Option<Files>, example: &'static [u8]) -> Result<Next, Arc<Refused>> {
        Ok(self.first(&self.turn().await, files, example).await?.1)
    }

    async fn first(
        &self,
        turn: &Turn<'_>,
        files: Option<Files>,
        example: &'static [u8],
    ) -> Result<(Artifact, Next), Arc<Refused>> {
        let (artifact, origin) = match &files {
            Some(files) => (self.fetch(files.clone()).await?, files.origin()),
            None => (Artifact::new(example), Origin { source: "the example policy".into(), ..Origin::default() }),
        };
        self.0.place().files = files;
        let next = turn.prepare(&artifact, self.0.gate.basis(), origin).await?;
        Ok((artifact, next))
    }

    /// Reads the files, and remembers that it did. What cannot be read is refused.
    async fn fetch(&self, files: Files) -> Result<Artifact, Arc<Refused>> {
        let origin = files.origin();
        let read = tokio::task::spawn_blocking(move || files.read()).await;
        match read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string())) {
            Ok((artifact, stamp)) => {
                self.0.place().seen = stamp;
                Ok(artifact)
            }
            Err(why) => Err(self.0.refuse(Failed::new(Stage::Fetched, why), None, &origin)),
        }
    }

    /// What was in force and what was refused.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.0.history()
    }

    /// All that there is to tell, as JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        let (in_force, old) = (self.0.gate.in_force(), self.0.gate.old());
        let before = self.0.line().back().map(|id| id.component.clone());
        self.0.history().to_json(in_force.as_deref(), &old, before.as_deref())
    }
}

impl Line {
    /// What one goes back to.
    fn back(&self) -> Option<&Id> {
        self.before.len().checked_sub(2).and_then(|place| self.before.get(place))
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
        let walk = stages::walk(compiler, signatures, artifact.clone(), Arc::clone(&basis), candidate.reached());
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
    async fn again(&self, signed: Option<&Artifact>, mut next: Next) -> Result<Next, Arc<Refused>> {
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
            async move { stages::again(&compiler, &policy, &papers, &basis, &reached).await }
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

impl Inner {
    async fn put_in_force(&self, next: Next) -> Result<Arc<About>, Arc<Refused>> {
        let within = next.basis.limits.timeout + next.basis.limits.queue_timeout + Duration::from_secs(2);
        let swap = {
            let mut line = self.line();
            if let Some(statement) = &next.origin.signed
                && let Err(error) = self.signatures().seen.raise(statement)
            {
                let digest = next.policy.digest().to_string();
                return Err(self.refuse(Failed::new(Stage::InForce, error), Some(digest), &next.origin));
            }
            let id =
                Id { component: next.policy.digest().to_string(), cases: next.papers.cases.as_deref().map(Into::into) };
            if line.before.last() != Some(&id) {
                line.before.push(id);
            }
            let too_many = line.before.len().saturating_sub(LINE);
            line.before.drain(..too_many);
            line.now = Some((next.policy.clone(), next.papers.clone()));
            self.gate.swap(next)
        };
        let about = Arc::clone(&swap.about);
        tracing::info!(policy = %about.digest, version = about.number, source = about.origin.source, "in force");
        self.history().took_force(&about);
        if tokio::time::timeout(within, swap.acknowledged()).await.is_err() {
            tracing::warn!(
                version = about.number,
                "answers of an older version are still on their way to clients that do not read"
            );
        }
        Ok(about)
    }

    fn refuse(&self, failed: Failed, digest: Option<String>, origin: &Origin) -> Arc<Refused> {
        let Failed { stage, why } = failed;
        let refused = Arc::new(Refused { stage, why, time: now_ms(), digest, origin: origin.clone() });
        let (source, why) = (&refused.origin.source, &refused.why);
        let stays = self.gate.in_force().map(|about| about.digest.to_string()).unwrap_or_default();
        tracing::error!(source, stage = stage.as_str(), why, in_force = stays, "a policy was refused");
        metrics().policy_refused(stage.as_str());
        self.history().was_refused(&refused);
        refused
    }

    fn signatures(&self) -> MutexGuard<'_, Signatures> {
        self.signatures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
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
