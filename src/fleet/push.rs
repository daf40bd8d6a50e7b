//! A push: prepare everywhere, then flip once, or not at all.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::artifact::digest::Digest;
use crate::artifact::signature::{MAX_SEQUENCE, Signature, Statement};
use crate::fleet::node_status::{NodeStatus, nodes, short};
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, PendingPush, PrepareReport, PushId, ShadowPush, current};
use crate::fleet::status::FleetStatus;
use crate::rollout::pipeline::MAX_CASES;
use crate::rollout::stage::Stage;
use crate::store::StoreError;
use crate::store::fleet::{Commit, CommitOutcome, FleetStore};
use crate::util::clock::now_ms;
use crate::wasm::load_error::MAX_SIZE;

/// How often is looked what the nodes say.
pub(super) const LOOK: Duration = Duration::from_millis(25);
/// A candidate whose pusher is gone is one no longer after this.
const CANDIDATE: Duration = Duration::from_secs(10);
/// It is renewed this often.
const RENEW: Duration = Duration::from_secs(2);
/// Blobs of a push that came to nothing go after this.
const BLOBS: Duration = Duration::from_secs(3600);

/// What is pushed.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The component.
    pub component: Vec<u8>,
    /// The cases that travel with it.
    pub cases: Option<String>,
    /// Who says so.
    pub signature: Option<Signature>,
}

/// How.
#[derive(Clone, Copy, Debug)]
pub struct PushOptions {
    /// Prepare only.
    pub dry_run: bool,
    /// For preparing everywhere, and again for the flip to arrive everywhere.
    pub timeout: Duration,
    /// Even if no node lives that would try it.
    pub untried: bool,
    /// The number of what shall be in force again, if that is what it is.
    pub rollback_of: Option<u64>,
}

/// What came of a push.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pushed {
    /// The policy that was pushed.
    #[serde(flatten)]
    pub pointer: ActiveRecord,
    /// Whether it is active now; false for a dry run.
    pub activated: bool,
    /// The nodes that prepared it and, if it is in force, said that it is.
    pub nodes: Vec<Prepared>,
    /// From the flip to the last node's word, in ms.
    pub duration_ms: u64,
}

/// A node on which it arrived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prepared {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub address: String,
    /// ms after the flip.
    pub after_ms: u64,
}

/// A node that refuses it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeFailure {
    /// Its name.
    pub name: String,
    /// What it did not become there.
    pub stage: Stage,
    /// Why.
    pub reason: String,
}

/// Why nothing changed; or, for the last one, what is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is too large.
    #[error("{what} of {is} bytes; at most {most} are pushed")]
    TooLarge {
        /// `a component` or `a table of cases`
        what: &'static str,
        /// How large it is.
        is: usize,
        /// How large it may be.
        most: u64,
    },
    /// Another push is under way.
    #[error("another push is under way: nothing was changed; try again when it is done")]
    Busy,
    /// Its number is not greater.
    #[error(
        "its sequence number {sequence} is not greater than {current}, which is in force: sign it with a greater one"
    )]
    Backwards {
        /// That of the push.
        sequence: u64,
        /// That of what is in force.
        current: u64,
    },
    /// There is none that would be greater.
    #[error(
        "no number is greater than {current}, which was in force: `tidegate policy list` and the operations' manual say what can be done"
    )]
    NoNumber {
        /// The greatest of all.
        current: u64,
    },
    /// No node whose policy is the fleet's lives.
    #[error("no node lives whose policy is the fleet's (policy.source = \"fleet\")")]
    NoNodes,
    /// A node refuses it.
    #[error("{}; nothing was changed anywhere", refusals(.0))]
    Refused(Vec<NodeFailure>),
    /// A node says nothing.
    #[error("after {within:?} it is not prepared on {}; nothing was changed anywhere", nodes.join(", "))]
    Slow {
        /// How long was waited.
        within: Duration,
        /// On which nodes.
        nodes: Vec<String>,
    },
    /// Something else was put in force.
    #[error(
        "another push was quicker: what is in force is not what was when this one began; nothing was changed by it"
    )]
    Moved,
    /// The candidate or a blob expired.
    #[error("the store forgot this push before it was done; nothing was changed: try again")]
    Lost,
    /// It was in force, and is no longer what the store says.
    #[error("it was put in force, and then {}", replaced(*.0))]
    Replaced(Option<u64>),
    /// The store was away at the flip, or behind it.
    #[error(
        "the store did not answer when this was put in force: `tidegate policy status` says whether it is, and where: {0}"
    )]
    Unknown(#[source] StoreError),
    /// It is in force, and not everywhere.
    #[error("it is in force, but after {within:?} not on {}", nodes.join(", "))]
    Behind {
        /// How long was waited.
        within: Duration,
        /// On which nodes, with what they say.
        nodes: Vec<String>,
    },
}

