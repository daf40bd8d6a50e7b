//! The processes of Redis in a run: a single master with a replica, a cluster, or a group with sentinels.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::directory::Directory;
use super::node::Node;
use super::processes::Reaper;
use super::resp::Reply;

/// Longer than any step takes on a busy machine.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// The name of the master that sentinels monitor.
pub const MASTER_NAME: &str = "tidegate";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Single,
    Cluster,
    Sentinel,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Single, Self::Cluster, Self::Sentinel];

    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Cluster => "cluster",
            Self::Sentinel => "sentinel",
        }
    }

    /// Data nodes and sentinels.
    fn size(self) -> (usize, usize) {
        match self {
            Self::Single => (2, 0),
            Self::Cluster => (6, 0),
            Self::Sentinel => (3, 3),
        }
    }
}

pub struct Topology {
    pub kind: Kind,
    pub nodes: Vec<Node>,
    pub sentinels: Vec<Node>,
    pub directory: Directory,
    /// How nodes sync the append-only file.
    pub appendfsync: &'static str,
}

impl Topology {
    /// Starts all processes and waits until they are one healthy store. With `durable` a master accepts commands only with a replica.
    pub fn start(kind: Kind, durable: bool, root: &Path, reaper: &Reaper, clock: Option<&Path>) -> Result<Self> {
        let (nodes, sentinels) = kind.size();
        let new =
            |n: usize, name: &str, source: usize| Node::new(root, &format!("{name}-{n}"), u8::try_from(source)?, clock);
        let mut nodes: Vec<Node> = (0..nodes).map(|n| new(n, "redis", n + 1)).collect::<Result<_>>()?;
        let mut sentinels: Vec<Node> = (0..sentinels).map(|n| new(n, "sentinel", n + 101)).collect::<Result<_>>()?;
        for node in &mut nodes {
            node.add_links(kind == Kind::Cluster)?;
            node.mount_disk(reaper);
        }
        // A single master has no replica to take over: it syncs before it replies.
        let appendfsync = if kind == Kind::Single { "always" } else { "everysec" };
        let first = nodes.first().map_or(0, Node::announced);
        for (n, node) in nodes.iter_mut().enumerate() {
            let mut lines = format!("appendfsync {appendfsync}\n");
            if durable && kind != Kind::Single {
                lines += "min-replicas-to-write 1\n";
            }
            match (kind, &node.bus) {
                (Kind::Cluster, Some((bus, link))) => {
                    lines += &format!(
                        "cluster-enabled yes\ncluster-port {bus}\ncluster-announce-ip 127.0.0.1\ncluster-announce-port {}\n\
                         cluster-announce-bus-port {}\ncluster-node-timeout 2000\n",
                        node.announced(),
                        link.port
                    );
                }
                _ => {
                    lines += &format!("replica-announce-ip 127.0.0.1\nreplica-announce-port {}\n", node.announced());
                    if n > 0 {
                        lines += &format!("replicaof 127.0.0.1 {first}\n");
                    }
                }
            }
            node.configure(&lines)?;
            node.start(reaper)?;
        }
        for node in &mut sentinels {
            node.configure_sentinel(&format!(
                "sentinel announce-ip 127.0.0.1\nsentinel monitor {MASTER_NAME} 127.0.0.1 {first} 2\nsentinel down-after-milliseconds {MASTER_NAME} 2000\n\
                 sentinel failover-timeout {MASTER_NAME} 6000\nsentinel parallel-syncs {MASTER_NAME} 2\n"
            ))?;
            node.start(reaper)?;
        }
        let directory = Directory::new(kind, &nodes, &sentinels);
        let mut topology = Self { kind, nodes, sentinels, directory, appendfsync };
        topology.wait("the processes of Redis answer", |topology| {
            let all = || topology.nodes.iter().chain(&topology.sentinels);
            all().find(|node| node.admin(&["PING"]).is_none()).map(|node| format!("{} does not", node.name))
        })?;
        if kind == Kind::Cluster {
            topology.create_cluster()?;
        }
        topology.wait_until_healthy()?;
        Ok(topology)
    }

