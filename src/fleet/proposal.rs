//! A candidate for the whole fleet: every node asks it beside what is in force, without effect, and says in its word what comes of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::member::{Beside, Node, short};
use super::pointer::{self, Pointer, Why};
use super::push::{Bundle, LOOK, PushError, nodes, pointer_of, put_blobs};
use crate::policy::digest::Digest;
use crate::policy::shadow::Counts;
use crate::store::StoreError;
use crate::store::redis::fleet::FleetStore;

/// Blobs of a candidate that is one no longer go after this.
const BLOBS: Duration = Duration::from_secs(3600);
/// Nodes have so long to say what they make of a candidate, before it is told without them.
pub const WORDS: Duration = Duration::from_secs(30);

/// What every node shall ask beside what is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// What is asked, as it would be pushed.
    #[serde(flatten)]
    pub pointer: Pointer,
    /// About how many clients.
    pub share: Portion,
}

/// A share, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Portion(f64);

impl TryFrom<f64> for Portion {
    type Error = &'static str;

    fn try_from(share: f64) -> Result<Self, &'static str> {
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err("a share is from 0 to 1") }
    }
}

impl From<Portion> for f64 {
    fn from(portion: Portion) -> Self {
        portion.0
    }
}

/// A candidate of the fleet, as it is told of: as one node tells of its own, and each node's part.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
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
    pub share: Portion,
    /// The sum of what came of it on the nodes that live.
    pub counts: Counts,
    /// Each of them.
    pub nodes: Vec<OnNode>,
}

/// A candidate on a node: it asks it since then, or refuses it, or has not said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnNode {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub address: String,
    /// Since when it asks it, ms since 1970.
    pub since: Option<u64>,
    /// What came of it there.
    pub counts: Option<Counts>,
    /// Why it does not.
    pub failure: Option<Why>,
}

