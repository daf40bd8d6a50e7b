//! The shadow policy of a fleet: every node evaluates it without effect, and reports its counts in the node status.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::artifact::digest::Digest;
use crate::artifact::signature::Signature;
use crate::artifact::signature::key::TrustedKeys;
use crate::artifact::signature::proof::{NotProven, Proof};
use crate::fleet::node_status::{NodeStatus, live_nodes};
use crate::fleet::push::{BLOB_EXPIRY, Bundle, POLL_INTERVAL, PushError, next_record, store_blobs};
use crate::fleet::record;
use crate::fleet::record::{ShadowPush, stage_error};
use crate::rollout::stage::StageError;
use crate::shadow::counts::ShadowCounts;
use crate::store::StoreError;
use crate::store::fleet::FleetStore;
use crate::util::ratio::Ratio;

/// Time limit for the nodes to report a new shadow policy.
pub const SHADOW_REPORT_TIMEOUT: Duration = Duration::from_secs(30);

/// The status of the fleet's shadow policy: the fields of a single node's report, and each node's part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowStatus {
    pub digest: Digest,
    /// Of the test cases that it passed.
    pub cases: Option<Digest>,
    pub signature: Option<Signature>,
    /// Always `fleet`.
    pub source: String,
    /// The signed sequence, or the one that a push would have.
    pub sequence: Option<u64>,
    /// Always true, because it is in the store.
    pub persisted: bool,
    /// Time when it was set, ms since 1970.
    pub since: u64,
    /// The share of clients, from 0 to 1.
    pub share: Ratio,
    /// Sum of the counts of all live nodes.
    pub counts: ShadowCounts,
    /// The live nodes.
    pub nodes: Vec<ShadowOnNode>,
}

/// The shadow policy on one node. Without `since` and `failure`, the node has not reported yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowOnNode {
    pub name: String,
    /// The address that clients connect to.
    pub address: String,
    /// Evaluated since, ms since 1970.
    pub since: Option<u64>,
    /// Counts of its decisions on this node.
    pub counts: Option<ShadowCounts>,
    /// Why the node does not evaluate it.
    pub failure: Option<StageError>,
}

/// Why there is no status of a shadow policy.
#[derive(Debug, thiserror::Error)]
pub enum NoShadowPolicy {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the fleet has no shadow policy: set one with `tidegate policy shadow`")]
    None,
    #[error(
        "the fleet's record of the shadow policy cannot be read: {0}; remove it with `tidegate policy shadow --stop`"
    )]
    Unreadable(String),
    #[error("another process replaced or removed the fleet's shadow policy at the same time")]
    Changed,
}

/// Sets the fleet's shadow policy. It replaces the present one.
pub async fn set(store: &dyn FleetStore, bundle: &Bundle, share: Ratio) -> Result<ShadowPush, PushError> {
    let record = next_record(store, bundle, None).await?;
    let blobs = store_blobs(store, &record, bundle).await?;
    let push = ShadowPush { record, share };
    let is_set = store.set_shadow(&record::to_json(&push), &blobs, BLOB_EXPIRY).await?;
    if is_set { Ok(push) } else { Err(PushError::Expired) }
}

/// The record of the fleet's shadow policy.
pub async fn record(store: &dyn FleetStore) -> Result<ShadowPush, NoShadowPolicy> {
    let value = match store.shadow().await {
        Err(StoreError::WrongType) => return Err(NoShadowPolicy::Unreadable(StoreError::WrongType.to_string())),
        record => record?.ok_or(NoShadowPolicy::None)?,
    };
    record::parse(&value).map_err(NoShadowPolicy::Unreadable)
}

/// The status of the fleet's shadow policy.
pub async fn status(store: &dyn FleetStore) -> Result<ShadowStatus, NoShadowPolicy> {
    let shadow = record(store).await?;
    Ok(ShadowStatus::of(&shadow, live_nodes(store).await?))
}

