//! Node heartbeat: publishes this node's status every second and reads the fleet's policy records in the same round trip.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::authz::authorizer::Authorizer;
use crate::fleet::local_cache::LocalCache;
use crate::fleet::node_status::{NodeStatus, ShadowNodeStatus, truncate_error};
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, PrepareFailure, PushId};
use crate::rollout::Rollout;
use crate::shadow::shadow_policy::ShadowPolicy;
use crate::store::StoreError;
use crate::store::fleet::{FleetStore, HeartbeatReply, RecordRead};
use crate::util::clock::now_ms;
use crate::util::id::random_id;

/// Time between heartbeats. A change of the status causes one at once.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Life of a node's status in the store: a node without a heartbeat for this time is not live.
pub const STATUS_EXPIRY: Duration = Duration::from_secs(5);

/// Delay before a node tries a policy again that failed a stage: the cause may be fixed by then.
pub(super) const FAILED_STAGE_RETRY_DELAY: Duration = Duration::from_secs(30);
/// Delay before a node tries a policy again after a store error.
pub(super) const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The fleet's policy records, as the last heartbeat read them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicyRecords {
    /// The active policy.
    pub active: Option<Vec<u8>>,
    /// The policy to prepare for a push.
    pub pending: Option<Vec<u8>>,
    /// The shadow policy.
    pub shadow: Option<Vec<u8>>,
}

/// What a node needs to join a fleet.
pub struct NodeConfig {
    /// The fleet's state in the store.
    pub store: Arc<dyn FleetStore>,
    /// Decides on requests.
    pub authorizer: Arc<Authorizer>,
    /// The activation pipeline.
    pub rollout: Rollout,
    /// The node's name.
    pub name: String,
    /// The address that clients connect to.
    pub address: SocketAddr,
    /// Cache of the fleet's policy; none on a node with a policy of its own.
    pub local_cache: Option<LocalCache>,
    /// Concurrent decisions of the fleet's shadow policy.
    pub shadow_concurrency: usize,
}

/// The fleet's shadow policy on this node.
pub(crate) struct ShadowOnThisNode {
    /// The push that set it; none if its record cannot be read.
    pub push_id: Option<PushId>,
    /// The policy, or why it is not evaluated here.
    pub policy: Result<Arc<ShadowPolicy>, PrepareFailure>,
}

impl ShadowOnThisNode {
    fn status(&self) -> ShadowNodeStatus {
        let push_id = self.push_id.clone();
        match &self.policy {
            Ok(policy) => {
                ShadowNodeStatus { push_id, since: Some(policy.since()), counts: Some(policy.counts()), failure: None }
            }
            Err(failure) => ShadowNodeStatus { push_id, since: None, counts: None, failure: Some(failure.clone()) },
        }
    }
}

/// This node as a member of the fleet.
pub struct Fleet {
    pub(super) store: Arc<dyn FleetStore>,
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) rollout: Rollout,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) local_cache: Option<LocalCache>,
    pub(super) instance: String,
    /// Why the fleet's policy is not active on this node.
    pub(super) error: Mutex<Option<String>>,
    pub(super) applied: Mutex<Option<ActiveRecord>>,
    /// The fleet's shadow policy.
    pub(super) shadow: Mutex<Option<ShadowOnThisNode>>,
    pub(super) shadow_concurrency: usize,
    /// The record that the store refused to read or write.
    store_error: Mutex<Option<String>>,
    pub(super) records: watch::Sender<PolicyRecords>,
    pub(super) changed: Notify,
    pub(super) tasks: Mutex<Vec<AbortHandle>>,
}

impl Fleet {
    /// A node that sends no heartbeat yet.
    #[must_use]
    pub fn new(config: NodeConfig) -> Arc<Self> {
        let NodeConfig { store, authorizer, rollout, name, address, local_cache, shadow_concurrency } = config;
        let instance = random_id();
        Arc::new(Self {
            store,
            authorizer,
            rollout,
            name,
            address,
            local_cache,
            instance,
            error: Mutex::default(),
            applied: Mutex::default(),
            shadow: Mutex::default(),
            shadow_concurrency,
            store_error: Mutex::default(),
            records: watch::Sender::new(PolicyRecords::default()),
            changed: Notify::new(),
            tasks: Mutex::default(),
        })
    }

