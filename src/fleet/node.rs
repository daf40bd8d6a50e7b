//! A node among others: its word, once a second, and what it hears when it gives it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::authz::authorizer::Authorizer;
use crate::fleet::local_cache::LocalCache;
use crate::fleet::node_status::{NodeStatus, ShadowNodeStatus, short};
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, PrepareFailure, PushId};
use crate::rollout::Rollout;
use crate::shadow::shadow_policy::ShadowPolicy;
use crate::store::StoreError;
use crate::store::fleet::{FleetStore, HeartbeatReply, RecordRead};
use crate::util::clock::now_ms;
use crate::util::id::random_id;

/// A node gives word this often, and whenever something changes.
const BEAT: Duration = Duration::from_secs(1);
/// Who has given none for so long lives no longer.
pub const EXPIRY: Duration = Duration::from_secs(5);

/// Delay before a node tries a policy again that failed a stage: the cause may be fixed by then.
pub(super) const FAILED_STAGE_RETRY_DELAY: Duration = Duration::from_secs(30);
/// Delay before a node tries a policy again after a store error.
pub(super) const STORE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The fleet's notes, as they were read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FleetState {
    /// What is in force.
    pub current: Option<Vec<u8>>,
    /// What is to be prepared.
    pub candidate: Option<Vec<u8>>,
    /// What is to be asked beside.
    pub shadow: Option<Vec<u8>>,
}

/// What a node brings with it.
pub struct NodeConfig {
    /// The part of the store that is the fleet's.
    pub store: Arc<dyn FleetStore>,
    /// The door.
    pub authorizer: Arc<Authorizer>,
    /// The way to it.
    pub rollout: Rollout,
    /// What the node is called.
    pub name: String,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the policy is kept, on a node whose policy is the fleet's.
    pub copy: Option<LocalCache>,
    /// Decisions of the fleet's candidate at once.
    pub concurrency: usize,
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

/// A node's part in the fleet.
pub struct Fleet {
    pub(super) store: Arc<dyn FleetStore>,
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) rollout: Rollout,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) copy: Option<LocalCache>,
    pub(super) instance: String,
    /// Why the fleet's pointer is not in force here, if something else than the stages is to blame.
    pub(super) trouble: Mutex<Option<String>>,
    pub(super) applied: Mutex<Option<ActiveRecord>>,
    /// The fleet's candidate, or why it is not asked.
    pub(super) trial: Mutex<Option<ShadowOnThisNode>>,
    pub(super) concurrency: usize,
    /// What the store does not give this node, or does not take.
    denied: Mutex<Option<String>>,
    pub(super) heard: watch::Sender<FleetState>,
    pub(super) changed: Notify,
    pub(super) tasks: Mutex<Vec<AbortHandle>>,
}

impl Fleet {
    /// A node that says nothing yet.
    #[must_use]
    pub fn new(join: NodeConfig) -> Arc<Self> {
        let NodeConfig { store, authorizer, rollout, name, address, copy, concurrency } = join;
        let instance = random_id();
        Arc::new(Self {
            store,
            authorizer,
            rollout,
            name,
            address,
            copy,
            instance,
            trouble: Mutex::default(),
            applied: Mutex::default(),
            trial: Mutex::default(),
            concurrency,
            denied: Mutex::default(),
            heard: watch::Sender::new(FleetState::default()),
            changed: Notify::new(),
            tasks: Mutex::default(),
        })
    }

    /// Gives word once, so that a push that begins now counts this node. Without the store, it does so when that is back.
    pub async fn greet(&self) {
        if let Err(error) = self.store.heartbeat(&self.name, &record::note(&self.word()), EXPIRY, now_ms()).await {
            tracing::debug!(%error, "the fleet was not told of this node yet");
        }
    }

    /// The part of the store that is the fleet's.
    #[must_use]
    pub fn store(&self) -> &dyn FleetStore {
        &*self.store
    }

