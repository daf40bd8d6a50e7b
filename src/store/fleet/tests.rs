//! A fake [`FleetStore`] for tests of `crate::fleet` without Redis. It keeps everything in memory, and nothing expires.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::store::StoreError;
use crate::store::fleet::{
    Commit, CommitOutcome, FleetStore, HeartbeatReply, MAX_HISTORY, RecordRead, Replication, Restore, RestoreOutcome,
};
use crate::store::fleet_keys::FleetKeys;

/// The state of one fleet. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryFleetStore {
    keys: FleetKeys,
    state: Arc<Mutex<FleetStoreState>>,
}

/// What happens to the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// It is executed, and the reply gets lost.
    LosesReply,
    /// It gets lost.
    LosesCommit,
    /// It gets lost, and the store stays unavailable.
    LosesStore,
    /// The store does not answer to it.
    Hangs,
}

#[derive(Default)]
struct FleetStoreState {
    unavailable: bool,
    hanging: bool,
    commit_fault: Option<CommitFault>,
    statuses: BTreeMap<String, Vec<u8>>,
    active: Option<Vec<u8>>,
    pending: Option<Vec<u8>>,
    shadow: Option<Vec<u8>>,
    history: Vec<Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    reports: HashMap<(String, String), Vec<u8>>,
}

impl MemoryFleetStore {
    /// From now on every call fails, or none.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.state.lock().unavailable = unavailable;
    }

    /// From now on no read of the active record is answered, or every one.
    pub fn set_hanging(&self, hanging: bool) {
        self.state.lock().hanging = hanging;
    }

    pub fn set_commit_fault(&self, fault: Option<CommitFault>) {
        self.state.lock().commit_fault = fault;
    }

    /// Removes the statuses of all nodes, as if they had expired.
    pub fn remove_statuses(&self) {
        self.state.lock().statuses.clear();
    }

    /// The record that nodes prepare for a push.
    pub fn pending(&self) -> Option<Vec<u8>> {
        self.state.lock().pending.clone()
    }

    /// Replaces the active record, as a push of another process does.
    pub fn replace_active(&self, record: &str) {
        self.state.lock().active = Some(record.into());
    }

    fn with<T>(&self, action: impl FnOnce(&mut FleetStoreState) -> T) -> Result<T, StoreError> {
        let mut state = self.state.lock();
        if state.unavailable {
            return Err(StoreError::Unavailable("the test has set it unavailable".into()));
        }
        Ok(action(&mut state))
    }
}

#[async_trait]
impl FleetStore for MemoryFleetStore {
    fn keys(&self) -> &FleetKeys {
        &self.keys
    }

    async fn heartbeat(
        &self,
        node: &str,
        status: &str,
        _expiry: Duration,
        _now_ms: u64,
    ) -> Result<HeartbeatReply, StoreError> {
        self.with(|state| HeartbeatReply {
            written: Ok(()),
            previous: Ok(state.statuses.insert(node.into(), status.into())),
            active: Ok(state.active.clone()),
            pending: Ok(state.pending.clone()),
            shadow: Ok(state.shadow.clone()),
        })
    }

    async fn leave(&self, node: &str) -> Result<(), StoreError> {
        self.with(|state| drop(state.statuses.remove(node)))
    }

    async fn node_statuses(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.with(|state| state.statuses.values().cloned().collect())
    }

