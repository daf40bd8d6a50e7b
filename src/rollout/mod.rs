//! A policy on its way into force: fetched → verified → compiled → linked → its cases pass → in force. Whatever fails on the way
//! leaves what is in force as it is, and says why.

pub(crate) mod file_watcher;
pub(crate) mod lock;
pub mod observers;
pub(crate) mod pipeline;
pub(crate) mod policy_store;
pub(crate) mod prepared;
pub(crate) mod reload;
pub(crate) mod replace;
pub(crate) mod requirements;
pub(crate) mod rollback_history;
pub(crate) mod shadow;
pub(crate) mod source_file;
pub mod stage;
pub(crate) mod status;

use crate::artifact::bundle::PolicyBundle;
use crate::rollout::lock::ActivationGuard;
use crate::rollout::rollback_history::HistoryFile;
use crate::rollout::rollback_history::PastActivation;
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::ActivationError;
use crate::rollout::stage::Stage;
use crate::rollout::status::RolloutStatus;
use crate::telemetry::metrics::Metrics;
use parking_lot::{Mutex, MutexGuard};
use std::fmt::Display;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::artifact::signature::SignaturePolicy;
use crate::authz::authorizer::Authorizer;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::observers::Observers;
use crate::rollout::policy_store::PolicyArchive;
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::rollback_history::RollbackHistory;
use crate::rollout::shadow::ShadowState;
use crate::rollout::stage::StageError;
use crate::util::clock::now_ms;
use crate::util::fingerprint::Fingerprint;
use crate::wasm::host::PolicyContext;

/// Why nothing takes force where there is no door.
const EVERYBODY: &str = "this gateway lets everybody in (allow-all), so no policy is asked";

/// The way into force. There is one in a process; clones are the same.
#[derive(Clone)]
pub struct Rollout(Arc<Inner>);

struct Inner {
    authorizer: Arc<Authorizer>,
    observers: Observers,
    metrics: Arc<Metrics>,
    archive: Option<PolicyArchive>,
    signatures: Mutex<SignaturePolicy>,
    /// Whoever is on the way holds it: one at a time compiles and takes force.
    turn: tokio::sync::Mutex<()>,
    /// Replacements that were asked for; of those that wait only the last one goes on.
    asked: watch::Sender<u64>,
    waiting: AtomicUsize,
    /// This is not the machine that a policy shall decide on, so what it requires cannot be asked for.
    elsewhere: bool,
    history: Mutex<RolloutStatus>,
    /// Held while something takes force, so that what was seen, what one goes back to and what is in force are the same.
    active: Mutex<RollbackHistory>,
    /// Where the way back is remembered over restarts, if it is.
    memory: OnceLock<HistoryFile>,
    place: Mutex<Place>,
    /// The candidate beside what is in force.
    proposed: Mutex<Option<ShadowState>>,
}

/// Where the policy lies.
#[derive(Clone, Default)]
struct Place {
    files: Option<PolicySource>,
    /// The files as they were when they were looked at last.
    seen: Fingerprint,
}

impl Rollout {
    /// The way to this door, for those that are signed as they should be. What was in force lately is kept below `cache_dir`.
    #[must_use]
    pub fn new(
        authorizer: Arc<Authorizer>,
        observers: Observers,
        signatures: SignaturePolicy,
        cache_dir: Option<&Path>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::with(authorizer, observers, signatures, cache_dir, metrics, false)
    }

    /// The stages on a machine whose configuration says nothing of where a policy shall decide: what it requires is not asked for.
    #[must_use]
    pub fn elsewhere(authorizer: Arc<Authorizer>) -> Self {
        Self::with(authorizer, Observers::new(0), SignaturePolicy::default(), None, Arc::default(), true)
    }

