//! A push: all live nodes prepare the policy, then the push is committed once, or not at all.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::artifact::digest::Digest;
use crate::artifact::signature::{MAX_SEQUENCE, Signature, Statement};
use crate::fleet::node_status::{NodeStatus, live_nodes, truncate_error};
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, PendingPush, PrepareReport, PushId, ShadowPush, active};
use crate::fleet::status::FleetStatus;
use crate::rollout::pipeline::MAX_CASES;
use crate::rollout::stage::Stage;
use crate::store::StoreError;
use crate::store::fleet::{Commit, CommitOutcome, FleetStore};
use crate::util::clock::now_ms;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// Time between two reads of the nodes' reports.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// Life of the pending record, so that a push whose process died does not block others.
const PENDING_EXPIRY: Duration = Duration::from_secs(10);
/// Time between renewals of the pending record.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Life of the blobs of a push that is not committed.
const BLOB_EXPIRY: Duration = Duration::from_secs(3600);

/// The policy to push.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The component.
    pub component: Vec<u8>,
    /// Its test cases.
    pub cases: Option<String>,
    /// Its signature.
    pub signature: Option<Signature>,
}

/// Options of a push.
#[derive(Clone, Copy, Debug)]
pub struct PushOptions {
    /// Prepare only.
    pub dry_run: bool,
    /// Time limit for all nodes to prepare, and again for all to activate.
    pub timeout: Duration,
    /// Whether to commit even if no live node can prepare the policy.
    pub allow_no_nodes: bool,
    /// For a rollback: the sequence of the policy that it activates again.
    pub rollback_of: Option<u64>,
}

/// The result of a push.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pushed {
    /// The policy that was pushed.
    #[serde(flatten)]
    pub pointer: ActiveRecord,
    /// Whether it is active now; false for a dry run.
    pub activated: bool,
    /// The nodes that prepared the policy and, after a commit, have activated it.
    pub nodes: Vec<ActivatedNode>,
    /// Time from the commit to the last node's activation, in ms.
    pub duration_ms: u64,
}

/// A node that has activated the policy, or prepared it for a dry run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActivatedNode {
    /// Its name.
    pub name: String,
    /// The address that clients connect to.
    pub address: String,
    /// Time from the commit to its heartbeat with this push, in ms.
    pub after_ms: u64,
}

/// A node that cannot prepare the policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeFailure {
    /// Its name.
    pub name: String,
    /// The stage that failed.
    pub stage: Stage,
    /// The error.
    pub reason: String,
}

/// Why a push failed. Only `Replaced`, `Unknown` and `Behind` come after the commit.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The component or its cases are too large.
    #[error("{what} of {is} bytes; at most {most} are pushed")]
    TooLarge {
        /// `a component` or `a table of cases`
        what: &'static str,
        /// How large it is.
        is: usize,
        /// How large it may be.
        most: u64,
    },
    /// Another push is in progress.
    #[error("another push is in progress: nothing was changed; try again when it is done")]
    Busy,
    /// The sequence is not greater than the active one.
    #[error("its sequence number {sequence} is not greater than {current}, the active one: sign it with a greater one")]
    Backwards {
        /// The sequence of the push.
        sequence: u64,
        /// The active sequence.
        current: u64,
    },
    /// There is no greater sequence.
    #[error("no sequence is greater than {current}, the sequence of an activated policy: see `tidegate policy list`")]
    NoNumber {
        /// The greatest sequence.
        current: u64,
    },
    /// No live node takes its policy from the fleet.
    #[error("no node lives whose policy is the fleet's (policy.source = \"fleet\")")]
    NoNodes,
    /// Nodes cannot prepare the policy.
    #[error("{}; nothing was changed anywhere", refusals(.0))]
    Refused(Vec<NodeFailure>),
    /// Nodes have not reported in time.
    #[error("after {within:?} it is not prepared on {}; nothing was changed anywhere", nodes.join(", "))]
    Slow {
        /// The time limit.
        within: Duration,
        /// Their names.
        nodes: Vec<String>,
    },
    /// Another push was committed first.
    #[error("another push was committed first: nothing was changed; try again to push on top of it")]
    Moved,
    /// The pending record or a blob has expired.
    #[error("the store lost this push before the commit: nothing was changed; try again")]
    Lost,
    /// The push was committed, and then another record became the active one.
    #[error("the push was committed, and then {}", replaced(*.0))]
    Replaced(Option<u64>),
    /// The store did not answer at the commit or after it.
    #[error(
        "the store did not answer to the commit: `tidegate policy status` shows whether the policy is active, and where: {0}"
    )]
    Unknown(#[source] StoreError),
    /// Nodes have not activated the policy in time.
    #[error("the push is committed, but after {within:?} the policy is not active on {}", nodes.join(", "))]
    Behind {
        /// The time limit.
        within: Duration,
        /// Their names, and their errors.
        nodes: Vec<String>,
    },
}