/// Waits until every live node has reported, or until the time is over, and returns the status.
pub async fn wait_reported(
    store: &dyn FleetStore,
    push: &ShadowPush,
    timeout: Duration,
) -> Result<ShadowStatus, StoreError> {
    let started = Instant::now();
    loop {
        let status = ShadowStatus::of(push, live_nodes(store).await?);
        if status.nodes.iter().all(|node| node.since.is_some() || node.failure.is_some())
            || started.elapsed() >= timeout
        {
            return Ok(status);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Removes the fleet's shadow policy, and returns its last status; none if its record could not be parsed.
pub async fn remove(store: &dyn FleetStore) -> Result<Option<ShadowStatus>, NoShadowPolicy> {
    let value = match store.shadow().await {
        // A value of another type cannot be compared, so it is removed unread.
        Err(StoreError::WrongType) => Vec::new(),
        record => record?.ok_or(NoShadowPolicy::None)?,
    };
    let status = match record::parse::<ShadowPush>(&value) {
        Ok(push) => Some(ShadowStatus::of(&push, live_nodes(store).await?)),
        Err(_) => None,
    };
    if store.remove_shadow(&value, BLOB_EXPIRY).await? { Ok(status) } else { Err(NoShadowPolicy::Changed) }
}

impl ShadowStatus {
    /// Proves that one of these keys signed this policy with this sequence.
    pub fn prove(&self, keys: &TrustedKeys) -> Result<Proof, NotProven> {
        keys.prove(self.digest, self.cases, self.sequence.unwrap_or(0), self.signature.as_ref())
    }

    fn of(push: &ShadowPush, nodes: Vec<NodeStatus>) -> Self {
        let ShadowPush { record, share } = push;
        let describe = |node: NodeStatus| {
            let reported = node.shadow.filter(|reported| reported.push_id.as_ref() == Some(&record.push_id));
            let reported = reported.unwrap_or_default();
            ShadowOnNode {
                name: node.name,
                address: node.address,
                since: reported.since,
                counts: reported.counts,
                failure: reported.failure.map(|failure| stage_error(failure.stage, failure.reason)),
            }
        };
        let nodes: Vec<ShadowOnNode> = nodes.into_iter().filter(|node| node.fleet_managed).map(describe).collect();
        let counts = nodes.iter().filter_map(|node| node.counts).fold(ShadowCounts::default(), ShadowCounts::plus);
        Self {
            digest: record.component,
            cases: record.cases,
            signature: record.signature.clone(),
            source: "fleet".into(),
            sequence: Some(record.sequence),
            persisted: true,
            since: record.pushed_at,
            share: *share,
            counts,
            nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::node_status::ShadowNodeStatus;
    use crate::fleet::node_status::fixtures::test_status;
    use crate::fleet::record::PushId;
    use crate::fleet::record::fixtures::test_record;
    use crate::rollout::stage::Stage;

    fn shadow_push() -> ShadowPush {
        ShadowPush { record: test_record(7, b"component"), share: Ratio::try_from(0.25).expect("a share") }
    }

    fn node(name: &str, shadow: Option<ShadowNodeStatus>) -> NodeStatus {
        NodeStatus { shadow, ..test_status(name) }
    }

    #[test]
    fn record_with_an_invalid_share_is_refused() {
        let push = shadow_push();
        let json = record::to_json(&push);
        assert_eq!(record::parse(json.as_bytes()), Ok(push));
        for share in ["2.0", "-0.1", "1e999", "null", "\"0.5\""] {
            let other = json.replace("0.25", share);
            assert_ne!(other, json);
            assert!(record::parse::<ShadowPush>(other.as_bytes()).is_err(), "{share}");
        }
    }

    #[test]
    fn reports_of_all_managed_nodes_are_added_up() {
        let push = shadow_push();
        let push_id = Some(push.record.push_id.clone());
        let evaluates = |agree| {
            let counts = ShadowCounts { agree, other: 1, ..ShadowCounts::default() };
            Some(ShadowNodeStatus { push_id: push_id.clone(), since: Some(1), counts: Some(counts), failure: None })
        };
        let failure = StageError { stage: Stage::Tested, reason: "\u{1b}[2J".into() };
        let fails =
            Some(ShadowNodeStatus { push_id: push_id.clone(), failure: Some(failure), ..ShadowNodeStatus::default() });
        let earlier =
            Some(ShadowNodeStatus { push_id: Some(PushId::new()), ..evaluates(9).expect("a node that evaluates") });
        let own = NodeStatus { fleet_managed: false, ..node("own", evaluates(50)) };
        let nodes = vec![node("a", evaluates(2)), node("b", evaluates(3)), node("c", fails), node("d", earlier), own];
        let status = ShadowStatus::of(&push, nodes);
        assert_eq!(status.counts, ShadowCounts { agree: 5, other: 2, ..ShadowCounts::default() });
        let reported: Vec<_> =
            status.nodes.iter().map(|node| (&*node.name, node.since, node.failure.is_some())).collect();
        assert_eq!(reported, [("a", Some(1), false), ("b", Some(1), false), ("c", None, true), ("d", None, false)]);
        let reason = status.nodes[2].failure.as_ref().map(|failure| &*failure.reason);
        assert_eq!(reason, Some("\\u{1b}[2J"), "no control character reaches a terminal");
        let status = ShadowStatus::of(&push, vec![node("a", evaluates(u64::MAX)), node("b", evaluates(u64::MAX))]);
        assert_eq!(status.counts.agree, u64::MAX);
    }
}
