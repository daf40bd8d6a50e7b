//! The status that each node publishes with its heartbeat, and how to read the status of all live nodes.

use serde::{Deserialize, Serialize};

use crate::fleet::record;
use crate::fleet::record::{PrepareFailure, PushId};
use crate::shadow::counts::ShadowCounts;
use crate::store::StoreError;
use crate::store::fleet::FleetStore;

/// Characters of an error that others are told.
const MAX_ERROR: usize = 2_000;
/// The same where a word has two of them.
const MAX_SHORTER: usize = 500;

/// A node's word of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub address: String,
    /// The process.
    pub instance: String,
    /// The release of the program.
    pub version: String,
    /// Whether its policy is the fleet's.
    pub fleet_managed: bool,
    /// Where its policy comes from, for people.
    pub source: Option<String>,
    /// What decides, `sha256:…`.
    pub digest: Option<String>,
    /// Counts the activations of its process.
    pub generation: Option<u64>,
    /// The number under which the policy was pushed or signed.
    pub sequence: Option<u64>,
    /// In force since, ms since 1970.
    pub since: Option<u64>,
    /// The push that its policy came with.
    pub push_id: Option<PushId>,
    /// What was refused since.
    pub error: Option<String>,
    /// What it makes of the candidate that the fleet has.
    pub shadow: Option<ShadowNodeStatus>,
    /// Time of this heartbeat, ms since 1970.
    pub last_seen: u64,
}

/// A node's word of the fleet's candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowNodeStatus {
    /// Which one; none if it cannot be read.
    pub push_id: Option<PushId>,
    /// Since when it is asked here, ms since 1970.
    pub since: Option<u64>,
    /// What came of it.
    pub counts: Option<ShadowCounts>,
    /// Why it is not asked.
    pub failure: Option<PrepareFailure>,
}

/// The nodes that live.
pub async fn nodes(store: &dyn FleetStore) -> Result<Vec<NodeStatus>, StoreError> {
    let plain = |node: NodeStatus| NodeStatus {
        name: short(&node.name),
        address: short(&node.address),
        source: node.source.as_deref().map(short),
        digest: node.digest.as_deref().map(short),
        error: node.error.as_deref().map(short),
        ..node
    };
    let words = store.node_statuses().await?;
    let mut nodes: Vec<NodeStatus> = words.iter().filter_map(|word| record::parse(word).ok()).map(plain).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

/// As much of a text as others are told.
pub(crate) fn short(text: &str) -> String {
    shortened(text, MAX_ERROR)
}

/// Less of it.
pub(crate) fn shorter(text: &str) -> String {
    shortened(text, MAX_SHORTER)
}

fn shortened(text: &str, most: usize) -> String {
    // Nor does it move the cursor of whoever reads it.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let shortened: String = text.chars().take(most).map(plain).collect();
    if shortened.len() < text.len() { shortened + "…" } else { shortened }
}

/// The status of a live node that the fleet manages, for tests.
#[cfg(test)]
pub(crate) fn test_status(name: &str) -> NodeStatus {
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
        shadow: None,
        last_seen: 0,
    }
}
