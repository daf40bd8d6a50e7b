//! A push: all live nodes prepare the policy, then the push is committed once, or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::artifact::digest::Digest;
use crate::artifact::signature::key::TrustedKeys;
use crate::artifact::signature::{MAX_SEQUENCE, Signature, Statement};
use crate::fleet::node_status::{NodeStatus, managed_nodes};
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, PendingPush, PrepareReport, PushId, ShadowPush, active, stage_error};
use crate::fleet::status::FleetStatus;
use crate::rollout::pipeline::MAX_CASES;
use crate::rollout::stage::StageError;
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
/// Life of blobs that neither the history nor the shadow record keeps: of a push before its commit, and of a removed shadow policy.
pub(super) const BLOB_EXPIRY: Duration = Duration::from_secs(3600);

/// The policy to push.
#[derive(Clone, Debug)]
pub struct Bundle {
    pub component: Vec<u8>,
    pub cases: Option<String>,
    pub signature: Option<Signature>,
}

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
    pub record: ActiveRecord,
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
    pub name: String,
    /// The address that clients connect to.
    pub address: String,
    /// Time from the commit to its heartbeat with this push, in ms.
    pub after_ms: u64,
}

/// A node that cannot prepare the policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeFailure {
    pub name: String,
    #[serde(flatten)]
    pub failure: StageError,
}

/// Why a push failed. Only `Replaced`, `CommitLost`, `CommitUnknown` and `ActivationTimeout` can follow a commit.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{what} of {bytes} bytes; at most {max_bytes} are pushed")]
    TooLarge {
        /// `a component` or `a table of cases`
        what: &'static str,
        bytes: usize,
        max_bytes: u64,
    },
    #[error("another push is in progress: nothing was changed; try again when it is done")]
    InProgress,
    #[error("its sequence number {sequence} is not greater than {current}, the active one: sign it with a greater one")]
    SequenceNotIncreasing {
        /// The sequence of the push.
        sequence: u64,
        /// The active sequence.
        current: u64,
    },
    #[error(
        "no sequence is greater than {MAX_SEQUENCE}, the sequence of an activated policy: see `tidegate policy list`"
    )]
    SequencesExhausted,
    #[error("the fleet manages the policy of no live node: set policy.source = \"fleet\" on its nodes")]
    NoNodes,
    #[error("{}; nothing was changed anywhere", describe_failures(.0))]
    PrepareFailed(Vec<NodeFailure>),
    #[error("after {timeout:?} it is not prepared on {}; nothing was changed anywhere", nodes.join(", "))]
    PrepareTimeout { timeout: Duration, nodes: Vec<String> },
    #[error("another push was committed first: nothing was changed; try again to push on top of it")]
    Superseded,
    /// The pending record or a blob has expired.
    #[error("the store lost this push before the commit: nothing was changed; try again")]
    Expired,
    #[error("the push was committed, and then another push replaced it, sequence {0}")]
    Replaced(u64),
    #[error("the push was committed, and then the store lost it; some nodes may have activated it: push it again")]
    CommitLost,
    /// The store did not answer at the commit or after it.
    #[error(
        "the store did not answer to the commit: `tidegate policy status` shows whether the policy is active, and where: {0}"
    )]
    CommitUnknown(#[source] StoreError),
    #[error("the push is committed, but after {timeout:?} the policy is not active on {}", nodes.join(", "))]
    ActivationTimeout {
        timeout: Duration,
        /// The names of the nodes, with their errors.
        nodes: Vec<String>,
    },
}

/// Names each failure once, with all nodes that have it.
fn describe_failures(nodes: &[NodeFailure]) -> String {
    let mut failures: Vec<(Vec<&str>, &StageError)> = Vec::new();
    for NodeFailure { name, failure } in nodes {
        match failures.iter_mut().find(|(_, known)| *known == failure) {
            Some((names, _)) => names.push(name),
            None => failures.push((vec![name], failure)),
        }
    }
    let describe = |(names, failure): &(Vec<&str>, &StageError)| {
        let nodes = match &**names {
            [name] => format!("node {name} refuses"),
            names => format!("nodes {} refuse", names.join(", ")),
        };
        format!("{nodes} it (not {}): {}", failure.stage.as_str(), failure.reason)
    };
    failures.iter().map(describe).collect::<Vec<_>>().join("; ")
}

