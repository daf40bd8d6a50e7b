//! A policy on its way into force: fetched → verified → compiled → linked → its cases pass → in force. Whatever fails on the way
//! leaves what is in force as it is, and says why.

pub(crate) mod file_watcher;
pub(crate) mod lock;
pub mod observers;
pub(crate) mod pipeline;
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
use crate::artifact::policy_store::NodeRecords;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::rollout::lock::ActivationGuard;
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::ActivationError;
use crate::rollout::stage::Stage;
use crate::rollout::status::{PastActivation, RolloutStatus};
use crate::telemetry::metrics::metrics;
use parking_lot::{Mutex, MutexGuard};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use crate::authz::authorizer::Authorizer;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::observers::Observers;
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::rollback_history::{RollbackEntry, RollbackHistory, record_name};
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
    /// Where the rollback history and its policies are saved; none without a cache-dir.
    records: Option<NodeRecords>,
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
    /// The way to this door, for those that are signed as they should be. Policies that were active are saved with the records of the node.
    #[must_use]
    pub fn new(
        authorizer: Arc<Authorizer>,
        observers: Observers,
        signatures: SignaturePolicy,
        records: Option<NodeRecords>,
    ) -> Self {
        Self::with(authorizer, observers, signatures, records, false)
    }

    /// The stages on a machine whose configuration says nothing of where a policy shall decide: what it requires is not asked for.
    #[must_use]
    pub fn elsewhere(authorizer: Arc<Authorizer>) -> Self {
        Self::with(authorizer, Observers::new(0), SignaturePolicy::default(), None, true)
    }

    fn with(
        authorizer: Arc<Authorizer>,
        observers: Observers,
        signatures: SignaturePolicy,
        records: Option<NodeRecords>,
        elsewhere: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            authorizer,
            observers,
            signatures: Mutex::new(signatures),
            records,
            turn: tokio::sync::Mutex::default(),
            asked: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            elsewhere,
            history: Mutex::default(),
            active: Mutex::default(),
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
        self.0.activate(PreparedPolicy { context, ..next }, None).await
    }

    /// Activates the first policy: that in the files, or the example. The rollback history continues that of the process before.
    pub async fn begin(
        &self,
        files: Option<PolicySource>,
        example: &'static [u8],
    ) -> Result<Arc<PolicyInfo>, Arc<ActivationError>> {
        let turn = self.turn().await;
        self.0.load_history(files.clone()).await;
        let (artifact, next) = self.first(&turn, files, example).await?;
        turn.activate(next, Some(artifact)).await
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
        let (active, old) = (self.0.authorizer.active(), self.0.authorizer.old());
        let before = self.0.line().target().map(|entry| entry.bundle.component.to_string());
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
    async fn activate(
        &self,
        next: PreparedPolicy,
        bundle: Option<PolicyBundle>,
    ) -> Result<Arc<PolicyInfo>, Arc<ActivationError>> {
        let within = next.context.limits.timeout + next.context.limits.queue_timeout + Duration::from_secs(2);
        let swap = {
            let mut line = self.line();
            if let Some(statement) = &next.origin.signed
                && let Err(error) = self.signatures().ledger.record(statement)
            {
                let digest = next.policy.digest().to_string();
                return Err(self.refuse(StageError::new(Stage::InForce, error), Some(digest), &next.origin));
            }
            let digests = next.attachments.digests;
            line.active = Some((next.policy.clone(), next.attachments.clone()));
            let swap = self.authorizer.swap(next.activation());
            line.record_activation(RollbackEntry::new(digests, &swap.info));
            swap
        };
        let info = Arc::clone(&swap.info);
        tracing::info!(policy = %info.digest, version = info.number, source = info.origin.source, "in force");
        self.history().record_activation(&info);
        if let Some(bundle) = bundle {
            self.save(bundle).await;
        }
        if tokio::time::timeout(within, swap.acknowledged()).await.is_err() {
            tracing::warn!(
                version = info.number,
                "answers of an older version are still on their way to clients that do not read"
            );
        }
        Ok(info)
    }

    /// Continues the rollback history of the process before. Without it the gateway starts all the same.
    async fn load_history(&self, source: Option<PolicySource>) {
        let Some(records) = self.records.clone() else { return };
        let read = blocking(move || records.read::<Vec<RollbackEntry>>(&record_name(source.as_ref()))).await;
        match read {
            Ok(entries) => {
                let entries = entries.unwrap_or_default();
                self.history().earlier = entries.iter().rev().map(PastActivation::from).collect();
                self.line().load(entries);
            }
            Err(error) => {
                tracing::warn!(error, "the rollback history cannot be read, so there is nothing to roll back to");
            }
        }
    }

    /// Saves the active policy and the rollback history. The policy stays active if that fails.
    async fn save(&self, bundle: PolicyBundle) {
        let Some(records) = self.records.clone() else { return };
        let (unsaved, source) = (self.line().take_unsaved(), self.place().files.clone());
        let save = move || {
            // The history first: the store removes policies that no record names.
            if let Some(entries) = unsaved {
                records.write(&record_name(source.as_ref()), &entries)?;
            }
            records.store().write(&bundle)
        };
        if let Err(error) = blocking(save).await {
            tracing::warn!(error, "the active policy cannot be saved in cache-dir, so a later rollback may fail");
        }
    }

    fn refuse(&self, failed: StageError, digest: Option<String>, origin: &PolicyOrigin) -> Arc<ActivationError> {
        let StageError { stage, why } = failed;
        let refused = Arc::new(ActivationError { stage, why, time: now_ms(), digest, origin: origin.clone() });
        let (source, why) = (&refused.origin.source, &refused.why);
        let stays = self.authorizer.active().map(|info| info.digest.to_string()).unwrap_or_default();
        tracing::error!(source, stage = stage.as_str(), why, active = stays, "a policy was refused");
        metrics().policy_refused(stage.as_str());
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
