//! The node's side of a push: activates the policy of the active record, and prepares that of the pending record.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::artifact::bundle::PolicyBundle;
use crate::fleet::node::{FAILED_STAGE_RETRY_DELAY, Fleet, PolicyRecords, STORE_RETRY_DELAY, lock};
use crate::fleet::node_status::truncate_error;
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, MissingBlob, PendingPush, PrepareFailure, PrepareReport};
use crate::policy::info::PolicyOrigin;
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::stage::Stage;

/// Attempts to write a report while the store is unavailable: the push waits for it.
const MAX_REPORT_ATTEMPTS: usize = 5;

/// A policy that this node has prepared, before the push is committed.
struct Prepared {
    pointer: ActiveRecord,
    next: PreparedPolicy,
}

/// An active record whose activation failed, and when to try it again.
struct FailedRecord {
    record: Vec<u8>,
    retry_at: Instant,
}

impl Fleet {
    /// Activates the fleet's policy at start: that of the active record, or else the one in the local cache. Without either, the gateway
    /// refuses all requests.
    pub async fn activate_at_start(&self) {
        let reason = match self.store.active().await {
            Ok(Some(record)) => match self.activate(&record, None).await {
                Ok(()) => return,
                Err((_, reason)) => format!("the fleet's policy cannot be activated: {reason}"),
            },
            Ok(None) => "nothing was pushed to this store yet (`tidegate policy push`)".into(),
            Err(error) => error.to_string(),
        };
        match self.activate_local_copy().await {
            Ok(true) => {
                tracing::warn!(reason, "this node starts with the policy in its local cache");
            }
            Ok(false) => tracing::error!(reason, "no policy is active: all requests are refused"),
            Err(error) => {
                tracing::error!(
                    reason,
                    error,
                    "no policy is active and the one in the local cache cannot be used: all requests are refused"
                );
            }
        }
        *lock(&self.error) = Some(reason);
    }

    /// Activates the policy in the local cache; false if it is empty.
    async fn activate_local_copy(&self) -> Result<bool, String> {
        let Some(cache) = &self.local_cache else { return Ok(false) };
        let Some(pointer) = cache.active_record()? else { return Ok(false) };
        let artifact = cache.bundle(&pointer)?;
        let source = "fleet (local cache)".to_owned();
        let next = self.run_stages(&pointer, artifact, source).await.map_err(|error| error.reason)?;
        self.rollout.activate(next).await.map_err(|error| error.to_string())?;
        *lock(&self.applied) = Some(pointer);
        Ok(true)
    }

    pub(super) async fn follow_active(self: Arc<Self>, mut records: watch::Receiver<PolicyRecords>) {
        let mut prepared: Option<Prepared> = None;
        let mut reported: Option<Vec<u8>> = None;
        let mut failed: Option<FailedRecord> = None;
        while records.changed().await.is_ok() {
            let PolicyRecords { active, pending, .. } = records.borrow_and_update().clone();
            if let Some(record) = active {
                self.follow_record(&record, &mut prepared, &mut failed).await;
            } else if self.authorizer.active().is_none() {
                *lock(&self.error) = Some("nothing was pushed to this store yet (`tidegate policy push`)".into());
            } else {
                // The active policy stays, even if the store lost the record.
                *lock(&self.error) = None;
            }
            match pending {
                // The push was committed, withdrawn or has expired.
                None => (prepared, reported) = (None, None),
                Some(record) if reported.as_ref() != Some(&record) => {
                    prepared = self.prepare_and_report(&record).await;
                    reported = Some(record);
                }
                Some(_) => {}
            }
        }
    }

    async fn follow_record(&self, record: &[u8], prepared: &mut Option<Prepared>, failed: &mut Option<FailedRecord>) {
        if let Some(previous) = failed.as_ref()
            && previous.record == record
            && Instant::now() < previous.retry_at
        {
            return;
        }
        match self.activate(record, prepared.take_if(|prepared| names(record, &prepared.pointer))).await {
            Ok(()) => (*failed, *lock(&self.error)) = (None, None),
            Err((delay, reason)) => {
                let is_new = lock(&self.error).replace(reason.clone()).as_ref() != Some(&reason);
                if is_new {
                    tracing::error!(reason, "this node cannot activate the fleet's policy; its active policy stays");
                }
                *failed = Some(FailedRecord { record: record.to_vec(), retry_at: Instant::now() + delay });
            }
        }
        self.wake_heartbeat();
    }

