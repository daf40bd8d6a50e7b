//! This node as a member of the fleet.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::channel::hub::Hub;
use crate::fleet::follower::ActiveFollower;
use crate::fleet::heartbeat::{Heartbeat, NodeContext};
use crate::fleet::node_status::NodeStatus;
use crate::fleet::shadow::follow::ShadowFollower;
use crate::store::fleet::FleetStore;

/// State changes that wait for the heartbeat task, which is busy during a round trip to the store.
const MAX_WAITING_CHANGES: usize = 8;

/// This node as a member of the fleet. The heartbeat task owns the node's state; its status is read here.
pub struct Fleet {
    node: Arc<NodeContext>,
    status: watch::Receiver<NodeStatus>,
    tasks: Vec<AbortHandle>,
}

impl Fleet {
    /// Joins the fleet: activates the fleet's policy if it manages this node's, sends a heartbeat, so that a push that begins now counts
    /// this node, and follows the fleet's records from then on.
    pub async fn join(node: NodeContext, hub: &Hub) -> Arc<Self> {
        let node = Arc::new(node);
        let (changes, receiver) = mpsc::channel(MAX_WAITING_CHANGES);
        let mut heartbeat = Heartbeat::new(Arc::clone(&node), receiver);
        let mut tasks = Vec::new();
        if let Some(cache) = node.local_cache.clone() {
            let shadow = ShadowFollower::new(Arc::clone(&node), changes.clone());
            let mut active = ActiveFollower::new(Arc::clone(&node), cache, changes);
            active.activate_at_start().await;
            tasks.push(tokio::spawn(active.run(heartbeat.records())).abort_handle());
            tasks.push(tokio::spawn(shadow.run(heartbeat.records())).abort_handle());
        }
        heartbeat.send().await;
        if let Err(error) = node.store.forget_expired_nodes().await {
            tracing::debug!(%error, "the names of expired nodes cannot be removed; the next push removes them");
        }
        let status = heartbeat.status();
        let record_notifications = hub.subscribe_own(&node.store.keys().policy_changed());
        tasks.push(tokio::spawn(heartbeat.run(record_notifications)).abort_handle());
        Arc::new(Self { node, status, tasks })
    }

    /// Stops the tasks and removes this node's status, so that a push does not wait until it expires.
    pub async fn leave(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        if let Err(error) = self.node.store.leave(&self.node.name).await {
            tracing::debug!(%error, "this node's status cannot be removed; it expires");
        }
    }

    /// The fleet's state in the store.
    pub fn store(&self) -> &dyn FleetStore {
        &*self.node.store
    }

    /// Whether the fleet manages this node's policy.
    pub fn is_fleet_managed(&self) -> bool {
        self.node.is_fleet_managed()
    }

    /// Why the fleet's policy is not active on this node, if it is not.
    pub fn error(&self) -> Option<String> {
        self.status.borrow().fleet_error.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::heartbeat::fixtures::test_node;
    use crate::fleet::node_status::live_nodes;
    use crate::store::fleet::tests::MemoryFleetStore;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_joins_publishes_its_status_until_it_leaves() {
        let store = MemoryFleetStore::default();
        let (node, hub) = test_node(&store, "a");
        let fleet = Fleet::join(node, &hub).await;
        assert_eq!(fleet.error(), None);
        let published = live_nodes(&store).await.expect("read");
        let published: Vec<_> =
            published.iter().map(|node| (&*node.name, &*node.address, node.fleet_managed)).collect();
        assert_eq!(published, [("a", "127.0.0.1:8080", false)]);
        fleet.leave().await;
        assert_eq!(live_nodes(&store).await.expect("read"), []);
    }
}
