//! A Redis Cluster of `redis-server` processes: three masters, each with a replica.

use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, cmd};
use tempfile::TempDir;
use tidegate::store::slot::{SLOTS, slot_of};
use tokio::process::Command;

use crate::link_cuts;
use crate::link_cuts::LinkCuts;
use crate::processes::{ChildProcess, TEST_TIMEOUT, reserved_port, wait_until};

pub const NODE_TIMEOUT_MS: u64 = 2_000;
const MASTERS: usize = 3;

pub struct RedisCluster {
    pub nodes: Vec<ClusterNode>,
}

pub struct ClusterNode {
    process: Option<ChildProcess>,
    is_paused: bool,
    pub port: u16,
    /// Where other parties reach it.
    pub announced_port: u16,
    bus_port: u16,
    announced_bus_port: u16,
    pub id: String,
    dir: TempDir,
    args: Vec<String>,
}

impl ClusterNode {
    /// A server that is in no cluster yet.
    pub async fn start(args: &[&str]) -> Self {
        let mut node = Self::unstarted(args);
        node.restart().await;
        node.id = cmd("CLUSTER").arg("MYID").query_async(&mut node.connect().await).await.expect("its id");
        node
    }

    fn unstarted(args: &[&str]) -> Self {
        let (port, bus_port) = (reserved_port(), reserved_port());
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let dir = tempfile::tempdir().expect("a directory");
        let (announced_port, announced_bus_port) = (port, bus_port);
        Self {
            process: None,
            is_paused: false,
            port,
            announced_port,
            bus_port,
            announced_bus_port,
            id: String::new(),
            dir,
            args,
        }
    }

    /// A server that the other nodes and the gateways reach through ports that can be cut.
    async fn start_with_cuts(links: &mut LinkCuts, number: usize) -> Self {
        let (port, bus_port) = (reserved_port(), reserved_port());
        let announced = [port.to_string(), bus_port.to_string()];
        let args = ["--cluster-announce-port", &announced[0], "--cluster-announce-bus-port", &announced[1]];
        let mut node = Self::start(&args).await;
        (node.announced_port, node.announced_bus_port) = (port, bus_port);
        links.pass(port, node.port, number, link_cuts::user).await;
        links.pass(bus_port, node.bus_port, number, link_cuts::bus_sender).await;
        node
    }

    /// Starts the process, with the cluster's state in its directory.
    pub async fn restart(&mut self) {
        let server = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let mut command = Command::new(server);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--cluster-enabled", "yes", "--cluster-port", &self.bus_port.to_string()]);
        command.args(["--cluster-node-timeout", &NODE_TIMEOUT_MS.to_string(), "--repl-diskless-sync-delay", "0"]);
        command.args(["--cluster-config-file", "nodes.conf", "--dir"]).arg(self.dir.path()).args(&self.args);
        command.stdin(Stdio::null());
        self.process = Some(ChildProcess::start(command));
        wait_until("a node of the cluster starts", async || self.try_connect().await.is_ok()).await;
    }

    /// Kills the process with SIGKILL.
    pub async fn kill(&mut self) {
        self.process.take().expect("the node runs").kill().await;
    }

    /// Stops the process, which keeps its connections.
    pub async fn pause(&mut self) {
        self.process.as_ref().expect("the node runs").signal("STOP").await;
        self.is_paused = true;
    }

    pub async fn resume(&mut self) {
        self.process.as_ref().expect("the node runs").signal("CONT").await;
        self.is_paused = false;
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some() && !self.is_paused
    }

    async fn try_connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let client = Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("a URL");
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(TEST_TIMEOUT));
        client.get_multiplexed_async_connection_with_config(&config.set_response_timeout(Some(TEST_TIMEOUT))).await
    }

    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("the node answers")
    }

    pub async fn cluster(&self, args: &[&str]) -> String {
        let mut command = cmd("CLUSTER");
        command.arg(args);
        command.query_async(&mut self.connect().await).await.unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }
}

impl RedisCluster {
    /// Six nodes; the masters are the first three, and node `n + 3` is the replica of node `n`.
    pub async fn start(args: &[&str]) -> Self {
        let mut nodes = Vec::new();
        for _ in 0..2 * MASTERS {
            nodes.push(ClusterNode::start(args).await);
        }
        Self::join(nodes).await
    }

    /// The same, with links that can be cut.
    pub async fn start_with_cuts(links: &mut LinkCuts) -> Self {
        let mut nodes = Vec::new();
        for number in 0..2 * MASTERS {
            nodes.push(ClusterNode::start_with_cuts(links, number).await);
        }
        Self::join(nodes).await
    }

    async fn join(nodes: Vec<ClusterNode>) -> Self {
        for (number, node) in nodes.iter().enumerate() {
            node.cluster(&["SET-CONFIG-EPOCH", &(number + 1).to_string()]).await;
            let port = (nodes[0].announced_port.to_string(), nodes[0].announced_bus_port.to_string());
            if number > 0 {
                node.cluster(&["MEET", "127.0.0.1", &port.0, &port.1]).await;
            }
            if number < MASTERS {
                let share = |number: usize| (number * usize::from(SLOTS) / MASTERS).to_string();
                let last = (number + 1) * usize::from(SLOTS) / MASTERS - 1;
                node.cluster(&["ADDSLOTSRANGE", &share(number), &last.to_string()]).await;
            }
        }
        let cluster = Self { nodes };
        cluster.wait_until_all("all nodes know each other", |info| info.contains("cluster_known_nodes:6")).await;
        for number in MASTERS..2 * MASTERS {
            let master = &cluster.nodes[number - MASTERS].id;
            let node = &cluster.nodes[number];
            // The node may not know yet that the other one is a master.
            wait_until("a replica follows its master", async || {
                let mut replicate = cmd("CLUSTER");
                replicate.arg("REPLICATE").arg(master);
                replicate.exec_async(&mut node.connect().await).await.is_ok()
            })
            .await;
        }
        cluster.wait_until_up().await;
        cluster
    }

