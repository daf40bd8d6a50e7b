//! The heartbeat task: it owns the node's state in the fleet, publishes it every second and after each change, and reads the fleet's
//! policy records in the same round trip.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::authz::authorizer::Authorizer;
use crate::channel::raw_subscription::RawSubscription;
use crate::fleet::local_cache::LocalCache;
use crate::fleet::node_status::{NodeStatus, ShadowNodeStatus};
use crate::fleet::record;
use crate::fleet::record::{PushId, truncate, truncate_error};
use crate::rollout::Rollout;
use crate::rollout::stage::StageError;
use crate::shadow::shadow_policy::ShadowPolicy;
use crate::store::StoreError;
use crate::store::fleet::{FleetStore, HeartbeatReply};
use crate::util::clock::now_ms;

/// Time between heartbeats. A change of the state causes one at once.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Life of a node's status in the store: a node without a heartbeat for this time is not live.
pub(super) const STATUS_EXPIRY: Duration = Duration::from_secs(5);
/// Characters of a shadow policy's error, so that a status with both errors stays within a record.
const MAX_SHADOW_ERROR_CHARS: usize = 500;

/// What the tasks of a node share. It does not change.
pub struct NodeContext {
    /// The fleet's state in the store.
    pub store: Arc<dyn FleetStore>,
    pub authorizer: Arc<Authorizer>,
    pub rollout: Rollout,
    /// The node's name, unique in the fleet.
    pub name: String,
    /// Random id of this process.
    pub instance: String,
    /// The address that clients connect to.
    pub address: SocketAddr,
    /// Cache of the fleet's policy; none on a node with a policy of its own.
    pub local_cache: Option<LocalCache>,
    /// Concurrent decisions of the fleet's shadow policy.
    pub shadow_concurrency: usize,
}

impl NodeContext {
    /// Whether the fleet manages this node's policy.
    pub const fn is_fleet_managed(&self) -> bool {
        self.local_cache.is_some()
    }
}

/// The fleet's policy records, as the last heartbeat read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRecords {
    pub active: Option<Vec<u8>>,
    pub pending: Option<Vec<u8>>,
    pub shadow: Option<Vec<u8>>,
}

/// A change of the node's state, sent by a task that follows the records.
pub enum StateChange {
    Active(FollowedPolicy),
    /// None after the fleet's shadow policy was removed.
    Shadow(Option<FollowedShadow>),
}

/// The fleet's policy on this node.
#[derive(Clone, Default)]
pub struct FollowedPolicy {
    /// The push whose policy is active.
    pub push_id: Option<PushId>,
    /// Why the policy of the active record is not active.
    pub error: Option<String>,
}

/// The fleet's shadow policy on this node.
pub struct FollowedShadow {
    /// The push that set it; none if its record cannot be parsed.
    pub push_id: Option<PushId>,
    /// The policy, or why it is not evaluated.
    pub policy: Result<Arc<ShadowPolicy>, StageError>,
}

/// The node's state in the fleet.
#[derive(Default)]
struct NodeState {
    active: FollowedPolicy,
    shadow: Option<FollowedShadow>,
    /// Why the store refused a part of the last heartbeat.
    store_error: Option<String>,
    /// Whether a status of this process is in the store.
    is_announced: bool,
    is_store_unavailable: bool,
    is_duplicate_reported: bool,
}

impl NodeState {
    fn apply(&mut self, change: StateChange) {
        match change {
            StateChange::Active(active) => self.active = active,
            StateChange::Shadow(shadow) => self.shadow = shadow,
        }
    }

    fn status(&self, node: &NodeContext) -> NodeStatus {
        let info = node.authorizer.active();
        NodeStatus {
            name: node.name.clone(),
            address: node.address.to_string(),
            instance: node.instance.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            fleet_managed: node.is_fleet_managed(),
            source: info.as_ref().map(|info| {
                let until = if info.origin.persisted { "" } else { ", until it restarts" };
                truncate_error(&format!("{}{until}", info.origin.source))
            }),
            digest: info.as_ref().map(|info| info.digest.to_string()),
            generation: info.as_ref().map(|info| info.generation),
            sequence: info.as_ref().and_then(|info| info.origin.sequence),
            since: info.as_ref().map(|info| info.since),
            push_id: self.active.push_id.clone(),
            error: self.error(node).map(|error| truncate_error(&error)),
            fleet_error: self.active.error.clone(),
            shadow: self.shadow.as_ref().map(FollowedShadow::status),
            last_seen: now_ms(),
        }
    }

    /// The error that the status shows: of the fleet's policy, of the store, or of the latest activation that failed since the active
    /// policy was activated.
    fn error(&self, node: &NodeContext) -> Option<String> {
        self.active.error.clone().or_else(|| self.store_error.clone()).or_else(|| {
            let since = node.authorizer.active().map_or(0, |info| info.since);
            let failure = node.rollout.status().failures.pop_front()?;
            (failure.time >= since).then(|| failure.to_string())
        })
    }
}

