//! The state of a fleet in its store: the policy records, the pushes, and the status of each node.
//!
//! The store does not parse records; it only bounds their size. Anyone with write access to the store may have written them, so
//! `crate::fleet` parses and verifies them.

use std::time::Duration;

use async_trait::async_trait;

use crate::store::StoreError;
use crate::store::fleet_keys::FleetKeys;

/// Maximum bytes of a record: a policy record, a node's status, a report. A longer value is truncated to one byte more.
pub const MAX_RECORD_BYTES: usize = 16 << 10;
/// Maximum pushes in the history. Their blobs are kept.
pub const MAX_HISTORY: usize = 16;

/// A record; `None` if it is not set.
pub type RecordRead = Result<Option<Vec<u8>>, StoreError>;

/// The result of a heartbeat. Each read may fail by itself.
#[derive(Clone, Debug)]
pub struct HeartbeatReply {
    /// Whether the node's status was written.
    pub written: Result<(), StoreError>,
    /// The status that was stored under this node's name until now.
    pub previous: RecordRead,
    /// The record of the active policy.
    pub active: RecordRead,
    /// The record of the policy that nodes prepare for a push.
    pub pending: RecordRead,
    /// The record of the shadow policy.
    pub shadow: RecordRead,
}

/// A push that all nodes have prepared.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The active record that the push began with; the commit fails if it has changed.
    pub expected_active: Option<&'a [u8]>,
    /// The pending record of this push; the commit fails if it has expired.
    pub pending: &'a str,
    /// The new active record.
    pub record: &'a str,
    /// The shadow record to remove, because its policy becomes the active one.
    pub ended_shadow: Option<&'a [u8]>,
    /// SHA-256 of the new record's blobs, in hexadecimal digits.
    pub blobs: &'a [String],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The new record is the active one.
    Committed,
    /// Another push was committed since this one began.
    Conflict,
    /// The pending record has expired.
    Expired,
    /// A blob has expired.
    BlobMissing,
}

/// A record that a node writes back, because the store has lost it.
#[derive(Clone, Copy, Debug)]
pub struct Restore<'a> {
    /// The active record that the store has; nothing is written if it has changed.
    pub expected_active: Option<&'a [u8]>,
    pub record: &'a str,
    /// SHA-256 of the record's blobs, in hexadecimal digits.
    pub blobs: &'a [String],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreOutcome {
    /// The record is the active one.
    Restored,
    /// The active record has changed.
    Conflict,
    /// A push is in progress.
    PushInProgress,
    /// The store has lost a blob, too.
    BlobMissing,
}

/// Whether the last writes to a server are on another one, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// A replica has it.
    Confirmed,
    /// There are replicas, and none is known to have it.
    Missing,
    /// The server has no replica.
    NoReplica,
}

/// One fleet's state in a store.
#[async_trait]
pub trait FleetStore: Send + Sync + 'static {
    fn keys(&self) -> &FleetKeys;

    /// Writes a node's status, which expires after `expiry`, and reads the fleet's policy records, in one round trip. An error of one key
    /// does not affect the others.
    async fn heartbeat(
        &self,
        node: &str,
        status: &str,
        expiry: Duration,
        now_ms: u64,
    ) -> Result<HeartbeatReply, StoreError>;

    /// Removes a node's status.
    async fn leave(&self, node: &str) -> Result<(), StoreError>;

    /// The status of each live node. Writes nothing.
    async fn node_statuses(&self) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Removes the names of nodes whose status has expired. A store's user without the right to do so removes none.
    async fn forget_expired_nodes(&self) -> Result<(), StoreError>;

    /// The record of the active policy.
    async fn active(&self) -> RecordRead;

    /// The record of the shadow policy.
    async fn shadow(&self) -> RecordRead;

    /// The active records so far, the latest first, at most [`MAX_HISTORY`].
    async fn history(&self) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Replaces the shadow record; false if one of its blobs has expired.
    async fn set_shadow(&self, record: &str, blobs: &[String], expiry: Duration) -> Result<bool, StoreError>;

    /// Removes the shadow record if it still is `expected`. Its blobs expire after `expiry`.
    async fn remove_shadow(&self, expected: &[u8], expiry: Duration) -> Result<bool, StoreError>;

    /// A blob of at most `max` bytes, or its first `max + 1` bytes.
    async fn blob(&self, hex: &str, max: u64) -> RecordRead;

    /// Stores a blob that expires after `expiry`, unless the history or the shadow record keeps it.
    async fn put_blob(&self, hex: &str, content: &[u8], expiry: Duration) -> Result<(), StoreError>;

    /// Sets the pending record; false if another push has set one that has not expired.
    async fn set_pending(&self, record: &str, expiry: Duration) -> Result<bool, StoreError>;

    /// Extends the expiry of the pending record; false if it is no longer `record`.
    async fn renew_pending(&self, record: &str, expiry: Duration) -> Result<bool, StoreError>;

    /// Removes the pending record if it still is `record`.
    async fn remove_pending(&self, record: &str) -> Result<(), StoreError>;

    /// Writes a node's report about a push.
    async fn report(&self, push: &str, node: &str, report: &str) -> Result<(), StoreError>;

    /// The reports of these nodes about a push, in their order.
    async fn reports(&self, push: &str, nodes: &[&str]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Makes a record the active one, atomically, or changes nothing.
    async fn commit(&self, commit: Commit<'_>) -> Result<CommitOutcome, StoreError>;

    /// Makes a record the active one again, atomically, or changes nothing.
    async fn restore_active(&self, restore: Restore<'_>) -> Result<RestoreOutcome, StoreError>;

    /// Waits until a replica has all that was written before this call, or until the timeout.
    async fn replication(&self, timeout: Duration) -> Result<Replication, StoreError>;
}

#[cfg(test)]
pub(crate) mod tests;
