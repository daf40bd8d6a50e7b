//! The node of a cluster at which to subscribe, and the proof that it gets the messages of the others.
//!
//! A node passes a message to the nodes that it knows. A node that was cut off or removed keeps its connections to clients and gets nothing, so
//! neither a ping nor a confirmed subscription proves anything: a canary does, a message that this process publishes through another node.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::seq::{IndexedRandom, SliceRandom};
use redis::aio::ConnectionLike;
use redis::{Client, ErrorKind, RedisError, Value, cmd, pipe};

use crate::store::redis::cluster::ask::ClusterState;
use crate::store::redis::cluster::slot_map::{NodeAddress, SlotMap};
use crate::store::redis::cluster::topology::ClusterTopology;
use crate::store::redis::node_link::{Changes, NodeSource};
use crate::store::redis::notifications::{CanaryReceiver, NotificationSource};

const CANARY_INTERVAL: Duration = Duration::from_secs(5);
/// For a canary to arrive. Shorter than a long timeout of the store: only the connection is lost after it.
const MAX_CANARY_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum nodes through which one proof is tried.
const MAX_PUBLISHERS: usize = 5;
/// Maximum nodes that are asked which nodes are connected.
const MAX_WITNESSES: usize = 5;

pub(crate) struct ClusterNotifications {
    topology: ClusterTopology,
    /// For a canary to arrive.
    timeout: Duration,
    canary_channel: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The node of the last client.
    node: Option<NodeAddress>,
    /// Canaries that were published.
    canaries: u64,
    /// The node through which the last canary went; the next one goes through another.
    publisher: Option<NodeAddress>,
}

/// What became of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Canary {
    Arrived,
    /// It was published and did not arrive in time.
    Lost,
    /// It was not published, so it proves nothing.
    Unpublished,
}

impl ClusterNotifications {
    pub fn new(topology: &ClusterTopology, timeout: Duration, canary_channel: String) -> Self {
        let timeout = timeout.min(MAX_CANARY_TIMEOUT);
        Self { topology: topology.clone(), timeout, canary_channel, state: Mutex::default() }
    }

    /// Publishes a canary through a node, and waits until it arrives.
    async fn canary(&self, through: &NodeAddress, canaries: &CanaryReceiver) -> Canary {
        let number = {
            let mut state = self.state.lock();
            state.canaries += 1;
            state.canaries
        };
        let mut commands = pipe();
        commands.cmd("CLUSTER").arg("INFO").cmd("PUBLISH").arg(&self.canary_channel).arg(number);
        let replies = self.topology.control.get(through).req_packed_commands(&commands, 0, 2).await;
        let Ok([info, Value::Int(_)]) =
            replies.map(|replies| <[Value; 2]>::try_from(replies).unwrap_or([Value::Nil, Value::Nil]))
        else {
            return Canary::Unpublished;
        };
        let arrived = canaries.clone();
        let arrived = async move {
            let mut arrived = arrived;
            arrived.wait_for(|last| *last >= number).await.is_ok()
        };
        if tokio::time::timeout(self.timeout, arrived).await.unwrap_or_default() {
            return Canary::Arrived;
        }
        self.topology.shared.metrics.canary_failures.inc();
        // A node that says that the cluster is down may be the one that is cut off.
        if ClusterState::parse(&info).is_ok == Some(false) { Canary::Unpublished } else { Canary::Lost }
    }

    /// Sends canaries through other nodes until one arrives, or two do not. Through the node itself only if no other one takes it.
    async fn send_canaries(&self, canaries: &CanaryReceiver) -> Result<(), RedisError> {
        let (node, last) = {
            let state = self.state.lock();
            (state.node.clone(), state.publisher.clone())
        };
        let Some(node) = node else { return Ok(()) };
        let mut is_lost = false;
        for publisher in publishers(&self.topology.map(), &node, last.as_ref()) {
            match self.canary(&publisher, canaries).await {
                Canary::Arrived => {
                    self.state.lock().publisher = Some(publisher);
                    return Ok(());
                }
                Canary::Lost if is_lost => break,
                Canary::Lost => is_lost = true,
                Canary::Unpublished => {}
            }
        }
        if !is_lost && self.canary(&node, canaries).await == Canary::Arrived {
            return Ok(());
        }
        self.topology.refresh();
        Err((ErrorKind::Io, "messages of other nodes of the cluster do not arrive through", node.to_string()).into())
    }

    /// The nodes that another node lists as connected, by their ids.
    async fn live_nodes(&self, map: &SlotMap) -> Option<(NodeAddress, Vec<String>)> {
        let mut witnesses: Vec<_> = map.nodes().keys().cloned().collect();
        witnesses.shuffle(&mut rand::rng());
        let best = self.topology.any_node();
        let rest = witnesses.into_iter().filter(|node| Some(node) != best.as_ref());
        for witness in best.clone().into_iter().chain(rest).take(MAX_WITNESSES) {
            let reply: Result<String, RedisError> =
                cmd("CLUSTER").arg("NODES").query_async(&mut self.topology.control.get(&witness)).await;
            if let Ok(list) = reply {
                return Some((witness, list.lines().filter_map(connected_node).map(str::to_owned).collect()));
            }
        }
        None
    }
}

/// The other nodes, in turns: each publishes the canary some time, because each sends its messages by itself. Masters come first, for they
/// publish the events.
fn publishers(map: &SlotMap, node: &NodeAddress, last: Option<&NodeAddress>) -> Vec<NodeAddress> {
    let mut masters = map.masters();
    if let Some(at) = masters.iter().position(|master| Some(master) == last) {
        let next = (at + 1) % masters.len();
        masters.rotate_left(next);
    }
    let replicas = map.nodes().keys().filter(|other| !masters.contains(other)).cloned();
    let all = masters.clone().into_iter().chain(replicas);
    all.filter(|other| other != node).take(MAX_PUBLISHERS).collect()
}