impl FollowedShadow {
    fn status(&self) -> ShadowNodeStatus {
        let (push_id, policy) = (self.push_id.clone(), self.policy.as_ref());
        let (since, counts) = policy.map(|policy| (policy.since(), policy.counts())).ok().unzip();
        let shorten = |failure: &StageError| StageError {
            stage: failure.stage,
            reason: truncate(&failure.reason, MAX_SHADOW_ERROR_CHARS),
        };
        ShadowNodeStatus { push_id, since, counts, failure: policy.err().map(shorten) }
    }
}

/// The heartbeat of a node.
pub struct Heartbeat {
    node: Arc<NodeContext>,
    state: NodeState,
    changes: mpsc::Receiver<StateChange>,
    records: watch::Sender<PolicyRecords>,
    status: watch::Sender<NodeStatus>,
}

impl Heartbeat {
    /// A heartbeat that has sent nothing yet.
    pub fn new(node: Arc<NodeContext>, changes: mpsc::Receiver<StateChange>) -> Self {
        let state = NodeState::default();
        let (records, status) = (watch::Sender::default(), watch::Sender::new(state.status(&node)));
        Self { node, state, changes, records, status }
    }

    /// The policy records. A receiver reports only what a heartbeat reads after this call as a change.
    pub fn records(&self) -> watch::Receiver<PolicyRecords> {
        self.records.subscribe()
    }

    pub fn status(&self) -> watch::Receiver<NodeStatus> {
        self.status.subscribe()
    }

    /// Sends heartbeats: every second, and at once after a change of the state or of a record, and after an activation.
    pub async fn run(mut self, mut record_notifications: RawSubscription) {
        let mut interval = tokio::time::interval(HEARTBEAT_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut generations = self.node.authorizer.generations();
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                Some(change) = self.changes.recv() => self.state.apply(change),
                // `None` means that notifications were dropped.
                _ = record_notifications.next() => {}
                Ok(()) = generations.changed() => {}
            }
            self.send().await;
        }
    }

    /// Sends one heartbeat.
    pub async fn send(&mut self) {
        while let Ok(change) = self.changes.try_recv() {
            self.state.apply(change);
        }
        let status = self.state.status(&self.node);
        let json = record::to_json(&status);
        self.status.send_replace(status);
        match self.node.store.heartbeat(&self.node.name, &json, STATUS_EXPIRY, now_ms()).await {
            Ok(reply) => {
                self.state.is_store_unavailable = false;
                self.apply_reply(reply);
                self.state.is_announced = true;
            }
            Err(error) if !std::mem::replace(&mut self.state.is_store_unavailable, true) => {
                tracing::warn!(%error, "heartbeats fail: the fleet will treat this node as dead");
            }
            Err(_) => {}
        }
    }

    /// Publishes the records to the tasks that follow them. A record that could not be read keeps its last value.
    fn apply_reply(&mut self, reply: HeartbeatReply) {
        let HeartbeatReply { written, previous, active, pending, shadow } = reply;
        let mut store_error = written.err();
        self.records.send_if_modified(|records| {
            let before = records.clone();
            let reads = [active, pending, shadow];
            for (record, read) in
                [&mut records.active, &mut records.pending, &mut records.shadow].into_iter().zip(reads)
            {
                match read {
                    Ok(read) => *record = read,
                    Err(error) => {
                        store_error.get_or_insert(error);
                    }
                }
            }
            // A policy whose activation failed is tried again later, so every heartbeat wakes the task that follows it.
            *records != before || self.state.active.error.is_some()
        });
        self.set_store_error(store_error.as_ref());
        if let Ok(Some(previous)) = previous {
            self.report_duplicate(&previous);
        }
    }

    fn set_store_error(&mut self, error: Option<&StoreError>) {
        let error = error.map(|error| format!("the store refuses a part of the heartbeat: {error}"));
        if let Some(error) = error.as_ref().filter(|_| error != self.state.store_error) {
            tracing::error!(error, "this node cannot follow the fleet");
        }
        self.state.store_error = error;
    }

    /// Logs once if another process has overwritten the status under this node's name.
    fn report_duplicate(&mut self, previous: &[u8]) {
        let is_own = record::parse::<NodeStatus>(previous).map_or(true, |status| status.instance == self.node.instance);
        if self.state.is_announced && !is_own && !std::mem::replace(&mut self.state.is_duplicate_reported, true) {
            tracing::error!(
                node = self.node.name,
                "another node has this name too: set fleet.node-name on both, or pushes cannot count them"
            );
        }
    }
}

#[cfg(test)]
pub mod fixtures {
    use super::*;
    use crate::channel::hub::Hub;
    use crate::config::Config;
    use crate::store::EventStore;
    use crate::store::fleet::tests::MemoryFleetStore;
    use crate::store::memory::MemoryStore;
    use crate::telemetry::metrics::Metrics;
    use crate::util::clock::system_clock;
    use crate::wasm::compile::Compiler;