fn replaced(by: Option<u64>) -> String {
    by.map_or_else(
        || "the store lost it; nodes that heard of it have it: push it again".into(),
        |number| format!("another push, number {number}"),
    )
}

/// A reason is told once, however many nodes have it.
fn refusals(nodes: &[NodeFailure]) -> String {
    let mut reasons: Vec<(Vec<&str>, &NodeFailure)> = Vec::new();
    for by in nodes {
        match reasons.iter_mut().find(|(_, same)| (same.stage, &same.reason) == (by.stage, &by.reason)) {
            Some((names, _)) => names.push(&by.name),
            None => reasons.push((vec![&by.name], by)),
        }
    }
    let say = |(names, by): &(Vec<&str>, &NodeFailure)| {
        let stage = serde_json::to_value(by.stage).ok();
        let stage = stage.as_ref().and_then(|stage| stage.as_str()).unwrap_or_default().to_owned();
        let who = match &**names {
            [name] => format!("node {name} refuses"),
            names => format!("nodes {} refuse", names.join(", ")),
        };
        format!("{who} it (not {stage}): {}", by.reason)
    };
    reasons.iter().map(say).collect::<Vec<_>>().join("; ")
}

/// Takes a bundle to every node that lives, and puts it in force everywhere or nowhere.
pub async fn push(store: &dyn FleetStore, bundle: Bundle, how: PushOptions) -> Result<Pushed, PushError> {
    let was = store.active().await?;
    let pointer = pointer_of(store, &bundle, how.rollback_of).await?;
    if let Some(current) = was.as_deref().and_then(|note| record::parse::<ActiveRecord>(note).ok())
        && pointer.sequence <= current.sequence
    {
        return Err(PushError::Backwards { sequence: pointer.sequence, current: current.sequence });
    }
    if !how.untried && nodes(store).await?.iter().all(|node| !node.fleet_managed) {
        return Err(PushError::NoNodes);
    }
    let hex = put_blobs(store, &pointer, &bundle).await?;
    let candidate = record::note(&PendingPush { pointer: pointer.clone() });
    if !store.set_pending(&candidate, CANDIDATE).await? {
        return Err(PushError::Busy);
    }
    let prepared = prepared(store, &pointer, &candidate, how).await;
    if how.dry_run || prepared.is_err() {
        // What does not go now expires.
        let withdrawn = store.remove_pending(&candidate).await;
        let nodes = prepared?;
        withdrawn?;
        let arrived = |node: NodeStatus| Prepared { name: node.name, address: node.address, after_ms: 0 };
        return Ok(Pushed {
            pointer,
            activated: false,
            nodes: nodes.into_iter().map(arrived).collect(),
            duration_ms: 0,
        });
    }
    let flip = Instant::now();
    let ended_shadow = ended_by(store, &pointer).await?;
    let record = record::note(&pointer);
    let commit = Commit {
        expected_active: was.as_deref(),
        pending: &candidate,
        record: &record,
        ended_shadow: ended_shadow.as_deref(),
        blobs: &hex,
    };
    match store.commit(commit).await.map_err(PushError::Unknown)? {
        CommitOutcome::Committed => arrive(store, pointer, flip, how.timeout).await,
        CommitOutcome::Conflict => {
            store.remove_pending(&candidate).await?;
            Err(PushError::Moved)
        }
        CommitOutcome::Expired | CommitOutcome::BlobMissing => Err(PushError::Lost),
    }
}

