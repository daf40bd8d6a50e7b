//! A policy on its way into force: fetched → verified → compiled → linked → its cases pass → in force. Whatever fails on the way
//! leaves what is in force as it is, and says why.

mod archive;
mod artifact;
mod file;
mod follow;
mod history;
mod line;
mod propose;
mod replace;
mod requires;
mod stage;
mod stages;
mod turn;
mod watching;

use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::policy::gate::Gate;
use crate::policy::signature::Signatures;
use crate::policy::{About, Basis, Next, Origin};
use crate::stamp::Stamp;
use crate::stream::now_ms;
use crate::telemetry::metrics;
use archive::Archive;
use line::Line;
use propose::Proposed;
use stage::Failed;

pub use artifact::{Artifact, digest};
pub use file::Files;
pub use follow::{Follow, Load};
pub use history::{Candidate, Configuration, History};
pub use line::{Memory, Past};
pub use replace::{Change, Done, NotReplaced, Wanted, What};
pub use stage::{Refused, Stage};
pub use stages::MAX_CASES;
pub use turn::Turn;

/// Why nothing takes force where there is no door.
const EVERYBODY: &str = "this gateway lets everybody in (allow-all), so no policy is asked";

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
    /// This is not the machine that a policy shall decide on, so what it requires cannot be asked for.
    elsewhere: bool,
    history: Mutex<History>,
    /// Held while something takes force, so that what was seen, what one goes back to and what is in force are the same.
    in_force: Mutex<Line>,
    /// Where the way back is remembered over restarts, if it is.
    memory: OnceLock<Memory>,
    place: Mutex<Place>,
    /// The candidate beside what is in force.
    proposed: Mutex<Option<Proposed>>,
}

/// Where the policy lies.
#[derive(Clone, Default)]
struct Place {
    files: Option<Files>,
    /// The files as they were when they were looked at last.
    seen: Stamp,
}

impl Rollout {
    /// The way to this door, for those that are signed as they should be. What was in force lately is kept below `cache_dir`.
    #[must_use]
    pub fn new(gate: Arc<Gate>, signatures: Signatures, cache_dir: Option<&Path>) -> Self {
        Self::with(gate, signatures, cache_dir, false)
    }

    /// The stages on a machine whose configuration says nothing of where a policy shall decide: what it requires is not asked for.
    #[must_use]
    pub fn elsewhere(gate: Arc<Gate>) -> Self {
        Self::with(gate, Signatures::default(), None, true)
    }

    fn with(gate: Arc<Gate>, signatures: Signatures, cache_dir: Option<&Path>, elsewhere: bool) -> Self {
        Self(Arc::new(Inner {
            gate,
            signatures: Mutex::new(signatures),
            archive: cache_dir.map(Archive::below),
            turn: tokio::sync::Mutex::default(),
            asked: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            elsewhere,
            history: Mutex::default(),
            in_force: Mutex::default(),
            memory: OnceLock::new(),
            place: Mutex::default(),
            proposed: Mutex::default(),
        }))
    }

    /// Who may sign, and how far sequence numbers went.
    #[must_use]
    pub fn signatures(&self) -> Signatures {
        self.0.signatures().clone()
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

    /// Takes the first policy into force: that in the files, or the example. What was in force before the start, and what will be, is
    /// remembered in `memory`.
    pub async fn begin(
        &self,
        files: Option<Files>,
        example: &'static [u8],
        memory: Option<Memory>,
    ) -> Result<Arc<About>, Arc<Refused>> {
        let turn = self.turn().await;
        if let Some(memory) = memory {
            self.0.recall(memory, files.clone()).await;
        }
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
        let (artifact, stamp) = self.read(files).await?;
        self.0.place().seen = stamp;
        Ok(artifact)
    }

    async fn read(&self, files: Files) -> Result<(Artifact, Stamp), Arc<Refused>> {
        let origin = files.origin();
        let read = blocking(move || files.read()).await;
        read.map_err(|why| self.0.refuse(Failed::new(Stage::Fetched, why), None, &origin))
    }

    /// What was in force and what was refused.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.0.history()
    }

    /// All that there is to tell, as JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        let (in_force, old) = (self.0.gate.in_force(), self.0.gate.old());
        let before = self.0.line().back().map(|past| past.digest.clone());
        self.0.history().to_json(in_force.as_deref(), &old, before.as_deref())
    }
}

/// Does on a thread for it what takes long or waits for a disk. A panic is an error too.
async fn blocking<T: Send + 'static, E: Display>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(move || work().map_err(|error| error.to_string())).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
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
                return Err(self.refuse(Failed::new(Stage::Active, error), Some(digest), &next.origin));
            }
            line.now = Some((next.policy.clone(), next.papers.clone()));
            let swap = self.gate.swap(next);
            line.took_force(Past::of(&swap.about));
            swap
        };
        let about = Arc::clone(&swap.about);
        tracing::info!(policy = %about.digest, version = about.generation, source = about.origin.source, "in force");
        self.history().took_force(&about);
        self.remember().await;
        if tokio::time::timeout(within, swap.acknowledged()).await.is_err() {
            tracing::warn!(
                version = about.generation,
                "answers of an older version are still on their way to clients that do not read"
            );
        }
        Ok(about)
    }

    /// Goes on where the process before this one ended. Where that cannot be read there is no way back behind the start.
    async fn recall(&self, memory: Memory, files: Option<Files>) {
        let read = {
            let memory = memory.clone();
            blocking(move || memory.read(files.as_ref())).await
        };
        match read {
            Ok(past) => {
                self.history().earlier = past.iter().rev().cloned().collect();
                self.line().begin_with(past);
            }
            Err(error) => {
                tracing::warn!(error, "what was in force before is not known, so one cannot roll back to it");
            }
        }
        let _ = self.memory.set(memory);
    }

    /// Remembers what is in force and what one goes back to, if that changed. What cannot be remembered decides all the same.
    async fn remember(&self) {
        let Some(memory) = self.memory.get().cloned() else { return };
        let (Some(past), files) = (self.line().unwritten(), self.place().files.clone()) else { return };
        if let Err(error) = blocking(move || memory.write(files.as_ref(), &past)).await {
            tracing::warn!(
                error,
                "what is in force cannot be remembered, so one cannot roll back to it behind a restart"
            );
        }
    }

    fn refuse(&self, failed: Failed, digest: Option<String>, origin: &Origin) -> Arc<Refused> {
        let Failed { stage, why } = failed;
        let refused = Arc::new(Refused { stage, reason: why, time: now_ms(), digest, origin: origin.clone() });
        let (source, why) = (&refused.origin.source, &refused.reason);
        let stays = self.gate.in_force().map(|about| about.digest.to_string()).unwrap_or_default();
        tracing::error!(source, stage = stage.as_str(), why, in_force = stays, "a policy was refused");
        metrics().policy_activation_failed(stage.as_str());
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
