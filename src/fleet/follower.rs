//! The node's side of a push: activates the policy of the active record, and prepares that of the pending record.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::artifact::bundle::PolicyBundle;
use crate::fleet::heartbeat::{FollowedPolicy, NodeContext, PolicyRecords, StateChange};
use crate::fleet::local_cache::LocalCache;
use crate::fleet::record;
use crate::fleet::record::{
    ActiveRecord, FAILED_STAGE_RETRY_DELAY, MissingBlob, PendingPush, PrepareReport, STORE_RETRY_DELAY, stage_error,
};
use crate::fleet::write_back::WriteBack;
use crate::rollout::pipeline::PreparedPolicy;
use crate::rollout::stage::{Stage, StageError};

/// Attempts to write a report while the store is unavailable: the push waits for it.
const MAX_REPORT_ATTEMPTS: usize = 5;
const NOTHING_PUSHED: &str = "nothing was pushed to this store yet (`tidegate policy push`)";

/// Follows the active record and the pending record on a node whose policy the fleet manages.
pub struct ActiveFollower {
    node: Arc<NodeContext>,
    cache: LocalCache,
    changes: mpsc::Sender<StateChange>,
    /// The record whose policy is active.
    applied: Option<ActiveRecord>,
    /// Why the policy of the active record is not active.
    error: Option<String>,
    /// The active record whose activation failed, and when to try it again.
    failed: Option<(Vec<u8>, Instant)>,
    /// The policy that is prepared for a push, before its commit.
    prepared: Option<(ActiveRecord, PreparedPolicy)>,
    /// The pending record that this node has reported about.
    reported: Option<Vec<u8>>,
    write_back: WriteBack,
}

/// Why the policy of a record cannot be used, and the delay before the node tries it again.
struct FollowError {
    failure: StageError,
    retry_delay: Duration,
}

impl From<StageError> for FollowError {
    fn from(failure: StageError) -> Self {
        Self { failure, retry_delay: FAILED_STAGE_RETRY_DELAY }
    }
}

impl From<MissingBlob> for FollowError {
    fn from(missing: MissingBlob) -> Self {
        Self { failure: stage_error(Stage::Fetched, &missing), retry_delay: missing.retry_delay() }
    }
}

impl ActiveFollower {
    pub fn new(node: Arc<NodeContext>, cache: LocalCache, changes: mpsc::Sender<StateChange>) -> Self {
        let write_back = WriteBack::default();
        Self {
            node,
            cache,
            changes,
            applied: None,
            error: None,
            failed: None,
            prepared: None,
            reported: None,
            write_back,
        }
    }

    /// Activates the fleet's policy at start: that of the active record, or else the one in the local cache. Without either, the gateway
    /// refuses all requests.
    pub async fn activate_at_start(&mut self) {
        let reason = match self.node.store.active().await {
            Ok(Some(record)) => match self.activate(&record).await {
                Ok(()) => return self.publish().await,
                Err(error) => format!("the fleet's policy cannot be activated: {}", error.failure.reason),
            },
            Ok(None) => NOTHING_PUSHED.into(),
            Err(error) => error.to_string(),
        };
        match self.activate_cached().await {
            Ok(()) => tracing::warn!(reason, "this node starts with the policy in its local cache"),
            Err(error) => tracing::error!(reason, error, "no policy is active: all requests are refused"),
        }
        self.error = Some(reason);
        self.publish().await;
    }