    fn with(
        authorizer: Arc<Authorizer>,
        observers: Observers,
        signatures: SignaturePolicy,
        cache_dir: Option<&Path>,
        metrics: Arc<Metrics>,
        elsewhere: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            authorizer,
            observers,
            metrics,
            signatures: Mutex::new(signatures),
            archive: cache_dir.map(PolicyArchive::below),
            turn: tokio::sync::Mutex::default(),
            asked: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            elsewhere,
            history: Mutex::default(),
            active: Mutex::default(),
            memory: OnceLock::new(),
            place: Mutex::default(),
            proposed: Mutex::default(),
        }))
    }

    /// Who may sign, and how far sequence numbers went.
    #[must_use]
    pub fn signatures(&self) -> SignaturePolicy {
        self.0.signatures().clone()
    }

    /// Takes an artifact through all stages but the last. Nothing changes by it but the history, if it fails.
    pub async fn prepare(
        &self,
        artifact: PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        self.turn().await.prepare(&artifact, context, origin).await
    }

    /// Puts what was prepared in force, at once, and waits until no answer of an older version is on its way out any more. Refused
    /// is only what something newer that was signed came before, or what cannot be remembered.
    pub async fn activate(&self, next: PreparedPolicy) -> Result<Arc<PolicyInfo>, Arc<ActivationError>> {
        // The configuration may have changed since it was prepared.
        let context = self.0.authorizer.context();
        let requires = next.attachments.suite.as_ref().map(|suite| &suite.requires);
        let missing = requires.map(|requires| requirements::missing(requires, &context.env)).unwrap_or_default();
        if !missing.is_empty() {
            tracing::error!(policy = %next.policy.digest(), ?missing, "the policy requires what was configured when it was prepared");
        }
        self.0.activate(PreparedPolicy { context, ..next }).await
    }

    /// Takes the first policy into force: that in the files, or the example. What was in force before the start, and what will be, is
    /// remembered in `memory`.
    pub async fn begin(
        &self,
        files: Option<PolicySource>,
        example: &'static [u8],
        memory: Option<HistoryFile>,
    ) -> Result<Arc<PolicyInfo>, Arc<ActivationError>> {
        let turn = self.turn().await;
        if let Some(memory) = memory {
            self.0.recall(memory, files.clone()).await;
        }
        let (artifact, next) = self.first(&turn, files, example).await?;
        turn.keep(artifact).await;
        turn.activate(next).await
    }

    /// Takes the first policy as far as its cases.
    pub async fn check(
        &self,
        files: Option<PolicySource>,
        example: &'static [u8],
    ) -> Result<PreparedPolicy, Arc<ActivationError>> {
        Ok(self.first(&self.turn().await, files, example).await?.1)
    }

    async fn first(
        &self,
        turn: &ActivationGuard<'_>,
        files: Option<PolicySource>,
        example: &'static [u8],
    ) -> Result<(PolicyBundle, PreparedPolicy), Arc<ActivationError>> {
        let (artifact, origin) = match &files {
            Some(files) => (self.fetch(files.clone()).await?, files.origin()),
            None => (
                PolicyBundle::new(example),
                PolicyOrigin { source: "the example policy".into(), ..PolicyOrigin::default() },
            ),
        };
        self.0.place().files = files;
        let next = turn.prepare(&artifact, self.0.authorizer.context(), origin).await?;
        Ok((artifact, next))
    }

    /// Reads the files, and remembers that it did. What cannot be read is refused.
    async fn fetch(&self, files: PolicySource) -> Result<PolicyBundle, Arc<ActivationError>> {
        let (artifact, stamp) = self.read(files).await?;
        self.0.place().seen = stamp;
        Ok(artifact)
    }

    async fn read(&self, files: PolicySource) -> Result<(PolicyBundle, Fingerprint), Arc<ActivationError>> {
        let origin = files.origin();
        let read = blocking(move || files.read()).await;
        read.map_err(|why| self.0.refuse(StageError::new(Stage::Fetched, why), None, &origin))
    }

    /// What was in force and what was refused.
    pub fn history(&self) -> MutexGuard<'_, RolloutStatus> {
        self.0.history()
    }

    /// All that there is to tell, as JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        let (active, old) = (self.0.authorizer.active(), self.0.authorizer.retired());
        let before = self.0.line().back().map(|past| past.digest.clone());
        self.0.history().to_json(active.as_deref(), &old, before.as_deref())
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
    async fn activate(&self, next: PreparedPolicy) -> Result<Arc<PolicyInfo>, Arc<ActivationError>> {
        let within = next.context.limits.timeout + next.context.limits.queue_timeout + Duration::from_secs(2);
        let swap = {
            let mut line = self.line();
            if let Some(statement) = &next.origin.signed
                && let Err(error) = self.signatures().ledger.record(statement)
            {
                let digest = next.policy.digest().to_string();
                return Err(self.refuse(StageError::new(Stage::Active, error), Some(digest), &next.origin));
            }
            line.now = Some((next.policy.clone(), next.attachments.clone()));
            let swap = self.authorizer.activate_with(next.activation());
            line.record_activation(PastActivation::of(&swap.info));
            swap
        };
        let info = Arc::clone(&swap.info);
        tracing::info!(policy = %info.digest, version = info.generation, source = info.origin.source, "in force");
        self.history().record_activation(&info);
        self.remember().await;
        if tokio::time::timeout(within, swap.drained()).await.is_err() {
            tracing::warn!(
                version = info.generation,
                "answers of an older version are still on their way to clients that do not read"
            );
        }
        Ok(info)
    }

    /// Goes on where the process before this one ended. Where that cannot be read there is no way back behind the start.
    async fn recall(&self, memory: HistoryFile, files: Option<PolicySource>) {
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

    fn refuse(&self, failed: StageError, digest: Option<String>, origin: &PolicyOrigin) -> Arc<ActivationError> {
        let StageError { stage, why } = failed;
        let refused = Arc::new(ActivationError { stage, reason: why, time: now_ms(), digest, origin: origin.clone() });
        let (source, why) = (&refused.origin.source, &refused.reason);
        let stays = self.authorizer.active().map(|info| info.digest.to_string()).unwrap_or_default();
        tracing::error!(source, stage = stage.as_str(), why, active = stays, "a policy was refused");
        self.metrics.policy_activation_failed(stage.as_str());
        self.history().was_refused(&refused);
        refused
    }

    fn signatures(&self) -> MutexGuard<'_, SignaturePolicy> {
        self.signatures.lock()
    }

    fn history(&self) -> MutexGuard<'_, RolloutStatus> {
        self.history.lock()
    }

    fn line(&self) -> MutexGuard<'_, RollbackHistory> {
        self.active.lock()
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock()
    }
}
