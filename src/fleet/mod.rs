//! The nodes on one store: their heartbeats, their commands, and the policy that they share.
//!
//! One record names the active policy. A push is a two-phase commit: it stores the component, sets the pending record, waits until
//! every live node has prepared the policy, and then replaces the active record atomically. Nodes do not trust the store: they check
//! blobs against their digests, and pushes against their signatures.

pub mod commands;
pub(crate) mod follower;
pub(crate) mod local_cache;
pub(crate) mod node;
pub(crate) mod node_status;
pub(crate) mod push;
pub(crate) mod record;
pub(crate) mod revocation;
pub(crate) mod shadow;
pub(crate) mod status;

use std::sync::Arc;

use crate::channel::hub::Hub;
use crate::fleet::node::{Fleet, lock};

impl Fleet {
    /// Starts the heartbeat and, if the fleet manages this node's policy, the tasks that follow the fleet's records.
    pub fn start(self: &Arc<Self>, hub: &Hub) {
        let mut tasks = lock(&self.tasks);
        if self.local_cache.is_some() {
            tasks.push(tokio::spawn(Arc::clone(self).follow_active(self.records.subscribe())).abort_handle());
            tasks.push(tokio::spawn(Arc::clone(self).follow_shadow(self.records.subscribe())).abort_handle());
        }
        tasks.push(tokio::spawn(Arc::clone(self).heartbeat_loop()).abort_handle());
        tasks.push(tokio::spawn(watch_notifications(Arc::clone(self), hub.clone())).abort_handle());
        let (fleet, mut swaps) = (Arc::clone(self), self.authorizer.generations());
        let watch_activations = async move {
            while swaps.changed().await.is_ok() {
                fleet.changed.notify_one();
            }
        };
        tasks.push(tokio::spawn(watch_activations).abort_handle());
    }

    /// Stops the tasks and removes this node's status, so that a push does not wait until it expires.
    pub async fn leave(&self) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        if let Err(error) = self.store.leave(&self.name).await {
            tracing::debug!(%error, "this node's status cannot be removed; it expires");
        }
    }
}

/// Causes a heartbeat for every notification that a record changed.
async fn watch_notifications(fleet: Arc<Fleet>, hub: Hub) {
    loop {
        let mut tap = hub.subscribe_raw(&fleet.store.keys().policy_changed());
        while tap.next().await.is_some() {
            fleet.wake_heartbeat();
        }
    }
}
