//! A candidate for the whole fleet: every node asks it beside what is in force, without effect, and says in its word what comes of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::artifact::digest::Digest;
use crate::fleet::node::{NodeStatus, ShadowNodeStatus, short};
use crate::fleet::push::{Bundle, LOOK, PushError, nodes, pointer_of, put_blobs};
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, PrepareFailure};
use crate::shadow::counts::ShadowCounts;
use crate::store::StoreError;
use crate::store::redis::fleet::FleetStore;
use crate::util::ratio::Ratio;

/// Blobs of a candidate that is one no longer go after this.
const BLOBS: Duration = Duration::from_secs(3600);
/// Nodes have so long to say what they make of a candidate, before it is told without them.
pub const WORDS: Duration = Duration::from_secs(30);

/// What every node shall ask beside what is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShadowPush {
    /// What is asked, as it would be pushed.
    #[serde(flatten)]
    pub pointer: ActiveRecord,
    /// About how many clients.
    pub share: Ratio,
}

/// A candidate of the fleet, as it is told of: as one node tells of its own, and each node's part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowStatus {
    /// The component.
    pub digest: Digest,
    /// The cases that it had to pass.
    pub cases: Option<Digest>,
    /// Where it comes from: the fleet.
    pub source: String,
    /// The number under which it was signed, or would have been pushed.
    pub sequence: Option<u64>,
    /// Always: it is in the store.
    pub persisted: bool,
    /// When it was given to the fleet, ms since 1970.
    pub since: u64,
    /// The share of clients.
    pub share: Ratio,
    /// The sum of what came of it on the nodes that live.
    pub counts: ShadowCounts,
    /// Each of them.
    pub nodes: Vec<ShadowOnNode>,
}

/// A candidate on a node: it asks it since then, or refuses it, or has not said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowOnNode {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub address: String,
    /// Since when it asks it, ms since 1970.
    pub since: Option<u64>,
    /// What came of it there.
    pub counts: Option<ShadowCounts>,
    /// Why it does not.
    pub failure: Option<PrepareFailure>,
}

/// Why there is nothing to tell of a candidate.
#[derive(Debug, thiserror::Error)]
pub enum NoShadowPolicy {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is none.
    #[error("there is no candidate: give one to the fleet with `tidegate policy shadow`")]
    None,
    /// What is there is none.
    #[error(
        "what the store has as the fleet's candidate cannot be read: {0}; `tidegate policy shadow --stop` takes it away"
    )]
    Unreadable(String),
    /// Somebody else gave or took one meanwhile.
    #[error("somebody else gave the fleet another candidate meanwhile, or took this one away")]
    Moved,
}

/// Gives the fleet a candidate, in place of the one before.
pub async fn propose(store: &FleetStore, bundle: &Bundle, share: Ratio) -> Result<ShadowPush, PushError> {
    let pointer = pointer_of(store, bundle, None).await?;
    let blobs = put_blobs(store, &pointer, bundle).await?;
    let proposal = ShadowPush { pointer, share };
    if store.propose(&record::note(&proposal), &blobs, BLOBS).await? { Ok(proposal) } else { Err(PushError::Lost) }
}

/// What the fleet shall ask.
pub async fn proposal(store: &FleetStore) -> Result<ShadowPush, NoShadowPolicy> {
    let note = match store.shadow().await {
        Err(StoreError::WrongType) => return Err(NoShadowPolicy::Unreadable(StoreError::WrongType.to_string())),
        note => note?.ok_or(NoShadowPolicy::None)?,
    };
    record::parse(&note).map_err(NoShadowPolicy::Unreadable)
}

/// What comes of it by now.
pub async fn told(store: &FleetStore) -> Result<ShadowStatus, NoShadowPolicy> {
    let proposal = proposal(store).await?;
    Ok(ShadowStatus::of(&proposal, nodes(store).await?))
}

