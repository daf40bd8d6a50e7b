//! Nodes on one store: what they tell each other, and the policy that they have in common. They share nothing else.
//!
//! What is in force is one pointer. A push stores the component, makes it the candidate, waits until every live node has taken it
//! through all stages, and then flips the pointer, once. Nothing of it that is read from Redis is believed: contents are held against
//! their digests, and what was pushed against its signature.

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
    /// Gives word from now on, and follows the fleet's pointer where that is the policy's source.
    pub fn start(self: &Arc<Self>, hub: &Hub) {
        let mut tasks = lock(&self.tasks);
        if self.copy.is_some() {
            tasks.push(tokio::spawn(Arc::clone(self).follow(self.heard.subscribe())).abort_handle());
            tasks.push(tokio::spawn(Arc::clone(self).follow_shadow(self.heard.subscribe())).abort_handle());
        }
        tasks.push(tokio::spawn(Arc::clone(self).beat()).abort_handle());
        tasks.push(tokio::spawn(listen(Arc::clone(self), hub.clone())).abort_handle());
        let (fleet, mut swaps) = (Arc::clone(self), self.authorizer.swaps());
        let tell = async move {
            while swaps.changed().await.is_ok() {
                fleet.changed.notify_one();
            }
        };
        tasks.push(tokio::spawn(tell).abort_handle());
    }

    /// The others need not wait until this node's word expires.
    pub async fn leave(&self) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        if let Err(error) = self.store.leave(&self.name).await {
            tracing::debug!(%error, "the fleet could not be told that this node goes");
        }
    }
}

/// Looks at once when the bell rings.
async fn listen(fleet: Arc<Fleet>, hub: Hub) {
    loop {
        let mut tap = hub.tap(&fleet.store.keys().policy_changed());
        while tap.next().await.is_some() {
            fleet.tell();
        }
    }
}