/// Pushes a policy to all live nodes: all of them activate it, or none. The sequence has to be greater than that of the active record, if
/// one of these keys signed that record; a forged record must not prevent the push. The nodes check the sequence in any case.
pub async fn push(
    store: &dyn FleetStore,
    keys: &TrustedKeys,
    bundle: Bundle,
    options: PushOptions,
) -> Result<Pushed, PushError> {
    let expected = store.active().await?;
    let record = next_record(store, &bundle, options.rollback_of).await?;
    if let Some(current) = expected.as_deref().and_then(|json| record::parse::<ActiveRecord>(json).ok())
        && record.sequence <= current.sequence
        && current.prove(keys).is_ok()
    {
        return Err(PushError::SequenceNotIncreasing { sequence: record.sequence, current: current.sequence });
    }
    if !options.allow_no_nodes && managed_nodes(store).await?.is_empty() {
        return Err(PushError::NoNodes);
    }
    store.forget_expired_nodes().await?;
    let blobs = store_blobs(store, &record, &bundle).await?;
    let pending = record::to_json(&PendingPush { record: record.clone() });
    if !store.set_pending(&pending, PENDING_EXPIRY).await? {
        return Err(PushError::InProgress);
    }
    let prepared = wait_prepared(store, &record, &pending, options).await;
    if options.dry_run || prepared.is_err() {
        // A pending record that cannot be removed now expires.
        let withdrawn = store.remove_pending(&pending).await;
        let nodes = prepared?;
        withdrawn?;
        let prepared_node = |node: NodeStatus| ActivatedNode { name: node.name, address: node.address, after_ms: 0 };
        let nodes = nodes.into_iter().map(prepared_node).collect();
        return Ok(Pushed { record, activated: false, nodes, duration_ms: 0 });
    }
    let committed_at = Instant::now();
    let ended_shadow = ended_shadow(store, &record).await?;
    let commit = Commit {
        expected_active: expected.as_deref(),
        pending: &pending,
        record: &record::to_json(&record),
        ended_shadow: ended_shadow.as_deref(),
        blobs: &blobs,
    };
    match store.commit(commit).await.map_err(PushError::CommitUnknown)? {
        CommitOutcome::Committed => wait_activated(store, record, committed_at, options.timeout).await,
        CommitOutcome::Conflict => {
            store.remove_pending(&pending).await?;
            Err(PushError::Superseded)
        }
        CommitOutcome::Expired | CommitOutcome::BlobMissing => Err(PushError::Expired),
    }
}

/// The shadow record to remove with the commit of a push: a policy that becomes active is not a shadow policy any more.
async fn ended_shadow(store: &dyn FleetStore, record: &ActiveRecord) -> Result<Option<Vec<u8>>, StoreError> {
    let is_same = |shadow: &Vec<u8>| {
        record::parse::<ShadowPush>(shadow).is_ok_and(|shadow| shadow.record.blobs() == record.blobs())
    };
    match store.shadow().await {
        // A value of another type is not a shadow record, and does not concern the push.
        Err(StoreError::WrongType) => Ok(None),
        shadow => Ok(shadow?.filter(is_same)),
    }
}

/// Stores the blobs of a record. Returns their digests, in hexadecimal digits.
pub(super) async fn store_blobs(
    store: &dyn FleetStore,
    record: &ActiveRecord,
    bundle: &Bundle,
) -> Result<Vec<String>, StoreError> {
    let digests: Vec<String> = record.blobs().iter().map(Digest::hex).collect();
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
    for (what, bytes, max_bytes) in [
        ("a component", bundle.component.len(), MAX_COMPONENT_BYTES),
        ("a table of cases", bundle.cases.as_ref().map_or(0, String::len), MAX_CASES as u64),
    ] {
        if bytes as u64 > max_bytes {
            return Err(PushError::TooLarge { what, bytes, max_bytes });
        }
    }
    let sequence = match &bundle.signature {
        Some(signature) => signature.statement().sequence,
        None => FleetStatus::of(store).await?.next_sequence(&TrustedKeys::default()).sequence,
    };
    if sequence > MAX_SEQUENCE {
        return Err(PushError::SequencesExhausted);
    }
    let Statement { component, cases, .. } = Statement::of(&bundle.component, bundle.cases.as_deref(), sequence);
    let (signature, pushed_at, push_id) = (bundle.signature.clone(), now_ms(), PushId::new());
    Ok(ActiveRecord { sequence, component, cases, signature, pushed_at, push_id, rollback_of })
}