    /// Sends one heartbeat, so that a push that begins now counts this node. If the store is unavailable, [`Self::start`] repeats it.
    pub async fn announce(&self) {
        if let Err(error) =
            self.store.heartbeat(&self.name, &record::to_json(&self.status()), STATUS_EXPIRY, now_ms()).await
        {
            tracing::debug!(%error, "the first heartbeat failed; the node repeats it");
        }
    }

    /// The fleet's state in the store.
    #[must_use]
    pub fn store(&self) -> &dyn FleetStore {
        &*self.store
    }

    /// Whether the fleet manages this node's policy.
    #[must_use]
    pub fn is_fleet_managed(&self) -> bool {
        self.local_cache.is_some()
    }

    /// Why the fleet's policy is not active on this node, if it is not.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        lock(&self.error).clone()
    }

    /// This node's status.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        let info = self.authorizer.active();
        let push_id = lock(&self.applied).as_ref().map(|pointer| pointer.push_id.clone());
        NodeStatus {
            name: self.name.clone(),
            address: self.address.to_string(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            fleet_managed: self.is_fleet_managed(),
            source: info.as_ref().map(|info| {
                let until = if info.origin.persisted { "" } else { ", until it restarts" };
                truncate_error(&format!("{}{until}", info.origin.source))
            }),
            digest: info.as_ref().map(|info| info.digest.to_string()),
            generation: info.as_ref().map(|info| info.generation),
            sequence: info.as_ref().and_then(|info| info.origin.sequence),
            since: info.as_ref().map(|info| info.since),
            push_id,
            error: self.status_error(),
            shadow: lock(&self.shadow).as_ref().map(ShadowOnThisNode::status),
            last_seen: now_ms(),
        }
    }

    fn status_error(&self) -> Option<String> {
        if let Some(error) = &*lock(&self.error) {
            return Some(truncate_error(error));
        }
        if let Some(store_error) = &*lock(&self.store_error) {
            return Some(truncate_error(store_error));
        }
        let since = self.authorizer.active().map_or(0, |info| info.since);
        let refused = self.rollout.status().failures.pop_front()?;
        (refused.time >= since).then(|| truncate_error(&refused.to_string()))
    }

    /// Causes a heartbeat now.
    pub(super) fn wake_heartbeat(&self) {
        self.changed.notify_one();
    }

    pub(super) async fn heartbeat_loop(self: Arc<Self>) {
        let mut every = tokio::time::interval(HEARTBEAT_INTERVAL);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut store_unavailable, mut announced, mut duplicate_reported) = (false, false, false);
        loop {
            tokio::select! { _ = every.tick() => {}, () = self.changed.notified() => {} }
            let reply =
                self.store.heartbeat(&self.name, &record::to_json(&self.status()), STATUS_EXPIRY, now_ms()).await;
            match reply {
                Ok(reply) => {
                    store_unavailable = false;
                    let previous = self.apply_heartbeat(reply);
                    let other = previous.as_deref().and_then(|status| record::parse::<NodeStatus>(status).ok());
                    let is_duplicate = announced && other.is_some_and(|other| other.instance != self.instance);
                    if is_duplicate && !std::mem::replace(&mut duplicate_reported, true) {
                        let name = &self.name;
                        tracing::error!(
                            node = name,
                            "another node has this name too: set fleet.node-name on both, or pushes cannot count them"
                        );
                    }
                    announced = true;
                }
                Err(error) if !std::mem::replace(&mut store_unavailable, true) => {
                    tracing::warn!(%error, "heartbeats fail: the fleet will treat this node as dead");
                }
                Err(_) => {}
            }
        }
    }

    /// Publishes the records to the followers, and returns the previous status under this node's name. A record that could not be
    /// read keeps its last value.
    fn apply_heartbeat(&self, reply: HeartbeatReply) -> Option<Vec<u8>> {
        let HeartbeatReply { written, previous, active, pending, shadow } = reply;
        let mut store_error = written.err();
        let mut keep_on_error = |read: RecordRead, was: &Option<Vec<u8>>| {
            read.unwrap_or_else(|error| {
                store_error.get_or_insert(error);
                was.clone()
            })
        };
        self.records.send_if_modified(|was| {
            let read = PolicyRecords {
                active: keep_on_error(active, &was.active),
                pending: keep_on_error(pending, &was.pending),
                shadow: keep_on_error(shadow, &was.shadow),
            };
            let changed = *was != read;
            *was = read;
            // A policy whose activation failed is tried again later, so the follower is woken by every heartbeat.
            changed || self.has_error()
        });
        self.set_store_error(store_error.as_ref());
        previous.unwrap_or_default()
    }

    fn set_store_error(&self, error: Option<&StoreError>) {
        let describe = |error| format!("the store refuses a part of the heartbeat: {error}");
        let now = error.map(describe);
        let before = std::mem::replace(&mut *lock(&self.store_error), now.clone());
        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
            tracing::error!(error = now, "this node cannot follow the fleet");
        }
    }

    /// Whether this node failed to activate the fleet's policy.
    fn has_error(&self) -> bool {
        self.is_fleet_managed() && lock(&self.error).is_some()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::fleet::node_status::live_nodes;
    use crate::policy::Limits;
    use crate::store::fleet::tests::MemoryFleetStore;
    use crate::store::memory::{MemoryStore, system_clock};
    use crate::wasm::compile::Compiler;
    use crate::wasm::host::PolicyEnv;

    fn node(store: &MemoryFleetStore, name: &str) -> Arc<Fleet> {
        let limits = Limits::default();
        let events = Arc::new(MemoryStore::new(1 << 16, HashMap::new(), system_clock()));
        let compiler = Compiler::new(&limits, None).expect("an engine");
        let authorizer = Arc::new(Authorizer::new(compiler, PolicyEnv::new(events, &limits), limits, Arc::default()));
        Fleet::new(NodeConfig {
            store: Arc::new(store.clone()),
            rollout: Rollout::without_requirements(Arc::clone(&authorizer)),
            authorizer,
            name: name.into(),
            address: ([127, 0, 0, 1], 8080).into(),
            local_cache: None,
            shadow_concurrency: 1,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_publishes_the_status_and_reads_the_records() {
        let store = MemoryFleetStore::default();
        let node = node(&store, "a");
        let mut state = node.records.subscribe();
        store.replace_active("first");
        let heartbeats = tokio::spawn(Arc::clone(&node).heartbeat_loop());
        state.changed().await.expect("the node lives");
        assert_eq!(state.borrow_and_update().active.as_deref(), Some(&b"first"[..]));
        let published = live_nodes(&store).await.expect("read");
        let published: Vec<_> =
            published.iter().map(|node| (&*node.name, &*node.address, node.fleet_managed)).collect();
        assert_eq!(published, [("a", "127.0.0.1:8080", false)]);
        heartbeats.abort();
        node.leave().await;
        assert_eq!(live_nodes(&store).await.expect("read"), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_keeps_the_last_records_while_the_store_is_unavailable() {
        let store = MemoryFleetStore::default();
        let node = node(&store, "a");
        let mut state = node.records.subscribe();
        store.replace_active("first");
        let heartbeats = tokio::spawn(Arc::clone(&node).heartbeat_loop());
        state.changed().await.expect("the node lives");
        store.set_unavailable(true);
        tokio::time::sleep(HEARTBEAT_INTERVAL * 3).await;
        assert_eq!(node.records.borrow().active.as_deref(), Some(&b"first"[..]));
        store.set_unavailable(false);
        store.replace_active("second");
        tokio::time::sleep(HEARTBEAT_INTERVAL * 2).await;
        assert_eq!(node.records.borrow().active.as_deref(), Some(&b"second"[..]));
        heartbeats.abort();
    }

    #[test]
    fn an_error_of_one_record_leaves_the_last_value_and_is_published() {
        let store = MemoryFleetStore::default();
        let node = node(&store, "a");
        let reply = |active: RecordRead| HeartbeatReply {
            written: Ok(()),
            previous: Ok(None),
            active,
            pending: Ok(Some(b"pending".to_vec())),
            shadow: Ok(None),
        };
        node.apply_heartbeat(reply(Ok(Some(b"active".to_vec()))));
        assert_eq!(node.status().error, None);
        node.apply_heartbeat(reply(Err(StoreError::WrongType)));
        let state = node.records.borrow().clone();
        assert_eq!(state.active.as_deref(), Some(&b"active"[..]));
        assert!(node.status().error.is_some_and(|error| error.contains("another type of value")));
        node.apply_heartbeat(reply(Ok(None)));
        assert_eq!((node.records.borrow().active.clone(), node.status().error), (None, None));
    }
}
