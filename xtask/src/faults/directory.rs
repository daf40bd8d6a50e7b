//! Where the master of a channel is: what an emitter asks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::node::Node;
use super::resp::{self, Reply};
use super::topology::{Kind, MASTER_NAME};

/// The limit of a question.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The ports of a topology, which never change.
#[derive(Clone, Debug)]
pub struct Directory {
    kind: Kind,
    /// Own port and announced port of each node.
    nodes: Vec<(u16, u16)>,
    sentinels: Vec<u16>,
}

impl Directory {
    pub fn new(kind: Kind, nodes: &[Node], sentinels: &[Node]) -> Self {
        Self {
            kind,
            nodes: nodes.iter().map(|node| (node.port, node.announced())).collect(),
            sentinels: sentinels.iter().map(|node| node.port).collect(),
        }
    }

    /// The masters' own ports by the last slot that they serve; a store without slots has one master for all. Empty if no node knows.
    pub fn masters(&self) -> BTreeMap<u16, u16> {
        match self.kind {
            Kind::Single => self.nodes.iter().take(1).map(|(port, _)| (u16::MAX, *port)).collect(),
            Kind::Cluster => self.nodes.iter().find_map(|(port, _)| self.cluster_masters(*port)).unwrap_or_default(),
            Kind::Sentinel => self.sentinels.iter().find_map(|port| self.sentinel_master(*port)).unwrap_or_default(),
        }
    }

    /// The own port of a node that is known by its announced port, as in a redirection.
    pub fn own_port(&self, announced: u16) -> Option<u16> {
        self.nodes.iter().find(|(_, other)| *other == announced).map(|(port, _)| *port)
    }

    fn cluster_masters(&self, port: u16) -> Option<BTreeMap<u16, u16>> {
        let state = resp::command(port, &["CLUSTER", "INFO"], TIMEOUT).ok()?;
        if !state.text().contains("cluster_state:ok") {
            return None;
        }
        let slots = resp::command(port, &["CLUSTER", "SLOTS"], TIMEOUT).ok()?;
        let number = |reply: &Reply| u16::try_from(reply.int()).ok();
        let range = |range: &Reply| {
            let master = number(range.array().get(2)?.array().get(1)?)?;
            Some((number(range.array().get(1)?)?, self.own_port(master)?))
        };
        slots.array().iter().map(range).collect()
    }

    fn sentinel_master(&self, port: u16) -> Option<BTreeMap<u16, u16>> {
        let address = resp::command(port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME], TIMEOUT).ok()?;
        let announced = address.array().get(1)?.text().parse().ok()?;
        Some(BTreeMap::from([(u16::MAX, self.own_port(announced)?)]))
    }
}
