//! The commit of a push, until every node has activated the policy; and how a commit without a reply is resolved.
//!
//! A reply gets lost with its connection, or with a master. Then the records and the nodes tell whether the push was committed: nothing else
//! removes the pending record and sets this push in one step.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::fleet::heartbeat::{HEARTBEAT_INTERVAL, STATUS_EXPIRY};
use crate::fleet::node_status::{NodeStatus, managed_nodes};
use crate::fleet::push_result::{ActivatedNode, POLL_INTERVAL, PushError, Pushed};
use crate::fleet::record::{ActiveRecord, active, history};
use crate::store::StoreError;
use crate::store::fleet::{Commit, CommitOutcome, FleetStore, Replication};

/// Whether the nodes that are listed are all that live. While the store is away, no node can write its status, and statuses expire: after that
/// a node is not counted as dead before it had the time for its heartbeats.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreOutage {
    /// When the store last failed, or was slow.
    last_failed_at: Option<Instant>,
}

impl StoreOutage {
    /// Takes in a read that was begun at this time and has just ended.
    pub fn observe(&mut self, begun_at: Instant, has_failed: bool) {
        // A store that waits for a new master replies late instead of failing.
        if has_failed || begun_at.elapsed() >= HEARTBEAT_INTERVAL {
            self.last_failed_at = Some(Instant::now());
        }
    }

    /// Whether the statuses that are stored now are those of all nodes that live.
    pub fn is_over(&self) -> bool {
        self.last_failed_at.is_none_or(|at| at.elapsed() >= STATUS_EXPIRY)
    }
}

/// A push that all nodes have prepared.
pub(super) struct PreparedPush<'a> {
    pub store: &'a dyn FleetStore,
    pub record: ActiveRecord,
    /// The pending record.
    pub pending: &'a str,
    /// The time limit of the whole push, for messages, and its end.
    pub timeout: Duration,
    pub deadline: Instant,
}

/// What the store and the nodes say about a push.
struct PushState {
    nodes: Vec<NodeStatus>,
    active: Option<ActiveRecord>,
    history: Vec<ActiveRecord>,
}