fn replaced(by: Option<u64>) -> String {
    by.map_or_else(
        || "the store lost it; some nodes may have activated it: push it again".into(),
        |number| format!("another push replaced it, sequence {number}"),
    )
}

/// Names each reason once, with all nodes that have it.
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

/// Pushes a policy to all live nodes: all of them activate it, or none.
pub async fn push(store: &dyn FleetStore, bundle: Bundle, options: PushOptions) -> Result<Pushed, PushError> {
    let expected = store.active().await?;
    let pointer = next_record(store, &bundle, options.rollback_of).await?;
    if let Some(current) = expected.as_deref().and_then(|note| record::parse::<ActiveRecord>(note).ok())
        && pointer.sequence <= current.sequence
    {
        return Err(PushError::Backwards { sequence: pointer.sequence, current: current.sequence });
    }
    if !options.allow_no_nodes && live_nodes(store).await?.iter().all(|node| !node.fleet_managed) {
        return Err(PushError::NoNodes);
    }
    let blobs = store_blobs(store, &pointer, &bundle).await?;
    let pending = record::to_json(&PendingPush { pointer: pointer.clone() });
    if !store.set_pending(&pending, PENDING_EXPIRY).await? {
        return Err(PushError::Busy);
    }
    let prepared = wait_prepared(store, &pointer, &pending, options).await;
    if options.dry_run || prepared.is_err() {
        // A pending record that cannot be removed now expires.
        let withdrawn = store.remove_pending(&pending).await;
        let nodes = prepared?;
        withdrawn?;
        let prepared_node = |node: NodeStatus| ActivatedNode { name: node.name, address: node.address, after_ms: 0 };
        return Ok(Pushed {
            pointer,
            activated: false,
            nodes: nodes.into_iter().map(prepared_node).collect(),
            duration_ms: 0,
        });
    }
    let committed_at = Instant::now();
    let ended_shadow = ended_shadow(store, &pointer).await?;
    let record = record::to_json(&pointer);
    let commit = Commit {
        expected_active: expected.as_deref(),
        pending: &pending,
        record: &record,
        ended_shadow: ended_shadow.as_deref(),
        blobs: &blobs,
    };
    match store.commit(commit).await.map_err(PushError::Unknown)? {
        CommitOutcome::Committed => wait_activated(store, pointer, committed_at, options.timeout).await,
        CommitOutcome::Conflict => {
            store.remove_pending(&pending).await?;
            Err(PushError::Moved)
        }
        CommitOutcome::Expired | CommitOutcome::BlobMissing => Err(PushError::Lost),
    }
}

/// The shadow record to remove with the commit of a push: a policy that becomes active is not a shadow policy any more.
async fn ended_shadow(store: &dyn FleetStore, pointer: &ActiveRecord) -> Result<Option<Vec<u8>>, StoreError> {
    let is = |note: &Vec<u8>| {
        record::parse::<ShadowPush>(note).is_ok_and(|proposal| {
            (proposal.pointer.component, proposal.pointer.cases) == (pointer.component, pointer.cases)
        })
    };
    match store.shadow().await {
        // A value of another type is not a shadow record, and does not concern the push.
        Err(StoreError::WrongType) => Ok(None),
        note => Ok(note?.filter(is)),
    }
}

/// Stores the blobs of a record. Returns their digests, in hexadecimal digits.
pub(super) async fn store_blobs(
    store: &dyn FleetStore,
    pointer: &ActiveRecord,
    bundle: &Bundle,
) -> Result<Vec<String>, StoreError> {
    let digests: Vec<String> = pointer.blobs().iter().map(Digest::hex).collect();
    let contents = [Some(&*bundle.component), bundle.cases.as_deref().map(str::as_bytes)];
    for (hex, content) in digests.iter().zip(contents.into_iter().flatten()) {
        store.put_blob(hex, content, BLOB_EXPIRY).await?;
    }
    Ok(digests)
}

