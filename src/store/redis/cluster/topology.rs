//! The slot map of a cluster, and the task that keeps it current.
//!
//! Commands never wait for a refresh: they use the map that is there, and learn the place of a slot from redirections as well.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use rand::seq::SliceRandom;
use redis::aio::ConnectionLike;
use redis::{Client, ErrorKind, RedisError, Value, pipe};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::store::redis::cluster::nodes::NodePool;
use crate::store::redis::cluster::slot_map::{NodeAddress, SlotMap, text};
use crate::store::redis::connector::Connector;
use crate::store::redis::single::MasterWatcher;
use crate::store::slot::KeyScope;
use crate::store::url::Address;
use crate::telemetry::metrics::Metrics;

/// Between refreshes without a reason. A command finds out by itself that a slot has moved, so this is for nodes that were added.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum time between two refreshes, whatever asks for them.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(200);
/// The delay after a refresh without an answer.
const FAILED_REFRESH_DELAY: Duration = Duration::from_millis(500);
/// How long a node may take to answer before the next one is asked as well.
const HEDGE_DELAY: Duration = Duration::from_millis(300);
/// For a node to answer. Shorter than a long timeout of the store: the next refresh asks again.
const MAX_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum nodes that one refresh asks.
const MAX_ASKED_NODES: usize = 12;

/// The nodes of a cluster that its URL names, and how to connect to any node.
pub(crate) struct ClusterNodes {
    pub seeds: Vec<Address>,
    pub connector: Arc<Connector>,
}

impl ClusterNodes {
    /// A client of one node.
    pub fn client(&self, address: &NodeAddress) -> Result<Client, RedisError> {
        self.connector.client(&Address { host: address.host.to_string(), port: address.port })
    }

    fn seeds(&self) -> impl Iterator<Item = NodeAddress> {
        self.seeds.iter().map(|seed| NodeAddress::new(&seed.host, seed.port))
    }
}

/// What a cluster says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ClusterState {
    /// Whether the node serves its slots; `None` if it does not say.
    pub is_ok: Option<bool>,
    /// Greater after each failover.
    epoch: u64,
}

impl ClusterState {
    /// Parses the reply to `CLUSTER INFO`.
    pub fn parse(reply: &Value) -> Self {
        let field = |name: &str| text(reply)?.lines().find_map(|line| line.strip_prefix(name));
        Self {
            is_ok: field("cluster_state:").map(|state| state.trim() == "ok"),
            epoch: field("cluster_current_epoch:").and_then(|epoch| epoch.trim().parse().ok()).unwrap_or_default(),
        }
    }
}

/// The slot map, shared by all links. The last clone ends the task.
#[derive(Clone)]
pub(crate) struct ClusterTopology {
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
    pub watcher: Arc<MasterWatcher>,
    /// The connections of each link, to drop those to nodes that left.
    pools: Mutex<Vec<Weak<NodePool>>>,
    pub metrics: Arc<Metrics>,
}

