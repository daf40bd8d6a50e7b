//! A push: all live nodes prepare the policy, then the push is committed once, or not at all.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::artifact::digest::Digest;
use crate::artifact::signature::key::TrustedKeys;
use crate::artifact::signature::{MAX_SEQUENCE, Signature, Statement};
use crate::fleet::commit::{PreparedPush, StoreOutage};
use crate::fleet::heartbeat::HEARTBEAT_INTERVAL;
use crate::fleet::node_status::{NodeStatus, managed_nodes};
pub(super) use crate::fleet::push_result::POLL_INTERVAL;
pub use crate::fleet::push_result::{ActivatedNode, NodeFailure, PushError, Pushed};
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, PendingPush, PrepareReport, PushId, ShadowPush, stage_error};
use crate::fleet::status::FleetStatus;
use crate::rollout::pipeline::MAX_CASES;
use crate::store::StoreError;
use crate::store::fleet::{Commit, FleetStore};
use crate::util::clock::now_ms;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// Life of the pending record, so that a push whose process died does not block others.
const PENDING_EXPIRY: Duration = Duration::from_secs(10);
/// Time between renewals of the pending record.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// The part of the time limit of a push that is left for the commit and the activation: a quarter, and at most this time.
const COMMIT_SHARE: u32 = 4;
const MAX_COMMIT_TIME: Duration = Duration::from_secs(15);
/// Time to remove the pending record of a push that is given up.
const WITHDRAW_TIME: Duration = Duration::from_secs(1);
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
    /// Time limit of the whole push.
    pub timeout: Duration,
    /// Whether to commit even if no live node can prepare the policy.
    pub allow_no_nodes: bool,
    /// For a rollback: the sequence of the policy that it activates again.
    pub rollback_of: Option<u64>,
}

/// Pushes a policy to all live nodes: all of them activate it, or none. The sequence has to be greater than that of the active record, if
/// one of these keys signed that record; a forged record must not prevent the push. The nodes check the sequence in any case.
///
/// It ends within the timeout: the last part of it, at most [`MAX_COMMIT_TIME`], is left for the commit and the activation.
pub async fn push(
    store: &dyn FleetStore,
    keys: &TrustedKeys,
    bundle: Bundle,
    options: PushOptions,
) -> Result<Pushed, PushError> {
    let deadline = Instant::now() + options.timeout;
    let commit_time = (options.timeout / COMMIT_SHARE).min(MAX_COMMIT_TIME);
    let prepare_time = options.timeout.saturating_sub(if options.dry_run { Duration::ZERO } else { commit_time });
    let prepare = Prepare { store, keys, options, prepare_time, until: Instant::now() + prepare_time };
    let (record, expected, pending, blobs) = prepare.begin(&bundle).await?;
    let push = PreparedPush { store, record, pending: &pending, timeout: options.timeout, deadline };
    let prepared = prepare.wait_prepared(&push.record, &pending).await;
    if options.dry_run || prepared.is_err() {
        // There is little time left, if any; a pending record that cannot be removed expires.
        let deadline = Instant::now() + WITHDRAW_TIME.min(commit_time);
        let push = PreparedPush { deadline, ..push };
        push.withdraw().await;
        let prepared_node = |node: NodeStatus| ActivatedNode { name: node.name, address: node.address, after_ms: 0 };
        let nodes = prepared?.into_iter().map(prepared_node).collect();
        return Ok(Pushed { record: push.record, activated: false, nodes, duration_ms: 0, not_replicated: false });
    }
    let ended_shadow = prepare.bounded(ended_shadow(store, &push.record)).await;
    let ended_shadow = match ended_shadow {
        Ok(ended_shadow) => ended_shadow,
        Err(error) => {
            push.withdraw().await;
            return Err(error);
        }
    };
    let record = record::to_json(&push.record);
    let commit = Commit {
        expected_active: expected.as_deref(),
        pending: &pending,
        record: &record,
        ended_shadow: ended_shadow.as_deref(),
        blobs: &blobs,
    };
    push.commit(commit).await
}

/// The record of a push, the active record that it replaces, the pending record, and the digests of its blobs.
type BegunPush = (ActiveRecord, Option<Vec<u8>>, String, Vec<String>);

/// The part of a push before the commit. What fails here changes nothing.
struct Prepare<'a> {
    store: &'a dyn FleetStore,
    keys: &'a TrustedKeys,
    options: PushOptions,
    /// The time limit of this part, for messages, and its end.
    prepare_time: Duration,
    until: Instant,
}

