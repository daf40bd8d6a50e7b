//! The status that each node publishes with its heartbeat.

use serde::{Deserialize, Serialize};

use crate::fleet::record;
use crate::fleet::record::{PushId, truncate_error};
use crate::rollout::stage::StageError;
use crate::shadow::counts::ShadowCounts;
use crate::store::StoreError;
use crate::store::fleet::FleetStore;

/// A node's status, which its heartbeat publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    /// The address that clients connect to.
    pub address: String,
    /// Random id of the process.
    pub instance: String,
    /// Version of the program.
    pub version: String,
    /// Whether the fleet manages its policy.
    pub fleet_managed: bool,
    /// Source of its policy, for people.
    pub source: Option<String>,
    /// `sha256:…` of the active component.
    pub digest: Option<String>,
    /// Number of activations of its process.
    pub generation: Option<u64>,
    /// Sequence of its policy.
    pub sequence: Option<u64>,
    /// Time of the activation, ms since 1970.
    pub since: Option<u64>,
    /// The push that its policy came from.
    pub push_id: Option<PushId>,
    /// Why the fleet's policy is not active, what the store refuses, or the last activation failure since `since`.
    pub error: Option<String>,
    /// Why the fleet's policy is not active. Not published: other nodes see it in `error`.
    #[serde(skip)]
    pub fleet_error: Option<String>,
    /// The fleet's shadow policy on this node.
    pub shadow: Option<ShadowNodeStatus>,
    /// Time of this heartbeat, ms since 1970.
    pub last_seen: u64,
}

/// The fleet's shadow policy on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowNodeStatus {
    /// The push that set it; none if its record cannot be parsed.
    pub push_id: Option<PushId>,
    /// Evaluated since, ms since 1970.
    pub since: Option<u64>,
    /// Counts of its decisions.
    pub counts: Option<ShadowCounts>,
    /// Why it is not evaluated.
    pub failure: Option<StageError>,
}

/// The status of all live nodes, sorted by name.
pub async fn live_nodes(store: &dyn FleetStore) -> Result<Vec<NodeStatus>, StoreError> {
    let plain = |node: NodeStatus| NodeStatus {
        name: truncate_error(&node.name),
        address: truncate_error(&node.address),
        source: node.source.as_deref().map(truncate_error),
        digest: node.digest.as_deref().map(truncate_error),
        error: node.error.as_deref().map(truncate_error),
        ..node
    };
    let statuses = store.node_statuses().await?;
    let mut nodes: Vec<NodeStatus> =
        statuses.iter().filter_map(|status| record::parse(status).ok()).map(plain).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

/// The status of all live nodes whose policy the fleet manages, sorted by name.
pub async fn managed_nodes(store: &dyn FleetStore) -> Result<Vec<NodeStatus>, StoreError> {
    Ok(live_nodes(store).await?.into_iter().filter(|node| node.fleet_managed).collect())
}

#[cfg(test)]
pub mod fixtures {
    use super::NodeStatus;

    /// The status of a live node that the fleet manages.
    pub fn test_status(name: &str) -> NodeStatus {
        NodeStatus {
            name: name.into(),
            address: "127.0.0.1:1".into(),
            instance: "1".into(),
            version: "0".into(),
            fleet_managed: true,
            source: None,
            digest: None,
            generation: None,
            sequence: None,
            since: None,
            push_id: None,
            error: None,
            fleet_error: None,
            shadow: None,
            last_seen: 0,
        }
    }
}