/// Waits until every live node has prepared the policy.
async fn wait_prepared(
    store: &dyn FleetStore,
    record: &ActiveRecord,
    pending: &str,
    options: PushOptions,
) -> Result<Vec<NodeStatus>, PushError> {
    let (start, mut renewed_at) = (Instant::now(), Instant::now());
    loop {
        let live = managed_nodes(store).await?;
        let names: Vec<&str> = live.iter().map(|node| &*node.name).collect();
        let reports = store.reports(record.push_id.as_str(), &names).await?;
        let (mut failures, mut waiting) = (Vec::new(), Vec::new());
        for (node, report) in live.iter().zip(reports) {
            let report = report.and_then(|json| record::parse::<PrepareReport>(&json).ok());
            match report.filter(|report| report.instance == node.instance) {
                None => waiting.push(node.name.clone()),
                Some(PrepareReport { failure: None, .. }) => {}
                Some(PrepareReport { failure: Some(failure), .. }) => {
                    let failure = stage_error(failure.stage, failure.reason);
                    failures.push(NodeFailure { name: node.name.clone(), failure });
                }
            }
        }
        // One failure is enough to end the push, so it does not wait for the other nodes.
        if !failures.is_empty() {
            return Err(PushError::PrepareFailed(failures));
        }
        if waiting.is_empty() || renewed_at.elapsed() > RENEW_INTERVAL {
            renewed_at = Instant::now();
            // If there is no node left, the store may have lost its data, and the pending record with it.
            if !store.renew_pending(pending, PENDING_EXPIRY).await? {
                return Err(PushError::Expired);
            }
        }
        if waiting.is_empty() {
            return if live.is_empty() && !options.allow_no_nodes { Err(PushError::NoNodes) } else { Ok(live) };
        }
        if start.elapsed() >= options.timeout {
            return Err(PushError::PrepareTimeout { timeout: options.timeout, nodes: waiting });
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until every live node has activated the policy.
async fn wait_activated(
    store: &dyn FleetStore,
    record: ActiveRecord,
    committed_at: Instant,
    timeout: Duration,
) -> Result<Pushed, PushError> {
    let mut activated = BTreeMap::new();
    let elapsed_ms = || u64::try_from(committed_at.elapsed().as_millis()).unwrap_or(u64::MAX);
    loop {
        let read = async { Ok::<_, StoreError>((managed_nodes(store).await?, active(store).await?)) };
        let is_over = committed_at.elapsed() > timeout;
        match read.await {
            // The push is committed: a short outage of the store does not change that.
            Err(error) if is_over => return Err(PushError::CommitUnknown(error)),
            Err(_) => {}
            // A node that has not read the record yet will not read it any more.
            Ok((_, None)) => return Err(PushError::CommitLost),
            Ok((_, Some(active))) if active.push_id != record.push_id => {
                return Err(PushError::Replaced(active.sequence));
            }
            Ok((live, _)) => {
                let (done, waiting): (Vec<NodeStatus>, Vec<NodeStatus>) =
                    live.into_iter().partition(|node| node.push_id.as_ref() == Some(&record.push_id));
                for NodeStatus { name, address, .. } in done {
                    let node = || ActivatedNode { name: name.clone(), address, after_ms: elapsed_ms() };
                    activated.entry(name.clone()).or_insert_with(node);
                }
                if waiting.is_empty() {
                    let nodes = activated.into_values().collect();
                    return Ok(Pushed { record, activated: true, nodes, duration_ms: elapsed_ms() });
                }
                if is_over {
                    let describe = |node: NodeStatus| match node.error {
                        Some(error) => format!("{} ({error})", node.name),
                        None => node.name,
                    };
                    let nodes = waiting.into_iter().map(describe).collect();
                    return Err(PushError::ActivationTimeout { timeout, nodes });
                }
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::node_status::fixtures::test_status;
    use crate::rollout::stage::Stage;
    use crate::store::fleet::tests::MemoryFleetStore;

    #[test]
    fn failure_of_several_nodes_is_described_once() {
        let failure = |name: &str, stage, reason: &str| NodeFailure {
            name: name.into(),
            failure: StageError { stage, reason: reason.into() },
        };
        let text = |failures: Vec<NodeFailure>| PushError::PrepareFailed(failures).to_string();
        let unsigned = |name| failure(name, Stage::Verified, "it is not signed");
        assert_eq!(
            text(vec![unsigned("a")]),
            "node a refuses it (not verified): it is not signed; nothing was changed anywhere"
        );
        assert_eq!(
            text(vec![
                unsigned("a"),
                failure("b", Stage::Tested, "it is not signed"),
                unsigned("c"),
                failure("d", Stage::Verified, "x")
            ]),
            "nodes a, c refuse it (not verified): it is not signed; node b refuses it (not tested): it is not signed; node d \
             refuses it (not verified): x; nothing was changed anywhere"
        );
    }

    /// What a node of the test does with a push.
    #[derive(Clone)]
    enum Behaviour {
        Prepares,
        Fails(StageError),
        /// Another push is committed while this one is prepared.
        ReplacesActive(String),
    }

    /// Sends heartbeats as a node does: prepares the pending policy, and activates that of the active record.
    async fn run_node(store: MemoryFleetStore, name: &'static str, behaviour: Behaviour) {
        let mut status = test_status(name);
        loop {
            let heartbeat = store.heartbeat(name, &record::to_json(&status), Duration::from_secs(5), 0).await;
            let reply = heartbeat.expect("the store is available");
            if let Some(pending) = reply.pending.expect("it can be read") {
                let PendingPush { record } = record::parse(&pending).expect("a pending push");
                let failure = match &behaviour {
                    Behaviour::Prepares => None,
                    Behaviour::Fails(failure) => Some(failure.clone()),
                    Behaviour::ReplacesActive(other) => {
                        store.replace_active(other);
                        None
                    }
                };
                let report = PrepareReport { instance: status.instance.clone(), failure };
                let reported = store.report(record.push_id.as_str(), name, &record::to_json(&report)).await;
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
        let options = PushOptions { dry_run: false, timeout, allow_no_nodes: false, rollback_of: None };
        push(store, &TrustedKeys::default(), bundle, options).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_is_committed_after_all_nodes_have_prepared_it() {
        let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares), ("b", Behaviour::Prepares)]).await;
        for (component, sequence) in [("first", 1), ("second", 2)] {
            let pushed = push_component(&store, component).await.expect("pushed");
            let names: Vec<&str> = pushed.nodes.iter().map(|node| &*node.name).collect();
            assert_eq!((pushed.activated, names, pushed.record.sequence), (true, vec!["a", "b"], sequence));
            assert_eq!(active(&store).await.expect("read"), Some(pushed.record.clone()));
            assert_eq!(store.pending(), None, "the commit removes the pending push");
            let bundle = pushed.record.fetch(&store).await.expect("its blobs are stored");
            assert_eq!(&*bundle.component, component.as_bytes());
        }
        assert_eq!(FleetStatus::of(&store).await.expect("read").history.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_that_one_node_cannot_prepare_changes_nothing() {
        let failure = StageError { stage: Stage::Tested, reason: "a test case failed".into() };
        let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares), ("b", Behaviour::Fails(failure))]).await;
        let error = push_component(&store, "component").await.expect_err("b cannot prepare it");
        let PushError::PrepareFailed(failures) = error else { panic!("{error}") };
        let failures: Vec<(&str, Stage)> =
            failures.iter().map(|failure| (&*failure.name, failure.failure.stage)).collect();
        assert_eq!(failures, [("b", Stage::Tested)]);
        assert_eq!((active(&store).await.expect("read"), store.pending()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_does_not_replace_one_that_was_committed_meanwhile() {
        let other = "another push".to_owned();
        let (store, _nodes) = fleet_of(&[("a", Behaviour::ReplacesActive(other.clone()))]).await;
        let error = push_component(&store, "component").await.expect_err("another push was committed");
        assert!(matches!(error, PushError::Superseded), "{error}");
        assert_eq!(store.active().await.expect("read"), Some(other.into_bytes()));
        assert_eq!(store.pending(), None, "the push is withdrawn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_without_a_live_node_is_refused() {
        let error = push_component(&MemoryFleetStore::default(), "component").await.expect_err("no node");
        assert!(matches!(error, PushError::NoNodes), "{error}");
    }
}