    /// Works on the local cache on a blocking thread, because a disk may be slow. A panic is an error, too.
    async fn with_cache<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalCache) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let cache = self.cache.clone();
        let done = tokio::task::spawn_blocking(move || work(&cache)).await;
        done.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Activates the policy in the local cache.
    async fn activate_cached(&mut self) -> Result<(), String> {
        let read = |cache: &LocalCache| {
            let record = cache.active_record()?.ok_or("the local cache is empty")?;
            let bundle = cache.bundle(&record)?;
            Ok((record, bundle))
        };
        let (record, bundle) = self.with_cache(read).await?;
        let next = self.run_stages(&record, bundle, "fleet (local cache)").await.map_err(|failure| failure.reason)?;
        self.node.rollout.activate(next).await.map_err(|error| error.to_string())?;
        self.applied = Some(record);
        Ok(())
    }

    pub async fn run(mut self, mut records: watch::Receiver<PolicyRecords>) {
        loop {
            let write_back = async {
                match self.write_back.due_at() {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = records.changed() => if changed.is_err() { return },
                () = write_back => {}
            }
            let PolicyRecords { active, pending, .. } = records.borrow_and_update().clone();
            self.write_back(active.as_deref()).await;
            match active {
                Some(record) => self.follow_active(&record).await,
                None if self.node.authorizer.active().is_none() => self.set_error(Some(NOTHING_PUSHED.into())).await,
                // The active policy stays, even if the store lost the record.
                None => self.set_error(None).await,
            }
            match pending {
                // The push was committed, withdrawn or has expired.
                None => (self.prepared, self.reported) = (None, None),
                Some(record) if self.reported.as_ref() != Some(&record) => {
                    self.prepared = self.prepare_and_report(&record).await;
                    self.reported = Some(record);
                }
                Some(_) => {}
            }
        }
    }

    /// Writes this node's record back, if the store has lost it.
    async fn write_back(&mut self, stored: Option<&[u8]>) {
        let keys = self.node.rollout.signatures().trusted_keys;
        if !self.write_back.is_due(&keys, stored, self.applied.as_ref()) {
            return;
        }
        let (Some(own), cache) = (self.applied.clone(), self.cache.clone()) else { return };
        let record = own.clone();
        let bundle = async move {
            let read = tokio::task::spawn_blocking(move || cache.bundle(&record)).await;
            read.unwrap_or_else(|error| Err(error.to_string()))
        };
        self.write_back.write(&*self.node.store, stored, &own, bundle).await;
    }

    async fn set_error(&mut self, error: Option<String>) {
        // Each message causes a heartbeat, and a heartbeat with an error wakes this task.
        if self.error != error {
            self.error = error;
            self.publish().await;
        }
    }

    /// Sends this task's part of the node's state to the heartbeat task.
    async fn publish(&self) {
        let push_id = self.applied.as_ref().map(|record| record.push_id.clone());
        let change = StateChange::Active(FollowedPolicy { push_id, error: self.error.clone() });
        // Fails after the heartbeat task was stopped.
        let _ = self.changes.send(change).await;
    }

    async fn follow_active(&mut self, record: &[u8]) {
        if self.failed.as_ref().is_some_and(|(failed, retry_at)| failed == record && Instant::now() < *retry_at) {
            return;
        }
        (self.failed, self.error) = match self.activate(record).await {
            Ok(()) => (None, None),
            Err(FollowError { failure: StageError { reason, .. }, retry_delay }) => {
                if self.error.as_ref() != Some(&reason) {
                    if self.node.authorizer.active().is_some() {
                        tracing::error!(
                            reason,
                            "this node cannot activate the fleet's policy; its active policy stays"
                        );
                    } else {
                        tracing::error!(
                            reason,
                            "this node cannot activate the fleet's policy; all requests are refused"
                        );
                    }
                }
                (Some((record.to_vec(), Instant::now() + retry_delay)), Some(reason))
            }
        };
        self.publish().await;
    }

    /// Activates the policy of a record, unless it is active.
    async fn activate(&mut self, json: &[u8]) -> Result<(), FollowError> {
        let record: ActiveRecord = record::parse(json)
            .map_err(|error| stage_error(Stage::Fetched, format!("the active record cannot be parsed: {error}")))?;
        if let Some(applied) = &mut self.applied
            && (applied.sequence, applied.component, applied.cases) == (record.sequence, record.component, record.cases)
        {
            // Only the push differs, so the running policy stays.
            *applied = record;
            return Ok(());
        }
        let next = match self.prepared.take_if(|(prepared, _)| *prepared == record) {
            Some((_, next)) => next,
            None => self.fetch_and_prepare(&record).await?,
        };
        let failed = |reason: String| stage_error(Stage::Active, reason);
        if let Some(signature) = &next.origin.signed {
            // Checked before the local cache is written: a node must not start with a policy that it may not activate.
            let ledger = self.node.rollout.signatures().ledger;
            ledger.check(&signature.statement()).map_err(|error| failed(error.to_string()))?;
        }
        let committed = record.clone();
        let commit = move |cache: &LocalCache| cache.commit(&committed).map_err(|error| error.to_string());
        let committed = self.with_cache(commit).await;
        committed.map_err(|error| failed(format!("the local cache cannot be written: {error}")))?;
        self.node.rollout.activate(next).await.map_err(|error| failed(error.to_string()))?;
        self.applied = Some(record);
        Ok(())
    }

    /// Prepares the policy of a pending record, and reports the result.
    async fn prepare_and_report(&self, record: &[u8]) -> Option<(ActiveRecord, PreparedPolicy)> {
        let PendingPush { record } = match record::parse(record) {
            Ok(pending) => pending,
            Err(error) => {
                tracing::error!(error, "the pending record cannot be parsed");
                return None;
            }
        };
        let result = self.fetch_and_prepare(&record).await.map_err(|error| error.failure);
        let failure = result.as_ref().err().cloned();
        let report = record::to_json(&PrepareReport { instance: self.node.instance.clone(), failure });
        for _ in 0..MAX_REPORT_ATTEMPTS {
            match self.node.store.report(record.push_id.as_str(), &self.node.name, &report).await {
                Ok(()) => break,
                // Without the report the push times out and changes nothing.
                Err(error) => tracing::warn!(%error, "the report about a push cannot be written"),
            }
            tokio::time::sleep(STORE_RETRY_DELAY).await;
        }
        // The status shows a failed stage.
        self.publish().await;
        Some((record, result.ok()?))
    }

    /// Fetches a record's policy, runs the activation stages, and writes it to the local cache.
    async fn fetch_and_prepare(&self, record: &ActiveRecord) -> Result<PreparedPolicy, FollowError> {
        let cached = record.clone();
        let bundle = match self.with_cache(move |cache| cache.bundle(&cached)).await {
            Ok(bundle) => bundle,
            Err(_) => record.fetch(&*self.node.store).await?,
        };
        let next = self.run_stages(record, bundle.clone(), "fleet").await?;
        let prepared = record.clone();
        let save = move |cache: &LocalCache| cache.save_prepared(&prepared, &bundle).map_err(|error| error.to_string());
        let saved = self.with_cache(save).await;
        saved.map_err(|error| stage_error(Stage::Fetched, format!("the local cache cannot be written: {error}")))?;
        Ok(next)
    }

    async fn run_stages(
        &self,
        record: &ActiveRecord,
        bundle: PolicyBundle,
        source: &str,
    ) -> Result<PreparedPolicy, StageError> {
        record.check_sequence()?;
        let next = self.node.rollout.prepare(bundle, self.node.authorizer.context(), record.origin(source)).await;
        next.map_err(|error| stage_error(error.stage, &error.reason))
    }
}