    async fn wait_until_all(&self, condition: &str, holds: impl Fn(&str) -> bool) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            wait_until(condition, async || holds(&node.cluster(&["INFO"]).await)).await;
        }
    }

    /// Waits until all running nodes serve, and all running replicas have a link to their master.
    pub async fn wait_until_up(&self) {
        self.wait_until_all("the cluster is up", |info| info.contains("cluster_state:ok")).await;
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            wait_until("a replica is in sync", async || {
                let info: String =
                    cmd("INFO").arg("replication").query_async(&mut node.connect().await).await.expect("INFO");
                info.contains("role:master") || info.contains("master_link_status:up")
            })
            .await;
        }
    }

    /// Waits until each replica has everything that its master has.
    pub async fn wait_until_replicated(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let mut connection = node.connect().await;
            wait_until("replicas have everything", async || {
                let info: String = cmd("INFO").arg("replication").query_async(&mut connection).await.expect("INFO");
                let offset =
                    info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).expect("the offset");
                let mut replicas = info.lines().filter(|line| line.starts_with("slave") && line.contains("offset="));
                info.contains("role:slave") || replicas.all(|replica| replica.contains(&format!("offset={offset},")))
            })
            .await;
        }
    }

    pub async fn is_replica(&self, number: usize) -> bool {
        let mut connection = self.nodes[number].connect().await;
        let info: String = cmd("INFO").arg("replication").query_async(&mut connection).await.expect("INFO");
        info.contains("role:slave")
    }

    pub fn url(&self) -> String {
        self.url_of("")
    }

    /// The same with credentials, such as `user:password@`.
    pub fn url_of(&self, credentials: &str) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.announced_port)).collect();
        format!("redis-cluster://{credentials}{}", hosts.join(","))
    }

    /// Creates or changes a user on every node: nodes do not replicate users.
    pub async fn set_user(&self, name: &str, rules: &[&str]) {
        for node in &self.nodes {
            let mut user = cmd("ACL");
            user.arg("SETUSER").arg(name).arg(rules);
            user.exec_async(&mut node.connect().await).await.expect("the rule is valid");
        }
    }

    /// Whether a node calls itself a master with slots.
    pub async fn is_master(&self, number: usize) -> bool {
        let list = self.nodes[number].cluster(&["NODES"]).await;
        let own = list.lines().find(|line| line.contains("myself")).expect("a node lists itself");
        own.contains("master") && own.split(' ').count() > 8
    }

    /// The number of the running node that calls itself the master of a slot.
    pub async fn master_of_slot(&self, slot: u16) -> Option<usize> {
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_running()) {
            let list = node.cluster(&["NODES"]).await;
            let own = list.lines().find(|line| line.contains("myself")).expect("a node lists itself");
            let has_slot = own.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                matches!((first.parse::<u16>(), last.parse::<u16>()), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
            });
            if has_slot && own.contains("master") {
                return Some(number);
            }
        }
        None
    }

    /// The number of the master of a key; waits until there is one.
    pub async fn master_of(&self, key: &str) -> usize {
        let (slot, mut master) = (slot_of(key.as_bytes()), None);
        wait_until("a slot has a master", async || {
            master = self.master_of_slot(slot).await;
            master.is_some()
        })
        .await;
        master.expect("it was waited for")
    }

    /// A connection to the master of a key.
    pub async fn connect_to(&self, key: &str) -> MultiplexedConnection {
        self.nodes[self.master_of(key).await].connect().await
    }

    /// Marks a slot as being moved.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, from, to) = (slot.to_string(), &self.nodes[from], &self.nodes[to]);
        to.cluster(&["SETSLOT", &slot, "IMPORTING", &from.id]).await;
        from.cluster(&["SETSLOT", &slot, "MIGRATING", &to.id]).await;
    }

    /// Moves the keys of a slot.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let mut connection = self.nodes[from].connect().await;
        let mut list = cmd("CLUSTER");
        list.arg("GETKEYSINSLOT").arg(slot).arg(1_000);
        let keys: Vec<String> = list.query_async(&mut connection).await.expect("the keys");
        for key in keys {
            let mut migrate = cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.nodes[to].port).arg(key).arg(0).arg(10_000);
            migrate.exec_async(&mut connection).await.expect("moved");
        }
    }

    /// Makes the other node the master of the slot.
    pub async fn end_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, id) = (slot.to_string(), &self.nodes[to].id);
        for node in [&self.nodes[to], &self.nodes[from]] {
            node.cluster(&["SETSLOT", &slot, "NODE", id]).await;
        }
    }

    /// Kills the pub/sub connections of all running nodes.
    pub async fn kill_subscriptions(&self) -> u64 {
        let mut killed = 0;
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            let mut kill = cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("pubsub");
            killed += kill.query_async::<u64>(&mut node.connect().await).await.expect("killed");
        }
        killed
    }

    /// The number of the running node with a subscription to a channel.
    pub async fn subscribed_node(&self, channel: &str) -> Option<usize> {
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_running()) {
            let mut count = cmd("PUBSUB");
            count.arg("NUMSUB").arg(channel);
            let (_, count): (String, u64) = count.query_async(&mut node.connect().await).await.expect("the number");
            if count > 0 {
                return Some(number);
            }
        }
        None
    }
}