impl PreparedPush<'_> {
    /// Commits the push, and waits until every live node has activated the policy.
    pub async fn commit(self, commit: Commit<'_>) -> Result<Pushed, PushError> {
        let committed_at = Instant::now();
        let reply = timeout_at(self.deadline, self.store.commit(commit)).await;
        match reply {
            Ok(Ok(CommitOutcome::Committed)) => self.wait_activated(committed_at).await,
            Ok(Ok(CommitOutcome::Conflict)) => {
                self.withdraw().await;
                Err(PushError::Superseded)
            }
            Ok(Ok(CommitOutcome::Expired | CommitOutcome::BlobMissing)) => Err(PushError::Expired),
            Ok(Err(error)) => self.resolve(committed_at, error).await,
            Err(_) => Err(self.unknown("the store did not answer")),
        }
    }

    /// Removes the pending record. One that cannot be removed now expires.
    pub async fn withdraw(&self) {
        let removal = timeout_at(self.deadline, self.store.remove_pending(self.pending));
        if let Ok(Err(error)) = removal.await {
            tracing::debug!(%error, "the pending record of a push cannot be removed; it expires");
        }
    }

    async fn read_state(&self, outage: &mut StoreOutage) -> Result<PushState, StoreError> {
        let begun_at = Instant::now();
        let read = async {
            let (nodes, active) = (managed_nodes(self.store).await?, active(self.store).await?);
            let is_own = active.as_ref().is_some_and(|active| self.is_own(active));
            let history = if is_own { Vec::new() } else { history(self.store).await? };
            Ok(PushState { nodes, active, history })
        };
        let timeout = || StoreError::Unavailable("it did not answer before the end of the push".into());
        let state = timeout_at(self.deadline, read).await.map_err(|_| timeout()).flatten();
        outage.observe(begun_at, state.is_err());
        state
    }

    fn is_own(&self, record: &ActiveRecord) -> bool {
        record.push_id == self.record.push_id
    }

    fn is_active_on(&self, node: &NodeStatus) -> bool {
        node.push_id.as_ref() == Some(&self.record.push_id)
    }

    fn unknown(&self, cause: impl ToString) -> PushError {
        PushError::CommitUnknown(cause.to_string())
    }

    /// Finds out what became of a commit without a reply. When the pending record is gone, the commit cannot be executed any more; and a node
    /// that has activated the policy nevertheless, from a master that was lost, reports it with its next heartbeats.
    async fn resolve(&self, committed_at: Instant, cause: StoreError) -> Result<Pushed, PushError> {
        let (mut outage, mut last_error) = (StoreOutage { last_failed_at: Some(Instant::now()) }, cause);
        loop {
            match self.read_state(&mut outage).await {
                Ok(state) if state.active.as_ref().is_some_and(|active| self.is_own(active)) => {
                    return self.wait_activated(committed_at).await;
                }
                Ok(state) if state.history.iter().any(|record| self.is_own(record)) => {
                    return Err(PushError::Replaced(state.active.map_or(0, |active| active.sequence)));
                }
                Ok(state) => {
                    let is_on_a_node = state.nodes.iter().any(|node| self.is_active_on(node));
                    match timeout_at(self.deadline, self.store.remove_pending(self.pending)).await {
                        Ok(Ok(())) if !is_on_a_node && outage.is_over() => {
                            return Err(PushError::NotCommitted(last_error));
                        }
                        Ok(Err(error)) => last_error = error,
                        // A node that has it writes the record back.
                        _ => {}
                    }
                }
                Err(error) => last_error = error,
            }
            if Instant::now() >= self.deadline {
                return Err(self.unknown(last_error));
            }
            self.sleep().await;
        }
    }

    async fn sleep(&self) {
        tokio::time::sleep_until((Instant::now() + POLL_INTERVAL).min(self.deadline)).await;
    }

    /// Waits until every live node has activated the policy.
    async fn wait_activated(&self, committed_at: Instant) -> Result<Pushed, PushError> {
        let (mut activated, mut outage) = (BTreeMap::new(), StoreOutage::default());
        let elapsed_ms = || u64::try_from(committed_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        loop {
            let state = self.read_state(&mut outage).await;
            let is_over = Instant::now() >= self.deadline;
            match state {
                // The push is committed: a short outage of the store does not change that.
                Err(error) if is_over => return Err(self.unknown(error)),
                Err(_) => {}
                Ok(PushState { nodes, active: Some(active), .. }) if self.is_own(&active) => {
                    let (done, waiting): (Vec<NodeStatus>, Vec<NodeStatus>) =
                        nodes.into_iter().partition(|node| self.is_active_on(node));
                    for NodeStatus { name, address, .. } in done {
                        let node = || ActivatedNode { name: name.clone(), address, after_ms: elapsed_ms() };
                        activated.entry(name.clone()).or_insert_with(node);
                    }
                    if waiting.is_empty() && outage.is_over() {
                        let not_replicated = activated.is_empty() && self.is_not_replicated().await;
                        let (record, nodes) = (self.record.clone(), activated.into_values().collect());
                        let duration_ms = elapsed_ms();
                        return Ok(Pushed { record, activated: true, nodes, duration_ms, not_replicated });
                    }
                    if is_over {
                        let describe = |node: NodeStatus| match node.error {
                            Some(error) => format!("{} ({error})", node.name),
                            None => node.name,
                        };
                        let nodes = waiting.into_iter().map(describe).collect();
                        return Err(PushError::ActivationTimeout { timeout: self.timeout, nodes });
                    }
                }
                Ok(state) => {
                    let is_replaced = state.history.iter().any(|record| self.is_own(record))
                        || state.active.as_ref().is_some_and(|active| active.sequence > self.record.sequence);
                    if let Some(active) = state.active.filter(|_| is_replaced) {
                        return Err(PushError::Replaced(active.sequence));
                    }
                    // The store lost the commit. A node that has activated the policy writes the record back if it is signed.
                    let may_return = self.record.signature.is_some()
                        && (!outage.is_over() || state.nodes.iter().any(|node| self.is_active_on(node)));
                    if !may_return || is_over {
                        return Err(PushError::CommitLost);
                    }
                }
            }
            self.sleep().await;
        }
    }

    /// Whether the store has replicas and none of them is known to have the commit, which no node has confirmed.
    async fn is_not_replicated(&self) -> bool {
        let replication = timeout_at(self.deadline, self.store.replication(STATUS_EXPIRY)).await;
        matches!(replication, Ok(Ok(Replication::Missing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nodes_are_not_judged_until_their_heartbeats_could_arrive() {
        let mut outage = StoreOutage::default();
        assert!(outage.is_over());
        outage.observe(Instant::now(), false);
        assert!(outage.is_over());
        outage.observe(Instant::now(), true);
        assert!(!outage.is_over());
        tokio::time::advance(STATUS_EXPIRY).await;
        assert!(outage.is_over());
        // A read that waited for a new master.
        let begun_at = Instant::now();
        tokio::time::advance(HEARTBEAT_INTERVAL).await;
        outage.observe(begun_at, false);
        assert!(!outage.is_over());
    }
}
