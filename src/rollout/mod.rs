//! The activation pipeline: fetched → verified → compiled → linked → tested → active. If a stage fails, the active policy stays, and the
//! status and the log show the error.

pub(crate) mod file_watcher;
pub(crate) mod lock;
pub(crate) mod pipeline;
pub(crate) mod reload;
pub(crate) mod replace;
pub(crate) mod requirements;
pub(crate) mod rollback_history;
pub(crate) mod shadow;
pub(crate) mod source_file;
pub mod stage;
pub(crate) mod status;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use tokio::sync::watch;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::policy_store::NodeRecords;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::audit::Audit;
use crate::authz::authorizer::Authorizer;
use crate::authz::generation::Activation;
use crate::authz::observer::DecisionObserver;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::pipeline::PreparedPolicy;
use crate::rollout::rollback_history::{RollbackEntry, RollbackHistory, record_name};
use crate::rollout::shadow::ShadowState;
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::{ActivationError, ActivationResult, Stage, StageError};
use crate::rollout::status::{RolloutStatus, push_latest};
use crate::shadow::shadow_policy::ShadowEvaluator;
use crate::telemetry::metrics::Metrics;
use crate::util::clock::now_ms;
use crate::util::fingerprint::Fingerprint;
use crate::wasm::host::PolicyContext;

/// Everything that observes the decisions of one authorizer. Clones share the observers.
#[derive(Clone)]
pub struct Observers {
    /// The decision log and the recording.
    pub audit: Arc<Audit>,
    pub shadow: Arc<ShadowEvaluator>,
}

impl Observers {
    /// Observers that write nothing yet, with at most `shadow_concurrency` concurrent shadow decisions.
    pub fn new(shadow_concurrency: usize) -> Self {
        Self { audit: Arc::default(), shadow: Arc::new(ShadowEvaluator::new(shadow_concurrency)) }
    }

    /// The observers that an authorizer reports decisions to.
    pub fn list(&self) -> Vec<Arc<dyn DecisionObserver>> {
        vec![Arc::<Audit>::clone(&self.audit), Arc::<ShadowEvaluator>::clone(&self.shadow)]
    }
}

/// Activates policies. A process has one; clones share their state.
#[derive(Clone)]
pub struct Rollout {
    inner: Arc<Inner>,
    /// False where the requirements of a policy cannot be checked, because another machine will run it.
    checks_requirements: bool,
}

struct Inner {
    authorizer: Arc<Authorizer>,
    observers: Observers,
    metrics: Arc<Metrics>,
    /// Where the rollback history and its policies are saved; `None` without a cache-dir.
    records: Option<NodeRecords>,
    /// Held by the activation that is in progress, over all of its stages.
    activation: tokio::sync::Mutex<()>,
    /// Cloned by each task that waits for `activation`.
    waiting: Arc<()>,
    /// The number of the latest replacement that was requested: those before it that still wait are superseded.
    requests: watch::Sender<u64>,
    /// Locked while the active policy changes, so that sequence ledger, history and active policy agree. Locked before `state`.
    history: Mutex<RollbackHistory>,
    state: Mutex<RolloutState>,
}

/// State that the configuration, requests and stages change. Never locked while a file is read or written.
struct RolloutState {
    signatures: SignaturePolicy,
    source: SourceState,
    status: RolloutStatus,
    shadow: Option<ShadowState>,
}

/// Where the policy comes from.
#[derive(Clone, Default)]
struct SourceState {
    /// `None` for the example policy, and where the policy does not come from a file.
    files: Option<PolicySource>,
    /// Fingerprint of the files when they were read last.
    fingerprint: Fingerprint,
}

impl Rollout {
    /// Activates policies of this authorizer that are signed as required. Policies that were active are saved with the records of the node.
    pub fn new(
        authorizer: Arc<Authorizer>,
        observers: Observers,
        signatures: SignaturePolicy,
        records: Option<NodeRecords>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (source, status) = (SourceState::default(), RolloutStatus::default());
        let inner = Inner {
            authorizer,
            observers,
            metrics,
            records,
            activation: tokio::sync::Mutex::default(),
            waiting: Arc::default(),
            requests: watch::Sender::new(0),
            history: Mutex::default(),
            state: Mutex::new(RolloutState { signatures, source, status, shadow: None }),
        };
        Self { inner: Arc::new(inner), checks_requirements: true }
    }