/// The id of a node in a line of `CLUSTER NODES`, if the node that replied is connected to it:
/// `<id> <address> <flags> <master> <ping> <pong> <epoch> <connected|disconnected> <slots>`.
fn connected_node(line: &str) -> Option<&str> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [id, _, flags, _, _, _, _, link, ..] = fields[..] else { return None };
    let is_dead = |flag| matches!(flag, "myself" | "fail" | "fail?" | "handshake" | "noaddr");
    (link == "connected" && !flags.split(',').any(is_dead)).then_some(id)
}

/// One of the nodes that are connected, preferably another one than before.
fn choose(map: &SlotMap, live: &[String], before: Option<&NodeAddress>) -> Option<NodeAddress> {
    let nodes = map.nodes().iter().filter(|(_, id)| live.contains(id)).map(|(node, _)| node);
    let others: Vec<_> = nodes.clone().filter(|node| Some(*node) != before).collect();
    let nodes: Vec<_> = nodes.collect();
    others.choose(&mut rand::rng()).or_else(|| nodes.choose(&mut rand::rng())).map(|node| (*node).clone())
}

#[async_trait]
impl NodeSource for ClusterNotifications {
    /// A client of a node that another one is connected to.
    async fn client(&self) -> Result<Client, RedisError> {
        let map = self.topology.first_map(self.timeout).await?;
        let before = self.state.lock().node.clone();
        let Some((witness, live)) = self.live_nodes(&map).await else {
            self.topology.refresh();
            return Err((ErrorKind::Io, "no node of the cluster says which nodes are connected").into());
        };
        // The only node that answers is better than none.
        let node = choose(&map, &live, before.as_ref()).unwrap_or(witness);
        let client = self.topology.shared.nodes.client(&node);
        tracing::debug!(%node, "subscribing at this node of the cluster");
        self.state.lock().node = Some(node);
        client
    }

    fn renewals(&self) -> Changes {
        self.topology.shared.nodes.connector.renewals()
    }
}

#[async_trait]
impl NotificationSource for ClusterNotifications {
    fn canary_channel(&self) -> Option<&str> {
        Some(&self.canary_channel)
    }

    async fn prove(&self, canaries: &CanaryReceiver) -> Result<(), RedisError> {
        self.send_canaries(canaries).await
    }

    async fn failed(&self, canaries: &CanaryReceiver) -> RedisError {
        let node = self.state.lock().node.clone();
        let mut changes = self.topology.changes();
        let left = changes.wait_for(|map| node.as_ref().is_some_and(|node| !map.contains(node)));
        let canaries = async {
            loop {
                tokio::time::sleep(CANARY_INTERVAL).await;
                if let Err(error) = self.send_canaries(canaries).await {
                    return error;
                }
            }
        };
        tokio::select! {
            // Without a sender the runtime is shutting down.
            _ = left => (ErrorKind::Io, "the node with the subscription left the cluster").into(),
            error = canaries => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_that_another_node_is_connected_to_are_live() {
        let line = |flags: &str, link: &str| {
            format!("07c37df 127.0.0.1:30004@31004 {flags} - 0 1426238317239 4 {link} 0-5460")
        };
        for (flags, link, expect) in [
            ("master", "connected", true),
            ("slave", "connected", true),
            ("myself,master", "connected", false),
            ("master,fail?", "connected", false),
            ("slave,fail", "connected", false),
            ("master", "disconnected", false),
            ("handshake", "connected", false),
            ("slave,noaddr", "connected", false),
            ("master,nofailover", "connected", true),
        ] {
            let line = line(flags, link);
            assert_eq!(connected_node(&line), expect.then_some("07c37df"), "{line}");
        }
        assert_eq!(connected_node(""), None);
        assert_eq!(connected_node("07c37df 127.0.0.1:30004"), None);
    }

    fn at(port: u16) -> NodeAddress {
        NodeAddress::new("h", port)
    }

    /// Masters on ports 1 to 3, replicas on 4 and 5; the id of a node is its port.
    fn map() -> SlotMap {
        let node = |port: u16| {
            Value::Array(vec![
                Value::BulkString("h".into()),
                Value::Int(port.into()),
                Value::BulkString(port.to_string().into()),
            ])
        };
        let range = |first, last, nodes: &[u16]| {
            let nodes = nodes.iter().map(|port| node(*port)).collect();
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let reply = Value::Array(vec![range(0, 9, &[1, 4]), range(10, 19, &[2, 5]), range(20, 16_383, &[3])]);
        SlotMap::parse(&reply, &at(1)).expect("a map")
    }

    #[test]
    fn canaries_go_through_each_other_node_in_turns() {
        let next = |node, last: Option<u16>| publishers(&map(), &at(node), last.map(at).as_ref());
        assert_eq!(next(1, None), [at(2), at(3), at(4), at(5)]);
        assert_eq!(next(4, Some(1)), [at(2), at(3), at(1), at(5)]);
        assert_eq!(next(4, Some(3)), [at(1), at(2), at(3), at(5)]);
        assert_eq!(next(1, Some(3)), [at(2), at(3), at(4), at(5)]);
    }

    #[test]
    fn another_node_than_before_is_chosen() {
        let live = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>();
        assert_eq!(choose(&map(), &live(&[2, 4]), Some(&at(4))), Some(at(2)));
        assert_eq!(choose(&map(), &live(&[4]), Some(&at(4))), Some(at(4)), "it is the only live one");
        assert_eq!(choose(&map(), &live(&[9]), None), None);
    }
}