    /// Whether this node's policy is the fleet's.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.copy.is_some()
    }

    /// Why the fleet's policy is not in force here, if it is not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// This node's word.
    #[must_use]
    pub fn word(&self) -> NodeStatus {
        let info = self.authorizer.active();
        let push_id = lock(&self.applied).as_ref().map(|pointer| pointer.push_id.clone());
        NodeStatus {
            name: self.name.clone(),
            address: self.address.to_string(),
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            fleet_managed: self.follows(),
            source: info.as_ref().map(|info| {
                let until = if info.origin.persisted { "" } else { ", until it restarts" };
                short(&format!("{}{until}", info.origin.source))
            }),
            digest: info.as_ref().map(|info| info.digest.to_string()),
            generation: info.as_ref().map(|info| info.generation),
            sequence: info.as_ref().and_then(|info| info.origin.sequence),
            since: info.as_ref().map(|info| info.since),
            push_id,
            error: self.error(),
            shadow: lock(&self.trial).as_ref().map(ShadowOnThisNode::status),
            last_seen: now_ms(),
        }
    }

    fn error(&self) -> Option<String> {
        if let Some(trouble) = &*lock(&self.trouble) {
            return Some(short(trouble));
        }
        if let Some(denied) = &*lock(&self.denied) {
            return Some(short(denied));
        }
        let since = self.authorizer.active().map_or(0, |info| info.since);
        let refused = self.rollout.history().refused.front().cloned()?;
        (refused.time >= since).then(|| short(&refused.to_string()))
    }

    /// Something is to be told at once.
    pub(super) fn tell(&self) {
        self.changed.notify_one();
    }

    pub(super) async fn beat(self: Arc<Self>) {
        let mut every = tokio::time::interval(BEAT);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut away, mut given, mut doubled) = (false, false, false);
        loop {
            tokio::select! { _ = every.tick() => {}, () = self.changed.notified() => {} }
            let heard = self.store.heartbeat(&self.name, &record::note(&self.word()), EXPIRY, now_ms()).await;
            match heard {
                Ok(beat) => {
                    away = false;
                    let before = self.hear(beat);
                    let other = before.as_deref().and_then(|word| record::parse::<NodeStatus>(word).ok());
                    let twice = given && other.is_some_and(|other| other.instance != self.instance);
                    if twice && !std::mem::replace(&mut doubled, true) {
                        let name = &self.name;
                        tracing::error!(
                            node = name,
                            "another node has this name too: set fleet.node-name on both, or pushes cannot count them"
                        );
                    }
                    given = true;
                }
                Err(error) if !std::mem::replace(&mut away, true) => {
                    tracing::warn!(%error, "the fleet hears nothing from this node");
                }
                Err(_) => {}
            }
        }
    }

    /// Passes on what was read, and returns this node's word of before. What the store does not give is as it was.
    fn hear(&self, reply: HeartbeatReply) -> Option<Vec<u8>> {
        let HeartbeatReply { written, previous, active, pending, shadow } = reply;
        let mut denied = written.err();
        let mut or = |read: RecordRead, was: &Option<Vec<u8>>| {
            read.unwrap_or_else(|error| {
                denied.get_or_insert(error);
                was.clone()
            })
        };
        self.heard.send_if_modified(|was| {
            let heard = FleetState {
                current: or(active, &was.current),
                candidate: or(pending, &was.candidate),
                shadow: or(shadow, &was.shadow),
            };
            let changed = *was != heard;
            *was = heard;
            // What could not be put in force is tried again now and then, so that every word is passed on.
            changed || self.is_behind()
        });
        self.deny(denied.as_ref());
        previous.unwrap_or_default()
    }

    fn deny(&self, error: Option<&StoreError>) {
        let what = |error| format!("the store keeps a part of the fleet from this node: {error}");
        let now = error.map(what);
        let before = std::mem::replace(&mut *lock(&self.denied), now.clone());
        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
            tracing::error!(error = now, "the fleet is not followed as it should be");
        }
    }

    /// Whether something else than the fleet's pointer is in force.
    fn is_behind(&self) -> bool {
        self.follows() && lock(&self.trouble).is_some()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::fleet::node_status::nodes;
    use crate::policy::Limits;
    use crate::store::memory::fleet::MemoryFleetStore;
    use crate::store::memory::{MemoryStore, system_clock};
    use crate::wasm::compile::Compiler;
    use crate::wasm::host::PolicyEnv;

    fn node(store: &MemoryFleetStore, name: &str) -> Arc<Fleet> {
        let limits = Limits::default();
        let events = Arc::new(MemoryStore::new(1 << 16, HashMap::new(), system_clock()));
        let compiler = Compiler::new(&limits, None).expect("an engine");
        let authorizer = Arc::new(Authorizer::new(compiler, PolicyEnv::new(events, &limits), limits));
        Fleet::new(NodeConfig {
            store: Arc::new(store.clone()),
            rollout: Rollout::elsewhere(Arc::clone(&authorizer)),
            authorizer,
            name: name.into(),
            address: ([127, 0, 0, 1], 8080).into(),
            copy: None,
            concurrency: 1,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_publishes_the_status_and_reads_the_records() {
        let store = MemoryFleetStore::default();
        let node = node(&store, "a");
        let mut state = node.heard.subscribe();
        store.replace_active("first");
        let heartbeats = tokio::spawn(Arc::clone(&node).beat());
        state.changed().await.expect("the node lives");
        assert_eq!(state.borrow_and_update().current.as_deref(), Some(&b"first"[..]));
        let published = nodes(&store).await.expect("read");
        let published: Vec<_> =
            published.iter().map(|node| (&*node.name, &*node.address, node.fleet_managed)).collect();
        assert_eq!(published, [("a", "127.0.0.1:8080", false)]);
        heartbeats.abort();
        node.leave().await;
        assert_eq!(nodes(&store).await.expect("read"), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_keeps_the_last_records_while_the_store_is_unavailable() {
        let store = MemoryFleetStore::default();
        let node = node(&store, "a");
        let mut state = node.heard.subscribe();
        store.replace_active("first");
        let heartbeats = tokio::spawn(Arc::clone(&node).beat());
        state.changed().await.expect("the node lives");
        store.set_unavailable(true);
        tokio::time::sleep(BEAT * 3).await;
        assert_eq!(node.heard.borrow().current.as_deref(), Some(&b"first"[..]));
        store.set_unavailable(false);
        store.replace_active("second");
        tokio::time::sleep(BEAT * 2).await;
        assert_eq!(node.heard.borrow().current.as_deref(), Some(&b"second"[..]));
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
        node.hear(reply(Ok(Some(b"active".to_vec()))));
        assert_eq!(node.word().error, None);
        node.hear(reply(Err(StoreError::WrongType)));
        let state = node.heard.borrow().clone();
        assert_eq!(state.current.as_deref(), Some(&b"active"[..]));
        assert!(node.word().error.is_some_and(|error| error.contains("another type of value")));
        node.hear(reply(Ok(None)));
        assert_eq!((node.heard.borrow().current.clone(), node.word().error), (None, None));
    }
}