/// The note to be taken away when this takes force: a candidate that is in force is none.
async fn ended_by(store: &dyn FleetStore, pointer: &ActiveRecord) -> Result<Option<Vec<u8>>, StoreError> {
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

/// Stores what a pointer points to, for a while. Returns what it is called there.
pub(super) async fn put_blobs(
    store: &dyn FleetStore,
    pointer: &ActiveRecord,
    bundle: &Bundle,
) -> Result<Vec<String>, StoreError> {
    let hex: Vec<String> = pointer.blobs().iter().map(Digest::hex).collect();
    let contents = [Some(&*bundle.component), bundle.cases.as_deref().map(str::as_bytes)];
    for (hex, content) in hex.iter().zip(contents.into_iter().flatten()) {
        store.put_blob(hex, content, BLOBS).await?;
    }
    Ok(hex)
}

/// The pointer to a bundle, under its own number or the next one.
pub(super) async fn pointer_of(
    store: &dyn FleetStore,
    bundle: &Bundle,
    rollback_of: Option<u64>,
) -> Result<ActiveRecord, PushError> {
    let too_large = |what, is: usize, most: u64| {
        if is as u64 > most { Err(PushError::TooLarge { what, is, most }) } else { Ok(()) }
    };
    too_large("a component", bundle.component.len(), MAX_SIZE)?;
    too_large("a table of cases", bundle.cases.as_ref().map_or(0, String::len), MAX_CASES as u64)?;
    let sequence = match &bundle.signature {
        Some(signature) => signature.statement().sequence,
        None => FleetStatus::of(store).await?.next_sequence,
    };
    if sequence > MAX_SEQUENCE {
        return Err(PushError::NoNumber { current: MAX_SEQUENCE });
    }
    let Statement { component, cases, .. } = Statement::of(&bundle.component, bundle.cases.as_deref(), sequence);
    let (signature, pushed_at, push_id) = (bundle.signature.clone(), now_ms(), PushId::new());
    Ok(ActiveRecord { sequence, component, cases, signature, pushed_at, push_id, rollback_of })
}

/// Waits until every node that lives has prepared it.
async fn prepared(
    store: &dyn FleetStore,
    pointer: &ActiveRecord,
    candidate: &str,
    how: PushOptions,
) -> Result<Vec<NodeStatus>, PushError> {
    let within = how.timeout;
    let (end, mut renewed) = (Instant::now() + within, Instant::now());
    loop {
        let live: Vec<NodeStatus> = nodes(store).await?.into_iter().filter(|node| node.fleet_managed).collect();
        let names: Vec<&str> = live.iter().map(|node| &*node.name).collect();
        let reports = store.reports(pointer.push_id.as_str(), &names).await?;
        let (mut refused, mut waiting) = (Vec::new(), Vec::new());
        for (node, report) in live.iter().zip(reports) {
            let report = report.and_then(|note| record::parse::<PrepareReport>(&note).ok());
            match report.filter(|report| report.instance == node.instance) {
                None => waiting.push(node.name.clone()),
                Some(PrepareReport { failure: None, .. }) => {}
                Some(PrepareReport { failure: Some(why), .. }) => {
                    refused.push(NodeFailure { name: node.name.clone(), stage: why.stage, reason: short(&why.reason) });
                }
            }
        }
        // Those that are not done yet would say no more that matters.
        if !refused.is_empty() {
            return Err(PushError::Refused(refused));
        }
        if waiting.is_empty() {
            // A store that lost its nodes has lost the candidate as well; and they may all have gone.
            if !store.renew_pending(candidate, CANDIDATE).await? {
                return Err(PushError::Lost);
            }
            return if live.is_empty() && !how.untried { Err(PushError::NoNodes) } else { Ok(live) };
        }
        if Instant::now() >= end {
            return Err(PushError::Slow { within, nodes: waiting });
        }
        if renewed.elapsed() > RENEW {
            renewed = Instant::now();
            if !store.renew_pending(candidate, CANDIDATE).await? {
                return Err(PushError::Lost);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until every node that lives says that it is in force.
async fn arrive(
    store: &dyn FleetStore,
    pointer: ActiveRecord,
    flip: Instant,
    within: Duration,
) -> Result<Pushed, PushError> {
    let (mut arrived, mut away): (Vec<Prepared>, Option<StoreError>) = (Vec::new(), None);
    let after = || u64::try_from(flip.elapsed().as_millis()).unwrap_or(u64::MAX);
    loop {
        let asked = async { Ok::<_, StoreError>((nodes(store).await?, current(store).await?)) };
        let (live, now) = match asked.await {
            Ok(asked) => asked,
            // It was flipped: a store that is away for a moment is no reason to say otherwise.
            Err(error) if flip.elapsed() > within => return Err(PushError::Unknown(away.unwrap_or(error))),
            Err(error) => {
                away.get_or_insert(error);
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        let live: Vec<NodeStatus> = live.into_iter().filter(|node| node.fleet_managed).collect();
        // Whoever has not heard of it will not any more.
        if now.as_ref().map(|now| &now.push_id) != Some(&pointer.push_id) {
            return Err(PushError::Replaced(now.map(|now| now.sequence)));
        }
        let (there, waiting): (Vec<NodeStatus>, Vec<NodeStatus>) =
            live.into_iter().partition(|node| node.push_id.as_ref() == Some(&pointer.push_id));
        for node in there {
            if arrived.iter().all(|known| known.name != node.name) {
                arrived.push(Prepared { name: node.name, address: node.address, after_ms: after() });
            }
        }
        if waiting.is_empty() {
            arrived.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(Pushed { pointer, activated: true, nodes: arrived, duration_ms: after() });
        }
        if flip.elapsed() > within {
            let say = |node: NodeStatus| match node.error {
                Some(error) => format!("{} ({error})", node.name),
                None => node.name,
            };
            return Err(PushError::Behind { within, nodes: waiting.into_iter().map(say).collect() });
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::node_status::test_status;
    use crate::fleet::record::PrepareFailure;
    use crate::store::memory::fleet::MemoryFleetStore;

    #[test]
    fn what_all_nodes_say_is_told_once() {
        let by = |name: &str, stage, why: &str| NodeFailure { name: name.into(), stage, reason: why.into() };
        let told = |refused: Vec<NodeFailure>| PushError::Refused(refused).to_string();
        let unsigned = |name| by(name, Stage::Verified, "it is not signed");
        assert_eq!(
            told(vec![unsigned("a")]),
            "node a refuses it (not verified): it is not signed; nothing was changed anywhere"
        );
        assert_eq!(
            told(vec![
                unsigned("a"),
                by("b", Stage::Tested, "it is not signed"),
                unsigned("c"),
                by("d", Stage::Verified, "x")
            ]),
            "nodes a, c refuse it (not verified): it is not signed; node b refuses it (not tested): it is not signed; node d \
             refuses it (not verified): x; nothing was changed anywhere"
        );
    }

    /// What a node of the test does with a push.
    #[derive(Clone)]
    enum Behaviour {
        Prepares,
        Fails(PrepareFailure),
        /// Another push is committed while this one is prepared.
        ReplacesActive(String),
    }

    /// Sends heartbeats as a node does: prepares what is pending, and activates what is active.
    async fn run_node(store: MemoryFleetStore, name: &'static str, behaviour: Behaviour) {
        let mut status = test_status(name);
        loop {
            let heartbeat = store.heartbeat(name, &record::note(&status), Duration::from_secs(5), 0).await;
            let reply = heartbeat.expect("the store is available");
            if let Some(pending) = reply.pending.expect("it can be read") {
                let PendingPush { pointer } = record::parse(&pending).expect("a pending push");
                let failure = match &behaviour {
                    Behaviour::Prepares => None,
                    Behaviour::Fails(failure) => Some(failure.clone()),
                    Behaviour::ReplacesActive(other) => {
                        store.replace_active(other);
                        None
                    }
                };
                let report = PrepareReport { instance: status.instance.clone(), failure };
                let reported = store.report(pointer.push_id.as_str(), name, &record::note(&report)).await;
                reported.expect("the store is available");
            }
            let active = reply.active.expect("it can be read");
            status.push_id = active.and_then(|active| Some(record::parse::<ActiveRecord>(&active).ok()?.push_id));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn fleet_of(nodes: &[(&'static str, Behaviour)]) -> (MemoryFleetStore, tokio::task::JoinSet<()>) {
        let (store, mut tasks) = (MemoryFleetStore::default(), tokio::task::JoinSet::new());
        for (name, behaviour) in nodes {
            tasks.spawn(run_node(store.clone(), name, behaviour.clone()));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        (store, tasks)
    }

    async fn push_component(store: &MemoryFleetStore, component: &str) -> Result<Pushed, PushError> {
        let bundle = Bundle { component: component.into(), cases: None, signature: None };
        let timeout = Duration::from_secs(10);
        push(store, bundle, PushOptions { dry_run: false, timeout, untried: false, rollback_of: None }).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_is_committed_after_all_nodes_have_prepared_it() {
        let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares), ("b", Behaviour::Prepares)]).await;
        for (component, sequence) in [("first", 1), ("second", 2)] {
            let pushed = push_component(&store, component).await.expect("pushed");
            let names: Vec<&str> = pushed.nodes.iter().map(|node| &*node.name).collect();
            assert_eq!((pushed.activated, names, pushed.pointer.sequence), (true, vec!["a", "b"], sequence));
            assert_eq!(current(&store).await.expect("read"), Some(pushed.pointer.clone()));
            assert_eq!(store.pending(), None, "the commit removes the pending push");
            let bundle = pushed.pointer.fetch(&store).await.expect("its blobs are stored");
            assert_eq!(&*bundle.component, component.as_bytes());
        }
        assert_eq!(FleetStatus::of(&store).await.expect("read").history.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_that_one_node_cannot_prepare_changes_nothing() {
        let failure = PrepareFailure { stage: Stage::Tested, reason: "a test case failed".into() };
        let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares), ("b", Behaviour::Fails(failure))]).await;
        let error = push_component(&store, "component").await.expect_err("b cannot prepare it");
        let PushError::Refused(failures) = error else { panic!("{error}") };
        let failures: Vec<(&str, Stage)> = failures.iter().map(|failure| (&*failure.name, failure.stage)).collect();
        assert_eq!(failures, [("b", Stage::Tested)]);
        assert_eq!((current(&store).await.expect("read"), store.pending()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_does_not_replace_one_that_was_committed_meanwhile() {
        let other = "another push".to_owned();
        let (store, _nodes) = fleet_of(&[("a", Behaviour::ReplacesActive(other.clone()))]).await;
        let error = push_component(&store, "component").await.expect_err("another push was committed");
        assert!(matches!(error, PushError::Moved), "{error}");
        assert_eq!(store.active().await.expect("read"), Some(other.into_bytes()));
        assert_eq!(store.pending(), None, "the push is withdrawn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_without_a_live_node_is_refused() {
        let error = push_component(&MemoryFleetStore::default(), "component").await.expect_err("no node");
        assert!(matches!(error, PushError::NoNodes), "{error}");
    }
}