    /// Activates the policy of a record, unless it is active. An error comes with the delay before the next attempt.
    async fn activate(&self, record: &[u8], prepared: Option<Prepared>) -> Result<(), (Duration, String)> {
        let pointer: ActiveRecord = record::parse(record)
            .map_err(|error| (FAILED_STAGE_RETRY_DELAY, format!("the active record cannot be parsed: {error}")))?;
        if let Some(applied) = &mut *lock(&self.applied)
            && (applied.sequence, applied.component, applied.cases)
                == (pointer.sequence, pointer.component, pointer.cases)
        {
            // Only the push differs, so the running policy stays.
            *applied = pointer;
            return Ok(());
        }
        let next = match prepared {
            Some(prepared) => prepared.next,
            None => self.fetch_and_prepare(&pointer).await.map_err(|(delay, failure)| (delay, failure.reason))?,
        };
        if let Some(statement) = &next.origin.signed {
            // Checked before the local cache is written: a node must not start with a policy that it may not activate.
            let ledger = self.rollout.signatures().ledger;
            ledger.check(statement).map_err(|error| (FAILED_STAGE_RETRY_DELAY, error.to_string()))?;
        }
        if let Some(cache) = &self.local_cache {
            cache
                .commit(&pointer)
                .map_err(|error| (FAILED_STAGE_RETRY_DELAY, format!("the local cache cannot be written: {error}")))?;
        }
        // The configuration may have been reloaded since the policy was prepared.
        let next = PreparedPolicy { context: self.authorizer.context(), ..next };
        self.rollout.activate(next).await.map_err(|error| (FAILED_STAGE_RETRY_DELAY, error.to_string()))?;
        *lock(&self.applied) = Some(pointer);
        Ok(())
    }

    /// Prepares the policy of a pending record, and reports the result.
    async fn prepare_and_report(&self, record: &[u8]) -> Option<Prepared> {
        let PendingPush { pointer } = match record::parse(record) {
            Ok(candidate) => candidate,
            Err(error) => {
                tracing::error!(error, "the pending record cannot be parsed");
                return None;
            }
        };
        let result = self.fetch_and_prepare(&pointer).await.map_err(|(_, failure)| failure);
        let failure = result.as_ref().err().cloned();
        let report = record::to_json(&PrepareReport { instance: self.instance.clone(), failure });
        for _ in 0..MAX_REPORT_ATTEMPTS {
            match self.store.report(pointer.push_id.as_str(), &self.name, &report).await {
                Ok(()) => break,
                // Without the report the push times out and changes nothing.
                Err(error) => tracing::warn!(%error, "the report about a push cannot be written"),
            }
            tokio::time::sleep(STORE_RETRY_DELAY).await;
        }
        self.wake_heartbeat();
        result.ok().map(|next| Prepared { pointer, next })
    }

    /// Fetches a record's policy, runs the activation stages, and writes it to the local cache.
    async fn fetch_and_prepare(&self, pointer: &ActiveRecord) -> Result<PreparedPolicy, (Duration, PrepareFailure)> {
        let failure = |stage, reason: String| PrepareFailure { stage, reason: truncate_error(&reason) };
        let cached = self.local_cache.as_ref().and_then(|cache| cache.bundle(pointer).ok());
        let artifact = match cached {
            Some(artifact) => artifact,
            None => pointer.fetch(&*self.store).await.map_err(|missing| {
                let delay =
                    if matches!(missing, MissingBlob::Store(_)) { STORE_RETRY_DELAY } else { FAILED_STAGE_RETRY_DELAY };
                (delay, failure(Stage::Fetched, missing.to_string()))
            })?,
        };
        let next = self
            .run_stages(pointer, artifact.clone(), "fleet".into())
            .await
            .map_err(|failure| (FAILED_STAGE_RETRY_DELAY, failure))?;
        if let Some(cache) = &self.local_cache {
            let cache_failure = |error: std::io::Error| {
                (
                    FAILED_STAGE_RETRY_DELAY,
                    failure(Stage::Fetched, format!("the local cache cannot be written: {error}")),
                )
            };
            cache.save_prepared(pointer, &artifact).map_err(cache_failure)?;
        }
        Ok(next)
    }

    async fn run_stages(
        &self,
        pointer: &ActiveRecord,
        artifact: PolicyBundle,
        source: String,
    ) -> Result<PreparedPolicy, PrepareFailure> {
        let failure = |stage, reason: String| PrepareFailure { stage, reason: truncate_error(&reason) };
        if pointer.has_sequence_mismatch() {
            return Err(failure(Stage::Verified, record::SEQUENCE_MISMATCH.into()));
        }
        let origin = PolicyOrigin { source, sequence: Some(pointer.sequence), ..PolicyOrigin::default() };
        let next = self.rollout.prepare(artifact, self.authorizer.context(), origin).await;
        next.map_err(|error| failure(error.stage, error.reason.clone()))
    }
}

/// Whether a record in the store is this one.
fn names(record: &[u8], pointer: &ActiveRecord) -> bool {
    record::parse::<ActiveRecord>(record).is_ok_and(|other| other == *pointer)
}