impl Prepare<'_> {
    /// Awaits an operation of the store until the end of this part.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, PushError> {
        let done = timeout_at(self.until, work).await;
        done.map_err(|_| PushError::StoreTimeout(self.prepare_time))?.map_err(PushError::NotCommitted)
    }

    /// Stores the policy, and makes it the one that nodes prepare.
    async fn begin(&self, bundle: &Bundle) -> Result<BegunPush, PushError> {
        let Self { store, options, .. } = *self;
        let record = timeout_at(self.until, next_record(store, bundle, options.rollback_of)).await;
        let record = record.map_err(|_| PushError::StoreTimeout(self.prepare_time))??;
        self.check_sequence(&record, self.bounded(store.active()).await?.as_deref())?;
        if !options.allow_no_nodes && !self.bounded(has_nodes(store)).await? {
            return Err(PushError::NoNodes);
        }
        self.bounded(store.forget_expired_nodes()).await?;
        let blobs = self.bounded(store_blobs(store, &record, bundle)).await?;
        let pending = record::to_json(&PendingPush { record: record.clone() });
        if !self.bounded(store.set_pending(&pending, PENDING_EXPIRY)).await? {
            return Err(PushError::InProgress);
        }
        // From now on no other push and no node changes the active record.
        let expected = self.bounded(store.active()).await?;
        self.check_sequence(&record, expected.as_deref())?;
        Ok((record, expected, pending, blobs))
    }

    fn check_sequence(&self, record: &ActiveRecord, active: Option<&[u8]>) -> Result<(), PushError> {
        let current = active.and_then(|json| record::parse::<ActiveRecord>(json).ok());
        match current.filter(|current| record.sequence <= current.sequence && current.prove(self.keys).is_ok()) {
            Some(current) => {
                Err(PushError::SequenceNotIncreasing { sequence: record.sequence, current: current.sequence })
            }
            None => Ok(()),
        }
    }
}