    async fn forget_expired_nodes(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn active(&self) -> RecordRead {
        if self.state.lock().hanging {
            std::future::pending::<()>().await;
        }
        self.with(|state| state.active.clone())
    }

    async fn shadow(&self) -> RecordRead {
        self.with(|state| state.shadow.clone())
    }

    async fn history(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        self.with(|state| state.history.clone())
    }

    async fn set_shadow(&self, record: &str, blobs: &[String], _expiry: Duration) -> Result<bool, StoreError> {
        self.with(|state| {
            let complete = blobs.iter().all(|hex| state.blobs.contains_key(hex));
            if complete {
                state.shadow = Some(record.into());
            }
            complete
        })
    }

    async fn remove_shadow(&self, expected: &[u8], _expiry: Duration) -> Result<bool, StoreError> {
        self.with(|state| state.shadow.take_if(|shadow| shadow == expected).is_some())
    }

    async fn blob(&self, hex: &str, max: u64) -> RecordRead {
        let max = usize::try_from(max).unwrap_or(usize::MAX).saturating_add(1);
        self.with(|state| state.blobs.get(hex).map(|blob| blob.iter().copied().take(max).collect()))
    }

    async fn put_blob(&self, hex: &str, content: &[u8], _expiry: Duration) -> Result<(), StoreError> {
        self.with(|state| drop(state.blobs.insert(hex.into(), content.into())))
    }

    async fn set_pending(&self, record: &str, _expiry: Duration) -> Result<bool, StoreError> {
        self.with(|state| {
            let free = state.pending.is_none();
            state.pending.get_or_insert_with(|| record.into());
            free
        })
    }

    async fn renew_pending(&self, record: &str, _expiry: Duration) -> Result<bool, StoreError> {
        self.with(|state| state.pending.as_deref() == Some(record.as_bytes()))
    }

    async fn remove_pending(&self, record: &str) -> Result<(), StoreError> {
        self.with(|state| drop(state.pending.take_if(|pending| pending == record.as_bytes())))
    }

    async fn report(&self, push: &str, node: &str, report: &str) -> Result<(), StoreError> {
        self.with(|state| drop(state.reports.insert((push.into(), node.into()), report.into())))
    }

    async fn reports(&self, push: &str, nodes: &[&str]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let report =
            |state: &FleetStoreState, node: &str| state.reports.get(&(push.to_owned(), node.to_owned())).cloned();
        self.with(|state| nodes.iter().map(|node| report(state, node)).collect())
    }

    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, StoreError> {
        let fault = self.state.lock().commit_fault.take();
        let lost = Err(StoreError::Unavailable("the reply is lost".into()));
        match fault {
            Some(CommitFault::Hangs) => std::future::pending().await,
            Some(CommitFault::LosesStore) => {
                self.set_unavailable(true);
                return lost;
            }
            Some(CommitFault::LosesCommit) => return lost,
            Some(CommitFault::LosesReply) | None => {}
        }
        let outcome = self.with(|state| {
            if state.active.as_deref() != commit.expected_active {
                return CommitOutcome::Conflict;
            }
            if state.pending.as_deref() != Some(commit.pending.as_bytes()) {
                return CommitOutcome::Expired;
            }
            if commit.blobs.iter().any(|hex| !state.blobs.contains_key(hex)) {
                return CommitOutcome::BlobMissing;
            }
            state.pending = None;
            state.active = Some(commit.record.into());
            state.history.insert(0, commit.record.into());
            state.history.truncate(MAX_HISTORY);
            state.shadow.take_if(|shadow| Some(&**shadow) == commit.ended_shadow);
            CommitOutcome::Committed
        });
        if fault.is_some() { lost } else { outcome }
    }

    async fn restore_active(&self, restore: Restore<'_>) -> Result<RestoreOutcome, StoreError> {
        self.with(|state| {
            if state.active.as_deref() != restore.expected_active {
                return RestoreOutcome::Conflict;
            }
            if state.pending.is_some() {
                return RestoreOutcome::PushInProgress;
            }
            if restore.blobs.iter().any(|hex| !state.blobs.contains_key(hex)) {
                return RestoreOutcome::BlobMissing;
            }
            state.active = Some(restore.record.into());
            if !state.history.iter().any(|record| record == restore.record.as_bytes()) {
                state.history.insert(0, restore.record.into());
            }
            RestoreOutcome::Restored
        })
    }

    async fn replication(&self, _timeout: Duration) -> Result<Replication, StoreError> {
        Ok(Replication::NoReplica)
    }
}