/// The record for a push of a bundle, with the signed sequence or the next one.
pub(super) async fn next_record(
    store: &dyn FleetStore,
    bundle: &Bundle,
    rollback_of: Option<u64>,
) -> Result<ActiveRecord, PushError> {
    let too_large = |what, is: usize, most: u64| {
        if is as u64 > most { Err(PushError::TooLarge { what, is, most }) } else { Ok(()) }
    };
    too_large("a component", bundle.component.len(), MAX_COMPONENT_BYTES)?;
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

/// Waits until every live node has prepared the policy.
async fn wait_prepared(
    store: &dyn FleetStore,
    pointer: &ActiveRecord,
    pending: &str,
    options: PushOptions,
) -> Result<Vec<NodeStatus>, PushError> {
    let within = options.timeout;
    let (end, mut renewed) = (Instant::now() + within, Instant::now());
    loop {
        let live: Vec<NodeStatus> = live_nodes(store).await?.into_iter().filter(|node| node.fleet_managed).collect();
        let names: Vec<&str> = live.iter().map(|node| &*node.name).collect();
        let reports = store.reports(pointer.push_id.as_str(), &names).await?;
        let (mut refused, mut waiting) = (Vec::new(), Vec::new());
        for (node, report) in live.iter().zip(reports) {
            let report = report.and_then(|note| record::parse::<PrepareReport>(&note).ok());
            match report.filter(|report| report.instance == node.instance) {
                None => waiting.push(node.name.clone()),
                Some(PrepareReport { failure: None, .. }) => {}
                Some(PrepareReport { failure: Some(why), .. }) => {
                    refused.push(NodeFailure {
                        name: node.name.clone(),
                        stage: why.stage,
                        reason: truncate_error(&why.reason),
                    });
                }
            }
        }
        // One failure is enough to end the push, so it does not wait for the other nodes.
        if !refused.is_empty() {
            return Err(PushError::Refused(refused));
        }
        if waiting.is_empty() {
            // If there is no node left, the store may have lost its data, and the pending record with it.
            if !store.renew_pending(pending, PENDING_EXPIRY).await? {
                return Err(PushError::Lost);
            }
            return if live.is_empty() && !options.allow_no_nodes { Err(PushError::NoNodes) } else { Ok(live) };
        }
        if Instant::now() >= end {
            return Err(PushError::Slow { within, nodes: waiting });
        }
        if renewed.elapsed() > RENEW_INTERVAL {
            renewed = Instant::now();
            if !store.renew_pending(pending, PENDING_EXPIRY).await? {
                return Err(PushError::Lost);
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until every live node has activated the policy.
async fn wait_activated(
    store: &dyn FleetStore,
    pointer: ActiveRecord,
    committed_at: Instant,
    within: Duration,
) -> Result<Pushed, PushError> {
    let (mut activated, mut store_error): (Vec<ActivatedNode>, Option<StoreError>) = (Vec::new(), None);
    let elapsed_ms = || u64::try_from(committed_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    loop {
        let read = async { Ok::<_, StoreError>((live_nodes(store).await?, active(store).await?)) };
        let (live, now) = match read.await {
            Ok(read) => read,
            // The push is committed: a short outage of the store does not change that.
            Err(error) if committed_at.elapsed() > within => {
                return Err(PushError::Unknown(store_error.unwrap_or(error)));
            }
            Err(error) => {
                store_error.get_or_insert(error);
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
        };
        let live: Vec<NodeStatus> = live.into_iter().filter(|node| node.fleet_managed).collect();
        // A node that has not read the record yet will not read it any more.
        if now.as_ref().map(|now| &now.push_id) != Some(&pointer.push_id) {
            return Err(PushError::Replaced(now.map(|now| now.sequence)));
        }
        let (done, waiting): (Vec<NodeStatus>, Vec<NodeStatus>) =
            live.into_iter().partition(|node| node.push_id.as_ref() == Some(&pointer.push_id));
        for node in done {
            if activated.iter().all(|known| known.name != node.name) {
                activated.push(ActivatedNode { name: node.name, address: node.address, after_ms: elapsed_ms() });
            }
        }
        if waiting.is_empty() {
            activated.sort_by(|a, b| a.name.cmp(&b.name));
            return Ok(Pushed { pointer, activated: true, nodes: activated, duration_ms: elapsed_ms() });
        }
        if committed_at.elapsed() > within {
            let describe = |node: NodeStatus| match node.error {
                Some(error) => format!("{} ({error})", node.name),
                None => node.name,
            };
            return Err(PushError::Behind { within, nodes: waiting.into_iter().map(describe).collect() });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::node_status::test_status;
    use crate::fleet::record::PrepareFailure;
    use crate::store::fleet::tests::MemoryFleetStore;

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
            let heartbeat = store.heartbeat(name, &record::to_json(&status), Duration::from_secs(5), 0).await;
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
                let reported = store.report(pointer.push_id.as_str(), name, &record::to_json(&report)).await;
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
        push(store, bundle, PushOptions { dry_run: false, timeout, allow_no_nodes: false, rollback_of: None }).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_is_committed_after_all_nodes_have_prepared_it() {
        let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares), ("b", Behaviour::Prepares)]).await;
        for (component, sequence) in [("first", 1), ("second", 2)] {
            let pushed = push_component(&store, component).await.expect("pushed");
            let names: Vec<&str> = pushed.nodes.iter().map(|node| &*node.name).collect();
            assert_eq!((pushed.activated, names, pushed.pointer.sequence), (true, vec!["a", "b"], sequence));
            assert_eq!(active(&store).await.expect("read"), Some(pushed.pointer.clone()));
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
        assert_eq!((active(&store).await.expect("read"), store.pending()), (None, None));
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