/// The same when every node that lives has said something of it, or did not for so long.
pub async fn told_by_all(
    store: &FleetStore,
    proposal: &ShadowPush,
    within: Duration,
) -> Result<ShadowStatus, StoreError> {
    let begun = Instant::now();
    loop {
        let told = ShadowStatus::of(proposal, nodes(store).await?);
        if told.nodes.iter().all(|node| node.since.is_some() || node.failure.is_some()) || begun.elapsed() >= within {
            return Ok(told);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes it away everywhere, and tells for the last time what came of it; nothing where it could not be read.
pub async fn withdraw(store: &FleetStore) -> Result<Option<ShadowStatus>, NoShadowPolicy> {
    let note = match store.shadow().await {
        // It is not read, so it is nothing of which one could say whether it still is there.
        Err(StoreError::WrongType) => Vec::new(),
        note => note?.ok_or(NoShadowPolicy::None)?,
    };
    let told = match record::parse::<ShadowPush>(&note) {
        Ok(proposal) => Some(ShadowStatus::of(&proposal, nodes(store).await?)),
        Err(_) => None,
    };
    if store.propose_nothing(&note, BLOBS).await? { Ok(told) } else { Err(NoShadowPolicy::Moved) }
}

/// The note to be taken away when this takes force: a candidate that is in force is none.
pub(crate) async fn ended_by(store: &FleetStore, pointer: &ActiveRecord) -> Result<Option<Vec<u8>>, StoreError> {
    let is = |note: &Vec<u8>| {
        record::parse::<ShadowPush>(note).is_ok_and(|proposal| {
            (proposal.pointer.component, proposal.pointer.cases) == (pointer.component, pointer.cases)
        })
    };
    match store.shadow().await {
        // It is no candidate, and in the way of no push.
        Err(StoreError::WrongType) => Ok(None),
        note => Ok(note?.filter(is)),
    }
}

impl ShadowStatus {
    fn of(proposal: &ShadowPush, nodes: Vec<NodeStatus>) -> Self {
        let ShadowPush { pointer, share } = proposal;
        let on = |node: NodeStatus| {
            let said = node.shadow.filter(|said| said.push_id.as_ref() == Some(&pointer.push_id));
            let ShadowNodeStatus { since, counts, failure, .. } = said.unwrap_or_default();
            let failure = failure.map(|why| PrepareFailure { reason: short(&why.reason), ..why });
            ShadowOnNode { name: node.name, address: node.address, since, counts, failure }
        };
        let nodes: Vec<ShadowOnNode> = nodes.into_iter().filter(|node| node.fleet_managed).map(on).collect();
        let counts = nodes.iter().filter_map(|node| node.counts).fold(ShadowCounts::default(), ShadowCounts::plus);
        Self {
            digest: pointer.component,
            cases: pointer.cases,
            source: "fleet".into(),
            sequence: Some(pointer.sequence),
            persisted: true,
            since: pointer.pushed_at,
            share: *share,
            counts,
            nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::record::PushId;
    use crate::rollout::stage::Stage;

    fn proposal() -> ShadowPush {
        let pointer = ActiveRecord {
            sequence: 7,
            component: Digest::of(b"component"),
            cases: None,
            signature: None,
            pushed_at: 5,
            push_id: PushId::new(),
            rollback_of: None,
        };
        ShadowPush { pointer, share: Ratio::try_from(0.25).expect("a ratio") }
    }

    fn node(name: &str, shadow: Option<ShadowNodeStatus>) -> NodeStatus {
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
            shadow,
            last_seen: 0,
        }
    }

    #[test]
    fn notes() {
        let it = proposal();
        let note = record::note(&it);
        assert_eq!(record::parse(note.as_bytes()), Ok(it));
        for share in ["2.0", "-0.1", "1e999", "null", "\"0.5\""] {
            let other = note.replace("0.25", share);
            assert_ne!(other, note);
            assert!(record::parse::<ShadowPush>(other.as_bytes()).is_err(), "{share}");
        }
    }

    #[test]
    fn what_nodes_say_is_added_up_whatever_it_is() {
        let it = proposal();
        let push = Some(it.pointer.push_id.clone());
        let asks = |agree| {
            let counts = ShadowCounts { agree, other: 1, ..ShadowCounts::default() };
            Some(ShadowNodeStatus { push_id: push.clone(), since: Some(1), counts: Some(counts), failure: None })
        };
        let why = PrepareFailure { stage: Stage::Tested, reason: "\u{1b}[2J".into() };
        let refuses =
            Some(ShadowNodeStatus { push_id: push.clone(), failure: Some(why), ..ShadowNodeStatus::default() });
        let before = Some(ShadowNodeStatus { push_id: Some(PushId::new()), ..asks(9).expect("it asks") });
        let own = NodeStatus { fleet_managed: false, ..node("own", asks(50)) };
        let nodes = vec![node("a", asks(2)), node("b", asks(3)), node("c", refuses), node("d", before), own];
        let told = ShadowStatus::of(&it, nodes);
        assert_eq!(told.counts, ShadowCounts { agree: 5, other: 2, ..ShadowCounts::default() });
        let said: Vec<_> = told.nodes.iter().map(|node| (&*node.name, node.since, node.failure.is_some())).collect();
        assert_eq!(said, [("a", Some(1), false), ("b", Some(1), false), ("c", None, true), ("d", None, false)]);
        let why = told.nodes[2].failure.as_ref().map(|why| &*why.reason);
        assert_eq!(why, Some(" [2J"), "it moves no cursor");
        let told = ShadowStatus::of(&it, vec![node("a", asks(u64::MAX)), node("b", asks(u64::MAX))]);
        assert_eq!(told.counts.agree, u64::MAX);
    }
}