    /// Checks policies for another machine, whose configuration is not known here: what a policy requires is not checked.
    pub fn without_requirements(authorizer: Arc<Authorizer>) -> Self {
        let rollout = Self::new(authorizer, Observers::new(0), SignaturePolicy::default(), None, Arc::default());
        Self { checks_requirements: false, ..rollout }
    }

    fn history(&self) -> MutexGuard<'_, RollbackHistory> {
        self.inner.history.lock()
    }

    fn state(&self) -> MutexGuard<'_, RolloutState> {
        self.inner.state.lock()
    }

    /// Which signatures are required, and the ledger of the greatest sequence that was active.
    pub fn signatures(&self) -> SignaturePolicy {
        self.state().signatures.clone()
    }

    /// Takes a bundle through all stages but the last. This changes nothing but the status.
    pub async fn prepare(
        &self,
        bundle: PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> ActivationResult<PreparedPolicy> {
        let guard = self.lock_activation().await;
        guard.prepare(self.signatures(), bundle, context, origin).await
    }

    /// Activates a prepared policy at once, and waits until no response that an older one decided is being sent any more. It fails only if
    /// the sequence is less than that of a policy that was activated meanwhile, or cannot be recorded.
    pub async fn activate(&self, next: PreparedPolicy) -> ActivationResult<Arc<PolicyInfo>> {
        // The configuration may have changed since the policy was prepared.
        let next = PreparedPolicy { context: self.inner.authorizer.context(), ..next };
        let missing = next.suite.as_ref().map(|suite| requirements::missing(&suite.requires, &next.context.env));
        if let Some(missing) = missing.filter(|missing| !missing.is_empty()) {
            let policy = next.policy.digest();
            tracing::error!(%policy, ?missing, "the configuration no longer has what the policy requires");
        }
        self.activate_and_save(next, None).await
    }

    /// Activates the first policy: that in the files, or the example. The rollback history continues that of the previous process.
    pub async fn activate_first(
        &self,
        files: Option<PolicySource>,
        example: &'static [u8],
    ) -> ActivationResult<Arc<PolicyInfo>> {
        self.load_history(files.clone()).await;
        let (bundle, next) = self.prepare_first(files, example).await?;
        self.activate_and_save(next, Some(bundle)).await
    }

    /// Takes the first policy through all stages but the last.
    pub async fn prepare_first(
        &self,
        files: Option<PolicySource>,
        example: &'static [u8],
    ) -> ActivationResult<(PolicyBundle, PreparedPolicy)> {
        let (bundle, origin) = match &files {
            Some(files) => (self.fetch(files.clone()).await?, files.origin()),
            None => (
                PolicyBundle::new(example),
                PolicyOrigin { source: "the example policy".into(), ..PolicyOrigin::default() },
            ),
        };
        self.state().source.files = files;
        let next = self.prepare(bundle.clone(), self.inner.authorizer.context(), origin).await?;
        Ok((bundle, next))
    }

    /// Reads the files, and stores their fingerprint.
    async fn fetch(&self, files: PolicySource) -> ActivationResult<PolicyBundle> {
        let (bundle, fingerprint) = self.read(files).await?;
        self.state().source.fingerprint = fingerprint;
        Ok(bundle)
    }

    async fn read(&self, files: PolicySource) -> ActivationResult<(PolicyBundle, Fingerprint)> {
        let origin = files.origin();
        let read = blocking(move || files.read()).await;
        read.map_err(|reason| self.fail(StageError::new(Stage::Fetched, reason), None, &origin))
    }

    /// The latest activations and failures.
    pub fn status(&self) -> RolloutStatus {
        self.state().status.clone()
    }

    /// The body of `GET /v1/policy`.
    pub fn status_json(&self) -> Value {
        let authorizer = &self.inner.authorizer;
        let target = self.history().target().map(|entry| entry.bundle.component.to_string());
        self.status().to_json(authorizer.active().as_deref(), &authorizer.retired(), target.as_deref())
    }

    /// Activates a prepared policy. Its bundle, if there is one, is saved for a later rollback.
    async fn activate_and_save(
        &self,
        next: PreparedPolicy,
        bundle: Option<PolicyBundle>,
    ) -> ActivationResult<Arc<PolicyInfo>> {
        let drain_timeout = next.context.limits.timeout + next.context.limits.queue_timeout + Duration::from_secs(2);
        let swap = {
            let mut history = self.history();
            let ledger = self.signatures().ledger;
            if let Some(Err(error)) = next.origin.signed.as_ref().map(|signature| ledger.record(&signature.statement()))
            {
                let digest = next.policy.digest().to_string();
                return Err(self.fail(StageError::new(Stage::Active, error), Some(digest), &next.origin));
            }
            history.active = Some(next.clone());
            let PreparedPolicy { policy, context, origin, digests, .. } = next;
            let cases = digests.cases.map(|digest| digest.to_string().into());
            let swap = self.inner.authorizer.activate_with(Activation { policy, context, origin, cases });
            history.record_activation(RollbackEntry::new(digests, &swap.info));
            swap
        };
        let info = Arc::clone(&swap.info);
        tracing::info!(policy = %info.digest, generation = info.generation, source = info.origin.source, "policy activated");
        push_latest(&mut self.state().status.activations, &info);
        if let Some(bundle) = bundle {
            self.save(bundle).await;
        }
        if tokio::time::timeout(drain_timeout, swap.drained()).await.is_err() {
            tracing::warn!(
                generation = info.generation,
                "clients that do not read still receive answers of an older policy"
            );
        }
        Ok(info)
    }

    /// Continues the rollback history of the previous process. If it cannot be read, the gateway starts without it.
    async fn load_history(&self, files: Option<PolicySource>) {
        let Some(records) = self.inner.records.clone() else { return };
        match blocking(move || records.read::<Vec<RollbackEntry>>(&record_name(files.as_ref()))).await {
            Ok(entries) => {
                let entries = entries.unwrap_or_default();
                self.state().status.previous_process = entries.iter().rev().cloned().collect();
                self.history().load(entries);
            }
            Err(error) => {
                tracing::warn!(error, "the rollback history cannot be read, so there is nothing to roll back to");
            }
        }
    }

    /// Saves the active policy and the rollback history. The policy stays active if that fails.
    async fn save(&self, bundle: PolicyBundle) {
        let Some(records) = self.inner.records.clone() else { return };
        let files = self.state().source.files.clone();
        let unsaved = self.history().take_unsaved();
        let save = move || {
            // The history first: the store removes policies that no record names.
            if let Some(entries) = unsaved {
                records.write(&record_name(files.as_ref()), &entries)?;
            }
            records.store().write(&bundle)
        };
        if let Err(error) = blocking(save).await {
            tracing::warn!(error, "the active policy cannot be saved in cache-dir, so a later rollback may fail");
        }
    }

    /// Reports that a stage failed.
    fn fail(&self, error: StageError, digest: Option<String>, origin: &PolicyOrigin) -> Arc<ActivationError> {
        let StageError { stage, reason } = error;
        let error = Arc::new(ActivationError { stage, reason, time: now_ms(), digest, origin: origin.clone() });
        let (source, reason) = (&error.origin.source, &error.reason);
        let active = self.inner.authorizer.active().map(|info| info.digest.to_string()).unwrap_or_default();
        tracing::error!(source, stage = stage.as_str(), reason, active, "policy activation failed");
        self.inner.metrics.policy_activation_failed(stage.as_str());
        push_latest(&mut self.state().status.failures, &error);
        error
    }
}

/// Runs work that takes long or waits for a disk on a blocking thread. A panic is an error, too.
async fn blocking<T: Send + 'static, E: Display>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(move || work().map_err(|error| error.to_string())).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
}
