//! The slot map of a cluster, and the task that keeps it current.
//!
//! Commands never wait for a refresh: they use the map that is there, and learn the place of a slot from redirections as well.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rand::seq::SliceRandom;
use redis::{Client, ConnectionAddr, ConnectionInfo, RedisError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::store::NotificationHandler;
use crate::store::redis::cluster::ask::{Answer, ask_nodes, no_answer};
use crate::store::redis::cluster::nodes::{NodeDirectory, NodePool};
use crate::store::redis::cluster::slot_map::{NodeAddress, SlotMap};
use crate::store::slot::KeyScope;
use crate::telemetry::metrics::Metrics;

/// Between refreshes without a reason. A command finds out by itself that a slot has moved, so this is for nodes that were added.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum time between two refreshes, whatever asks for them.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(200);
/// The delay after a refresh without an answer.
const FAILED_REFRESH_DELAY: Duration = Duration::from_millis(500);
/// For a node to answer. Shorter than a long timeout of the store: the next refresh asks again.
const MAX_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The nodes of a cluster that its URL names, and how to connect to any node.
#[derive(Clone)]
pub struct ClusterNodes {
    pub seeds: Vec<(String, u16)>,
    /// Credentials, protocol and TLS of all nodes; its host and port are not used.
    pub template: ConnectionInfo,
}

impl ClusterNodes {
    /// A client of one node.
    pub(crate) fn client(&self, address: &NodeAddress) -> Result<Client, RedisError> {
        let (host, port) = (address.host.to_string(), address.port);
        let address = match self.template.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Client::open(self.template.clone().set_addr(address))
    }

    fn seeds(&self) -> impl Iterator<Item = NodeAddress> {
        self.seeds.iter().map(|(host, port)| NodeAddress::new(host, *port))
    }
}

/// The slot map, shared by all links. The last clone ends the task.
#[derive(Clone)]
pub(crate) struct Topology {
    pub(super) shared: Arc<Shared>,
    /// Connections for questions about the cluster and for canaries.
    pub(super) control: Arc<NodePool>,
    _task: Arc<JoinSet<()>>,
}

pub(super) struct Shared {
    pub nodes: ClusterNodes,
    map: watch::Sender<Arc<SlotMap>>,
    /// Held while a map replaces another, so that the handler hears of changes in their order.
    replacing: Mutex<()>,
    /// Why the last refresh failed, if it did.
    failure: watch::Sender<Option<RedisError>>,
    /// Whether the cluster said at the last refresh that it is down.
    is_down: Mutex<bool>,
    /// The slots without a master at the last refresh.
    uncovered: Mutex<usize>,
    refresh: Notify,
    /// The node that answered last.
    last_answered: Mutex<Option<NodeAddress>>,
    handler: OnceLock<Weak<dyn NotificationHandler>>,
    /// The connections of each link, to drop those to nodes that left.
    pools: Mutex<Vec<Weak<NodePool>>>,
    pub metrics: Arc<Metrics>,
}

impl Topology {
    /// Starts the task, which asks the first node at once. `timeout` bounds connecting and each reply, at most two seconds.
    pub fn start(nodes: ClusterNodes, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared {
            nodes,
            map: watch::Sender::default(),
            replacing: Mutex::default(),
            failure: watch::Sender::default(),
            is_down: Mutex::default(),
            uncovered: Mutex::default(),
            refresh: Notify::default(),
            last_answered: Mutex::default(),
            handler: OnceLock::new(),
            pools: Mutex::default(),
            metrics,
        });
        let timeout = timeout.min(MAX_ANSWER_TIMEOUT);
        let control = shared.pool(timeout, timeout, false);
        let mut task = JoinSet::new();
        task.spawn(keep_current(Arc::clone(&shared), Arc::clone(&control)));
        Self { shared, control, _task: Arc::new(task) }
    }

    /// Connections for one purpose. `has_reads` says whether channels are read over them.
    pub fn pool(&self, timeout: Duration, reply_timeout: Duration, has_reads: bool) -> Arc<NodePool> {
        self.shared.pool(timeout, reply_timeout, has_reads)
    }

    /// The handler hears from now on which slots have another master.
    pub fn set_handler(&self, handler: Weak<dyn NotificationHandler>) {
        // It is set once.
        let _ = self.shared.handler.set(handler);
    }

    pub fn map(&self) -> Arc<SlotMap> {
        self.shared.map()
    }

    pub fn changes(&self) -> watch::Receiver<Arc<SlotMap>> {
        self.shared.map.subscribe()
    }

    /// Asks for a refresh soon.
    pub fn refresh(&self) {
        self.shared.refresh.notify_one();
    }

    /// The node that most recently said something about the cluster, or else another one.
    pub fn any_node(&self) -> Option<NodeAddress> {
        let last = self.shared.last_answered.lock().clone();
        let map = self.map();
        last.filter(|node| map.contains(node)).or_else(|| map.nodes().keys().next().cloned())
    }

    /// Why there is no map, or why it is old.
    pub fn failure(&self) -> Option<RedisError> {
        self.shared.failure.borrow().clone()
    }

    /// Waits for the first map, or for the reason why there is none.
    pub async fn first_map(&self, timeout: Duration) -> Result<Arc<SlotMap>, RedisError> {
        let (mut maps, mut failures) = (self.shared.map.subscribe(), self.shared.failure.subscribe());
        tokio::select! {
            Ok(map) = maps.wait_for(|map| !map.is_empty()) => Ok(Arc::clone(&map)),
            Ok(failure) = failures.wait_for(Option::is_some) => Err(failure.clone().unwrap_or_else(no_answer)),
            () = tokio::time::sleep(timeout) => Err(no_answer()),
            // Without senders the runtime is shutting down.
            else => Err(no_answer()),
        }
    }

    /// Whether the cluster said at the last refresh that it is down.
    pub fn is_down(&self) -> bool {
        *self.shared.is_down.lock()
    }

    /// Takes in a redirection: this node is the master of the slot.
    pub fn moved(&self, slot: u16, address: &NodeAddress) {
        self.shared.replace(|map| {
            let mut map = map.clone();
            map.set_master(slot, address);
            map
        });
        self.refresh();
    }
}