/// Why there is nothing to tell of a candidate.
#[derive(Debug, thiserror::Error)]
pub enum NoProposal {
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
pub async fn propose(store: &FleetStore, bundle: &Bundle, share: Portion) -> Result<Proposal, PushError> {
    let pointer = pointer_of(store, bundle, None).await?;
    let blobs = put_blobs(store, &pointer, bundle).await?;
    let proposal = Proposal { pointer, share };
    if store.propose(&pointer::note(&proposal), &blobs, BLOBS).await? { Ok(proposal) } else { Err(PushError::Lost) }
}

/// What the fleet shall ask.
pub async fn proposal(store: &FleetStore) -> Result<Proposal, NoProposal> {
    let note = match store.shadow().await {
        Err(StoreError::WrongType) => return Err(NoProposal::Unreadable(StoreError::WrongType.to_string())),
        note => note?.ok_or(NoProposal::None)?,
    };
    pointer::parse(&note).map_err(NoProposal::Unreadable)
}

/// What comes of it by now.
pub async fn told(store: &FleetStore) -> Result<Told, NoProposal> {
    let proposal = proposal(store).await?;
    Ok(Told::of(&proposal, nodes(store).await?))
}

/// The same when every node that lives has said something of it, or did not for so long.
pub async fn told_by_all(store: &FleetStore, proposal: &Proposal, within: Duration) -> Result<Told, StoreError> {
    let begun = Instant::now();
    loop {
        let told = Told::of(proposal, nodes(store).await?);
        if told.nodes.iter().all(|node| node.since.is_some() || node.failure.is_some()) || begun.elapsed() >= within {
            return Ok(told);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes it away everywhere, and tells for the last time what came of it; nothing where it could not be read.
pub async fn withdraw(store: &FleetStore) -> Result<Option<Told>, NoProposal> {
    let note = match store.shadow().await {
        // It is not read, so it is nothing of which one could say whether it still is there.
        Err(StoreError::WrongType) => Vec::new(),
        note => note?.ok_or(NoProposal::None)?,
    };
    let told = match pointer::parse::<Proposal>(&note) {
        Ok(proposal) => Some(Told::of(&proposal, nodes(store).await?)),
        Err(_) => None,
    };
    if store.propose_nothing(&note, BLOBS).await? { Ok(told) } else { Err(NoProposal::Moved) }
}

/// The note to be taken away when this takes force: a candidate that is in force is none.
pub(super) async fn ended_by(store: &FleetStore, pointer: &Pointer) -> Result<Option<Vec<u8>>, StoreError> {
    let is = |note: &Vec<u8>| {
        pointer::parse::<Proposal>(note).is_ok_and(|proposal| {
            (proposal.pointer.component, proposal.pointer.cases) == (pointer.component, pointer.cases)
        })
    };
    match store.shadow().await {
        // It is no candidate, and in the way of no push.
        Err(StoreError::WrongType) => Ok(None),
        note => Ok(note?.filter(is)),
    }
}

impl Told {
    fn of(proposal: &Proposal, nodes: Vec<Node>) -> Self {
        let Proposal { pointer, share } = proposal;
        let on = |node: Node| {
            let said = node.shadow.filter(|said| said.push_id.as_ref() == Some(&pointer.push_id));
            let Beside { since, counts, failure, .. } = said.unwrap_or_default();
            let failure = failure.map(|why| Why { reason: short(&why.reason), ..why });
            OnNode { name: node.name, address: node.address, since, counts, failure }
        };
        let nodes: Vec<OnNode> = nodes.into_iter().filter(|node| node.fleet_managed).map(on).collect();
        let counts = nodes.iter().filter_map(|node| node.counts).fold(Counts::default(), Counts::plus);
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
    use super::super::pointer::PushId;
    use super::*;
    use crate::rollout::Stage;

    fn proposal() -> Proposal {
        let pointer = Pointer {
            sequence: 7,
            component: Digest::of(b"component"),
            cases: None,
            signature: None,
            pushed_at: 5,
            push_id: PushId::new(),
            rollback_of: None,
        };
        Proposal { pointer, share: Portion(0.25) }
    }

    fn node(name: &str, shadow: Option<Beside>) -> Node {
        Node {
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
        let note = pointer::note(&it);
        assert_eq!(pointer::parse(note.as_bytes()), Ok(it));
        for share in ["2.0", "-0.1", "1e999", "null", "\"0.5\""] {
            let other = note.replace("0.25", share);
            assert_ne!(other, note);
            assert!(pointer::parse::<Proposal>(other.as_bytes()).is_err(), "{share}");
        }
    }

    #[test]
    fn what_nodes_say_is_added_up_whatever_it_is() {
        let it = proposal();
        let push = Some(it.pointer.push_id.clone());
        let asks = |agree| {
            let counts = Counts { agree, other: 1, ..Counts::default() };
            Some(Beside { push_id: push.clone(), since: Some(1), counts: Some(counts), failure: None })
        };
        let why = Why { stage: Stage::Tested, reason: "\u{1b}[2J".into() };
        let refuses = Some(Beside { push_id: push.clone(), failure: Some(why), ..Beside::default() });
        let before = Some(Beside { push_id: Some(PushId::new()), ..asks(9).expect("it asks") });
        let own = Node { fleet_managed: false, ..node("own", asks(50)) };
        let nodes = vec![node("a", asks(2)), node("b", asks(3)), node("c", refuses), node("d", before), own];
        let told = Told::of(&it, nodes);
        assert_eq!(told.counts, Counts { agree: 5, other: 2, ..Counts::default() });
        let said: Vec<_> = told.nodes.iter().map(|node| (&*node.name, node.since, node.failure.is_some())).collect();
        assert_eq!(said, [("a", Some(1), false), ("b", Some(1), false), ("c", None, true), ("d", None, false)]);
        let why = told.nodes[2].failure.as_ref().map(|why| &*why.reason);
        assert_eq!(why, Some(" [2J"), "it moves no cursor");
        let told = Told::of(&it, vec![node("a", asks(u64::MAX)), node("b", asks(u64::MAX))]);
        assert_eq!(told.counts.agree, u64::MAX);
    }
}