    fn create_cluster(&self) -> Result<()> {
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.announced())));
        let output = create.args(["--cluster-replicas", "1", "--cluster-yes"]).output().context("redis-cli")?;
        ensure!(output.status.success(), "redis-cli: {}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    /// The URL for gateways, without `database` or credentials.
    pub fn url(&self) -> String {
        let list = |nodes: &[Node]| {
            nodes.iter().map(|node| format!("127.0.0.1:{}", node.announced())).collect::<Vec<_>>().join(",")
        };
        match self.kind {
            Kind::Single => format!("redis://{}", list(&self.nodes[..1])),
            Kind::Cluster => format!("redis-cluster://{}", list(&self.nodes)),
            Kind::Sentinel => format!("redis-sentinel://{}/{MASTER_NAME}", list(&self.sentinels)),
        }
    }

    /// The nodes that are masters now, and the others.
    pub fn roles(&self) -> (Vec<usize>, Vec<usize>) {
        let masters: Vec<usize> = match self.kind {
            Kind::Single => vec![0],
            Kind::Sentinel | Kind::Cluster => {
                let mut masters: Vec<u16> = self.directory.masters().into_values().collect();
                masters.sort_unstable();
                masters.dedup();
                (0..self.nodes.len()).filter(|n| masters.contains(&self.nodes[*n].port)).collect()
            }
        };
        let others = (0..self.nodes.len()).filter(|n| !masters.contains(n)).collect();
        (masters, others)
    }

    /// Waits for a condition, which reports what it still waits for.
    pub fn wait(&mut self, condition: &str, check: impl Fn(&Self) -> Option<String>) -> Result<()> {
        let end = Instant::now() + STEP_TIMEOUT;
        loop {
            let Some(missing) = check(self) else { return Ok(()) };
            if Instant::now() > end {
                bail!("timed out: {condition}: {missing}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn wait_until_healthy(&mut self) -> Result<()> {
        self.wait("all nodes are one healthy store", Self::ailment)
    }

    /// Ends all faults: starts what does not run, closes open slots, and waits until the store is healthy.
    pub fn heal(&mut self, reaper: &Reaper) -> Result<()> {
        for node in self.nodes.iter().chain(&self.sentinels) {
            node.signal("CONT");
        }
        self.heal_links();
        for node in self.nodes.iter_mut().chain(&mut self.sentinels) {
            if !node.is_running() {
                node.start(reaper)?;
            }
        }
        self.wait("all processes of Redis answer", |topology| {
            let all = || topology.nodes.iter().chain(&topology.sentinels);
            all().find(|node| node.admin(&["PING"]).is_none()).map(|node| format!("{} does not", node.name))
        })?;
        for node in &self.nodes {
            node.free_disk(self.appendfsync);
            node.admin(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        super::injector::close_slots(self);
        self.wait_until_healthy()
    }

    pub fn heal_links(&self) {
        for proxy in self.nodes.iter().filter_map(|node| node.proxy.as_ref()) {
            proxy.set_gateways(super::proxy::Mode::Pass);
        }
        self.join_nodes();
    }

    /// Cuts all links between a node and the other nodes and sentinels.
    pub fn isolate(&self, isolated: usize) {
        for (n, node) in self.nodes.iter().enumerate() {
            for proxy in node.proxy.iter().chain(node.bus.iter().map(|(_, proxy)| proxy)) {
                proxy.cut_node((n != isolated).then_some(self.nodes[isolated].source));
            }
        }
    }

    pub fn join_nodes(&self) {
        for node in &self.nodes {
            node.proxy.iter().chain(node.bus.iter().map(|(_, proxy)| proxy)).for_each(super::proxy::Proxy::heal_nodes);
        }
    }

    /// The first node or view that is not healthy, and why.
    pub fn ailment(&self) -> Option<String> {
        let (masters, replicas) = self.roles();
        let expected = if self.kind == Kind::Cluster { 3 } else { 1 };
        if masters.len() != expected {
            return Some(format!("there are {} masters", masters.len()));
        }
        let info = |n: usize, field| self.nodes[n].info(&["INFO", "replication"], field);
        for n in masters {
            let replicas = info(n, "connected_slaves").and_then(|count| count.parse::<usize>().ok());
            if info(n, "role").as_deref() != Some("master") || replicas.is_none_or(|count| count == 0) {
                return Some(format!("{} is not a master with a replica", self.nodes[n].name));
            }
        }
        for n in replicas {
            if info(n, "master_link_status").as_deref() != Some("up") {
                return Some(format!("{} is not a replica with a link", self.nodes[n].name));
            }
        }
        let views: Vec<_> = match self.kind {
            Kind::Cluster => self.nodes.iter().map(|node| (node, cluster_view(node))).collect(),
            _ => self.sentinels.iter().map(|node| (node, sentinel_view(node))).collect(),
        };
        let differs = |(node, view): &(&Node, Option<BTreeMap<u16, u16>>)| {
            (view.is_none() || view != &views[0].1).then(|| format!("{} knows other masters", node.name))
        };
        views.iter().find_map(differs)
    }
}

/// The masters that a node of a cluster knows, by the begin of their slots. `None` if the node knows slots without a master or open ones.
fn cluster_view(node: &Node) -> Option<BTreeMap<u16, u16>> {
    let is_ok = |field, value: &str| node.info(&["CLUSTER", "INFO"], field).as_deref() == Some(value);
    let nodes = node.admin(&["CLUSTER", "NODES"])?;
    // Slots in migration are in brackets; a failed node has a flag.
    if !is_ok("cluster_state", "ok")
        || !is_ok("cluster_slots_ok", "16384")
        || nodes.text().contains(['[', '?'])
        || nodes.text().contains("fail")
    {
        return None;
    }
    let slots = node.admin(&["CLUSTER", "SLOTS"])?;
    let number = |reply: &Reply| u16::try_from(reply.int()).ok();
    slots
        .array()
        .iter()
        .map(|range| Some((number(range.array().first()?)?, number(range.array().get(2)?.array().get(1)?)?)))
        .collect()
}

fn sentinel_view(node: &Node) -> Option<BTreeMap<u16, u16>> {
    let address = node.admin(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME])?;
    // `OK 3 usable Sentinels. …`
    let quorum = node.admin(&["SENTINEL", "CKQUORUM", MASTER_NAME])?;
    let replicas = node.admin(&["SENTINEL", "REPLICAS", MASTER_NAME])?;
    let port = address.array().get(1)?.text().parse().ok()?;
    (quorum.text().starts_with("OK 3 ") && replicas.array().len() == 2).then(|| BTreeMap::from([(0, port)]))
}