impl ClusterTopology {
    /// Starts the task, which asks the first node at once. `timeout` bounds connecting and each reply, at most two seconds.
    pub fn start(nodes: ClusterNodes, timeout: Duration, watcher: Arc<MasterWatcher>, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared {
            nodes,
            map: watch::Sender::default(),
            replacing: Mutex::default(),
            failure: watch::Sender::default(),
            is_down: Mutex::default(),
            uncovered: Mutex::default(),
            refresh: Notify::default(),
            last_answered: Mutex::default(),
            watcher,
            pools: Mutex::default(),
            metrics,
        });
        let timeout = timeout.min(MAX_ANSWER_TIMEOUT);
        let control = NodePool::new(&shared, timeout, timeout, false);
        let mut task = JoinSet::new();
        task.spawn(keep_current(Arc::clone(&shared), Arc::clone(&control)));
        Self { shared, control, _task: Arc::new(task) }
    }

    /// Connections for one purpose. `has_reads` says whether channels are read over them.
    pub fn pool(&self, timeout: Duration, reply_timeout: Duration, has_reads: bool) -> Arc<NodePool> {
        NodePool::new(&self.shared, timeout, reply_timeout, has_reads)
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

    pub fn add_pool(&self, pool: &Arc<NodePool>) {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    pub fn master_changed(&self, keys: &KeyScope) {
        self.watcher.changed(keys);
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
    fn candidates(&self) -> Vec<NodeAddress> {
        let mut known: Vec<_> = self.map().nodes().keys().cloned().collect();
        known.shuffle(&mut rand::rng());
        let mut seeds: Vec<_> = self.nodes.seeds().collect();
        // At first the order of the URL counts.
        if !known.is_empty() {
            seeds.shuffle(&mut rand::rng());
        }
        let mut candidates: Vec<NodeAddress> = Vec::new();
        for node in self.last_answered.lock().clone().into_iter().chain(known).chain(seeds) {
            if !candidates.contains(&node) {
                candidates.push(node);
            }
        }
        candidates
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

/// Asks for the map at intervals and when it is needed. There is one such task, so that there is one refresh at a time.
async fn keep_current(shared: Arc<Shared>, control: Arc<NodePool>) {
    loop {
        let delay = match ask_nodes(&shared, &control).await {
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

/// What a node says about the cluster.
struct Answer {
    node: NodeAddress,
    state: ClusterState,
    map: SlotMap,
}

/// Asks one node after another until one says that the cluster is up. If none does, the one with the greatest epoch knows best: an isolated
/// node knows of no failover.
async fn ask_nodes(shared: &Shared, control: &NodePool) -> Result<Answer, RedisError> {
    let mut left = shared.candidates().into_iter().take(MAX_ASKED_NODES);
    let (mut asked, mut best, mut failures) = (FuturesUnordered::new(), None::<Answer>, Failures::default());
    loop {
        asked.extend(left.next().map(|node| ask(node, control)));
        match tokio::time::timeout(HEDGE_DELAY, asked.next()).await {
            Ok(Some(Ok(answer))) if answer.state.is_ok != Some(false) => return Ok(answer),
            Ok(Some(Ok(answer))) => {
                if best.as_ref().is_none_or(|best| answer.state.epoch > best.state.epoch) {
                    best = Some(answer);
                }
            }
            Ok(Some(Err((node, error)))) => failures.0.push((node, error)),
            Ok(None) => return best.ok_or_else(|| failures.into()),
            // The node may still answer; meanwhile the next one is asked as well.
            Err(_) => {}
        }
    }
}

async fn ask(node: NodeAddress, control: &NodePool) -> Result<Answer, (NodeAddress, RedisError)> {
    let mut commands = pipe();
    commands.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    let replies = control.get(&node).req_packed_commands(&commands, 0, 2).await;
    let replies = match replies.map(<[Value; 2]>::try_from) {
        Ok(Ok(replies)) => replies,
        Ok(Err(_)) => return Err((node, (ErrorKind::UnexpectedReturnType, "not two replies").into())),
        Err(error) => return Err((node, error)),
    };
    match replies {
        [_, Value::ServerError(error)] => Err((node, error.into())),
        [info, slots] => match SlotMap::parse(&slots, &node) {
            // It left the cluster, or the cluster is not created yet.
            Some(map) if map.is_empty() => Err((node, (ErrorKind::Io, "it is in no cluster with slots").into())),
            Some(map) => Ok(Answer { state: ClusterState::parse(&info), map, node }),
            None => Err((node, (ErrorKind::UnexpectedReturnType, "CLUSTER SLOTS returned no slots").into())),
        },
    }
}

pub(super) fn no_answer() -> RedisError {
    (ErrorKind::Io, "no node of the cluster has said where its slots are").into()
}

/// Why no node answered.
#[derive(Default)]
struct Failures(Vec<(NodeAddress, RedisError)>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (node, error)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            // The library appends the kind of an error to its text.
            let text = error.to_string().replacen(&format!(" - {:?}", error.kind()), "", 1);
            write!(f, "{separator}{node}: {text}")?;
        }
        Ok(())
    }
}

impl From<Failures> for RedisError {
    /// The error of a server says more than one of a connection, so it keeps its code.
    fn from(failures: Failures) -> Self {
        let reply = failures.0.iter().find(|(_, error)| error.clone().into_server_errors().is_some());
        match reply {
            Some((_, error)) => error.clone(),
            None => (ErrorKind::Io, "no node of the cluster answers", failures.to_string()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_the_cluster_is_read() {
        let info = |text: &str| ClusterState::parse(&Value::BulkString(text.into()));
        let ok = info("cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:7\r\n");
        assert_eq!(ok, ClusterState { is_ok: Some(true), epoch: 7 });
        assert_eq!(info("cluster_state:fail\r\n").is_ok, Some(false));
        assert_eq!(ClusterState::parse(&Value::Nil), ClusterState::default());
    }

    #[test]
    fn error_names_every_node_that_was_asked() {
        let refused = || RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let failures = Failures(vec![(NodeAddress::new("a", 1), refused()), (NodeAddress::new("b", 2), refused())]);
        let error = RedisError::from(failures);
        assert!(error.is_io_error());
        let text = error.to_string();
        assert!(text.contains("a:1: connection refused; b:2: connection refused"), "{text}");
    }
}