    /// A node of the fleet in the store, with a policy of its own, and the hub that it gets notifications from.
    pub fn test_node(store: &MemoryFleetStore, name: &str) -> (NodeContext, Hub) {
        let config = toml::from_str("store = 'memory:'\nallow-all = true").expect("TOML");
        let config = Config::validate(config).expect("a configuration");
        let events: Arc<dyn EventStore> = Arc::new(MemoryStore::new(1 << 16, Default::default(), system_clock()));
        let (limits, metrics) = (config.limits.clone(), Arc::<Metrics>::default());
        let compiler = Compiler::new(&limits, None).expect("an engine");
        let env = config.env(Arc::clone(&events));
        let authorizer = Arc::new(Authorizer::new(compiler, env, limits, Arc::clone(&metrics)));
        let node = NodeContext {
            store: Arc::new(store.clone()),
            rollout: Rollout::without_requirements(Arc::clone(&authorizer)),
            authorizer,
            name: name.into(),
            instance: "1".into(),
            address: ([127, 0, 0, 1], 8080).into(),
            local_cache: None,
            shadow_concurrency: 1,
        };
        (node, Hub::start(events, config.stream.hub, metrics))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::hub::Hub;
    use crate::fleet::heartbeat::fixtures::test_node;
    use crate::fleet::node_status::live_nodes;
    use crate::store::command::RestCommand;
    use crate::store::fleet::RecordRead;
    use crate::store::fleet::tests::MemoryFleetStore;

    fn heartbeat(node: NodeContext) -> (Heartbeat, mpsc::Sender<StateChange>) {
        let (changes, receiver) = mpsc::channel(1);
        (Heartbeat::new(Arc::new(node), receiver), changes)
    }

    fn subscribe(hub: &Hub, store: &MemoryFleetStore) -> RawSubscription {
        hub.subscribe_own(&store.keys().policy_changed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_keeps_the_last_records_while_the_store_is_unavailable() {
        let store = MemoryFleetStore::default();
        let (node, hub) = test_node(&store, "a");
        let (heartbeat, _changes) = heartbeat(node);
        let mut records = heartbeat.records();
        store.replace_active("first");
        let heartbeats = tokio::spawn(heartbeat.run(subscribe(&hub, &store)));
        records.changed().await.expect("the node lives");
        assert_eq!(records.borrow_and_update().active.as_deref(), Some(&b"first"[..]));
        store.set_unavailable(true);
        tokio::time::sleep(HEARTBEAT_INTERVAL * 3).await;
        assert_eq!(records.borrow().active.as_deref(), Some(&b"first"[..]));
        store.set_unavailable(false);
        store.replace_active("second");
        tokio::time::sleep(HEARTBEAT_INTERVAL * 2).await;
        assert_eq!(records.borrow().active.as_deref(), Some(&b"second"[..]));
        heartbeats.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_the_state_or_of_a_record_causes_a_heartbeat_at_once() {
        let store = MemoryFleetStore::default();
        let (node, hub) = test_node(&store, "a");
        let (heartbeat, changes) = heartbeat(node);
        let (mut records, mut status) = (heartbeat.records(), heartbeat.status());
        let heartbeats = tokio::spawn(heartbeat.run(subscribe(&hub, &store)));
        status.changed().await.expect("the first heartbeat");
        let start = tokio::time::Instant::now();
        let error = Some("not active".to_owned());
        let change = StateChange::Active(FollowedPolicy { push_id: None, error: error.clone() });
        changes.send(change).await.expect("the node lives");
        status.wait_for(|status| status.fleet_error == error && status.error == error).await.expect("the node lives");
        let stored = async || live_nodes(&store).await.expect("read")[0].error.clone();
        tokio::task::yield_now().await;
        assert_eq!(stored().await, error);
        store.replace_active("first");
        let key = store.keys().policy_changed();
        let notify = RestCommand::Publish { key, message: "changed".into() };
        hub.store().command(&notify).await.expect("published");
        records.wait_for(|records| records.active.as_deref() == Some(b"first")).await.expect("the node lives");
        assert!(start.elapsed() < HEARTBEAT_INTERVAL / 2, "{:?}", start.elapsed());
        heartbeats.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_one_record_leaves_the_last_value_and_is_published() {
        let store = MemoryFleetStore::default();
        let (mut heartbeat, _changes) = heartbeat(test_node(&store, "a").0);
        let records = heartbeat.records();
        let reply = |active: RecordRead| HeartbeatReply {
            written: Ok(()),
            previous: Ok(None),
            active,
            pending: Ok(Some(b"pending".to_vec())),
            shadow: Ok(None),
        };
        let error = |heartbeat: &Heartbeat| heartbeat.state.status(&heartbeat.node).error;
        heartbeat.apply_reply(reply(Ok(Some(b"active".to_vec()))));
        assert_eq!(error(&heartbeat), None);
        heartbeat.apply_reply(reply(Err(StoreError::WrongType)));
        assert_eq!(records.borrow().active.as_deref(), Some(&b"active"[..]));
        assert!(error(&heartbeat).is_some_and(|error| error.contains("another type of value")));
        heartbeat.apply_reply(reply(Ok(None)));
        assert_eq!((records.borrow().active.clone(), error(&heartbeat)), (None, None));
    }
}