impl Shared {
    pub fn map(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.borrow())
    }

    fn pool(self: &Arc<Self>, connect_timeout: Duration, reply_timeout: Duration, has_reads: bool) -> Arc<NodePool> {
        let directory: Weak<dyn NodeDirectory> = Arc::<Self>::downgrade(self);
        let pool = Arc::new(NodePool::new(directory, connect_timeout, reply_timeout, has_reads));
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(&pool));
        pool
    }

    fn master_changed(&self, keys: &KeyScope) {
        if let Some(handler) = self.handler.get().and_then(Weak::upgrade) {
            handler.master_changed(keys);
        }
    }

    /// Replaces the map. The handler hears of slots with another master before the first command can go there.
    fn replace(&self, change: impl FnOnce(&SlotMap) -> SlotMap) {
        let _guard = self.replacing.lock();
        let older = self.map();
        let newer = change(&older);
        if newer == *older {
            return;
        }
        let changed = newer.changes_since(&older);
        if !changed.is_empty() {
            self.master_changed(&KeyScope::Slots(changed));
        }
        self.map.send_replace(Arc::new(newer));
    }

    /// Drops the connections to nodes that left the cluster.
    fn drop_old_connections(&self) {
        let map = self.map();
        for pool in self.pools.lock().iter().filter_map(Weak::upgrade) {
            pool.retain(|address| map.contains(address));
        }
    }

    /// The nodes to ask, the best one first: the one that answered last, then the others of the map, then those of the URL.
    fn nodes_to_ask(&self) -> Vec<NodeAddress> {
        let mut known: Vec<_> = self.map().nodes().keys().cloned().collect();
        known.shuffle(&mut rand::rng());
        let mut seeds: Vec<_> = self.nodes.seeds().collect();
        // At first the order of the URL counts.
        if !known.is_empty() {
            seeds.shuffle(&mut rand::rng());
        }
        let mut nodes: Vec<NodeAddress> = Vec::new();
        for node in self.last_answered.lock().clone().into_iter().chain(known).chain(seeds) {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes
    }

    /// Takes in the answer of a node.
    fn answered(&self, answer: Answer) {
        let mut map = answer.map;
        let uncovered = map.slots_without_master();
        // Before the map: a check waits for that.
        let is_down = answer.state.is_ok == Some(false);
        self.metrics.cluster_down.set(is_down.into());
        if std::mem::replace(&mut *self.is_down.lock(), is_down) != is_down {
            if is_down {
                tracing::warn!("the cluster is down: slots have no master, or most masters cannot be reached");
            } else {
                tracing::info!("the cluster is up again");
            }
        }
        self.metrics.slots_without_master.set(i64::try_from(uncovered).unwrap_or(i64::MAX));
        if std::mem::replace(&mut *self.uncovered.lock(), uncovered) != uncovered && uncovered > 0 {
            tracing::warn!(
                slots = uncovered,
                "no node of the cluster is the master of these slots: their channels have no events"
            );
        }
        self.replace(|older| {
            map.keep_masters_of(older);
            map
        });
        self.drop_old_connections();
        *self.last_answered.lock() = Some(answer.node);
        self.failure.send_replace(None);
    }

    fn failed(&self, error: RedisError) {
        self.metrics.topology_failures.inc();
        *self.last_answered.lock() = None;
        if self.failure.borrow().is_none() && !self.map().is_empty() {
            tracing::warn!(%error, "no node of the cluster says where its slots are; the last map stays in use");
        }
        self.failure.send_replace(Some(error));
    }
}

impl NodeDirectory for Shared {
    fn client(&self, node: &NodeAddress) -> Result<Client, RedisError> {
        self.nodes.client(node)
    }

    /// The node may have restarted, with other data.
    fn connected(&self, node: &NodeAddress) {
        let slots = self.map().slots_of(node);
        if !slots.is_empty() {
            self.master_changed(&KeyScope::Slots(slots));
        }
    }
}

/// Asks for the map at intervals and when it is needed. There is one such task, so that there is one refresh at a time.
async fn keep_current(shared: Arc<Shared>, control: Arc<NodePool>) {
    loop {
        let delay = match ask_nodes(shared.nodes_to_ask(), &control).await {
            Ok(answer) => {
                shared.metrics.topology_refreshes.inc();
                shared.answered(answer);
                REFRESH_INTERVAL
            }
            Err(error) => {
                shared.failed(error);
                FAILED_REFRESH_DELAY
            }
        };
        tokio::time::sleep(MIN_REFRESH_INTERVAL).await;
        // A timeout is the usual case.
        let _ = tokio::time::timeout(delay, shared.refresh.notified()).await;
    }
}