/// Whether a node lives whose policy the fleet manages. After an outage of the store the statuses of all nodes have expired, until their next
/// heartbeats.
async fn has_nodes(store: &dyn FleetStore) -> Result<bool, StoreError> {
    let begun_at = Instant::now();
    while managed_nodes(store).await?.is_empty() {
        if begun_at.elapsed() >= 2 * HEARTBEAT_INTERVAL {
            return Ok(false);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(true)
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

impl Prepare<'_> {
    /// Waits until every live node has prepared the policy.
    async fn wait_prepared(&self, record: &ActiveRecord, pending: &str) -> Result<Vec<NodeStatus>, PushError> {
        let (mut renewed_at, mut outage, mut last_waiting) = (Instant::now(), StoreOutage::default(), Vec::new());
        loop {
            let begun_at = Instant::now();
            let read = self.bounded(self.read_reports(record)).await;
            outage.observe(begun_at, read.is_err());
            let (live, waiting) = match read {
                // The store may have another master soon.
                Err(PushError::NotCommitted(error)) if error.is_transient() && Instant::now() < self.until => {
                    tokio::time::sleep(POLL_INTERVAL).await;
                    continue;
                }
                // It ended during a read.
                Err(PushError::StoreTimeout(timeout)) if !last_waiting.is_empty() => {
                    return Err(PushError::PrepareTimeout { timeout, nodes: last_waiting });
                }
                read => read?,
            };
            let waiting = waiting?;
            if waiting.is_empty() || renewed_at.elapsed() > RENEW_INTERVAL {
                renewed_at = Instant::now();
                // If there is no node left, the store may have lost its data, and the pending record with it.
                match self.bounded(self.store.renew_pending(pending, PENDING_EXPIRY)).await {
                    Ok(true) => {}
                    Ok(false) => return Err(PushError::Expired),
                    Err(PushError::NotCommitted(error)) if error.is_transient() => outage.observe(begun_at, true),
                    Err(error) => return Err(error),
                }
            }
            if waiting.is_empty() && outage.is_over() {
                return if live.is_empty() && !self.options.allow_no_nodes {
                    Err(PushError::NoNodes)
                } else {
                    Ok(live)
                };
            }
            if Instant::now() >= self.until {
                return Err(PushError::PrepareTimeout { timeout: self.prepare_time, nodes: waiting });
            }
            last_waiting = waiting;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The live nodes, and the names of those that have not reported. One failure is enough to end the push, so that it does not wait for the
    /// other nodes.
    async fn read_reports(&self, record: &ActiveRecord) -> Result<(Vec<NodeStatus>, Waiting), StoreError> {
        let live = managed_nodes(self.store).await?;
        let names: Vec<&str> = live.iter().map(|node| &*node.name).collect();
        let reports = self.store.reports(record.push_id.as_str(), &names).await?;
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
        let waiting = if failures.is_empty() { Ok(waiting) } else { Err(PushError::PrepareFailed(failures)) };
        Ok((live, waiting))
    }
}

/// The names of the nodes that have not reported, or the failures that were reported.
type Waiting = Result<Vec<String>, PushError>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::heartbeat::STATUS_EXPIRY;
    use crate::fleet::node_status::fixtures::test_status;
    use crate::fleet::record::active;
    use crate::rollout::stage::{Stage, StageError};
    use crate::store::fleet::tests::{CommitFault, MemoryFleetStore};

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
        /// The second heartbeat comes after this time.
        Late(Duration),
        /// Another push is committed while this one is prepared.
        ReplacesActive(String),
    }

    /// Sends heartbeats as a node does: prepares the pending policy, and activates that of the active record.
    async fn run_node(store: MemoryFleetStore, name: &'static str, behaviour: Behaviour) {
        let (mut status, mut is_first) = (test_status(name), true);
        loop {
            let heartbeat = store.heartbeat(name, &record::to_json(&status), Duration::from_secs(5), 0).await;
            let Ok(reply) = heartbeat else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let pending = reply.pending.expect("it can be read");
            if let Behaviour::Late(delay) = behaviour
                && pending.is_none()
                && std::mem::replace(&mut is_first, false)
            {
                // Its next heartbeat comes late.
                tokio::time::sleep(delay).await;
                continue;
            }
            if let Some(pending) = pending {
                let PendingPush { record } = record::parse(&pending).expect("a pending push");
                let failure = match &behaviour {
                    Behaviour::Prepares | Behaviour::Late(_) => None,
                    Behaviour::Fails(failure) => Some(failure.clone()),
                    Behaviour::ReplacesActive(other) => {
                        store.replace_active(other);
                        None
                    }
                };
                let report = PrepareReport { instance: status.instance.clone(), failure };
                let _ = store.report(record.push_id.as_str(), name, &record::to_json(&report)).await;
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
        push_within(store, component, Duration::from_secs(10)).await
    }

    async fn push_within(store: &MemoryFleetStore, component: &str, timeout: Duration) -> Result<Pushed, PushError> {
        let bundle = Bundle { component: component.into(), cases: None, signature: None };
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
    async fn commit_without_a_reply_is_resolved() {
        for fault in [CommitFault::LosesReply, CommitFault::LosesCommit] {
            let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares), ("b", Behaviour::Prepares)]).await;
            store.set_commit_fault(Some(fault));
            let pushed = push_within(&store, "component", Duration::from_secs(60)).await;
            let stored = active(&store).await.expect("read");
            match (fault, pushed) {
                (CommitFault::LosesReply, Ok(pushed)) => {
                    assert_eq!((stored, pushed.nodes.len()), (Some(pushed.record), 2));
                }
                (CommitFault::LosesCommit, Err(PushError::NotCommitted(_))) => {
                    assert_eq!((stored, store.pending()), (None, None), "it cannot be committed later");
                }
                (fault, pushed) => panic!("{fault:?}: {pushed:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn push_ends_within_its_timeout_when_the_store_hangs() {
        let timeout = Duration::from_secs(20);
        for (fault, is_unknown) in [(CommitFault::Hangs, true), (CommitFault::LosesStore, true)] {
            let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares)]).await;
            store.set_commit_fault(Some(fault));
            let start = Instant::now();
            let error = push_within(&store, "component", timeout).await.expect_err("no reply");
            assert_eq!(matches!(error, PushError::CommitUnknown(_)), is_unknown, "{error}");
            assert!(error.to_string().contains("run `tidegate policy status`"), "{error}");
            assert!(start.elapsed() <= timeout + Duration::from_millis(1), "{:?}", start.elapsed());
        }
        // Before the commit.
        let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares)]).await;
        store.set_hanging(true);
        let start = Instant::now();
        let error = push_within(&store, "component", timeout).await.expect_err("no reply");
        assert!(error.to_string().contains("nothing was changed anywhere"), "{error}");
        assert!(start.elapsed() <= timeout, "{:?}", start.elapsed());
    }

    /// While the store was away, the statuses of all nodes have expired, and one of them is live again later than the other.
    #[tokio::test(start_paused = true)]
    async fn outage_of_the_store_does_not_count_nodes_as_dead() {
        let late = Behaviour::Late(STATUS_EXPIRY - Duration::from_secs(1));
        let (store, _nodes) = fleet_of(&[("a", Behaviour::Prepares), ("b", late)]).await;
        let outage = async {
            while store.pending().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            store.set_unavailable(true);
            tokio::time::sleep(Duration::from_millis(200)).await;
            store.remove_statuses();
            store.set_unavailable(false);
        };
        let (pushed, ()) = tokio::join!(push_within(&store, "component", Duration::from_secs(60)), outage);
        let names: Vec<String> = pushed.expect("pushed").nodes.into_iter().map(|node| node.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_push_without_a_live_node_is_refused() {
        let error = push_component(&MemoryFleetStore::default(), "component").await.expect_err("no node");
        assert!(matches!(error, PushError::NoNodes), "{error}");
    }
}
