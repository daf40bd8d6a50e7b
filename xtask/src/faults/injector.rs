//! Applies the faults of a schedule, and ends each after its duration.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::gateway::Gateway;
use super::history::{GatewayFault, Millis};
use super::node::Node;
use super::processes::Reaper;
use super::proxy::Mode;
use super::random::Random;
use super::resp::{self, Reply, slot};
use super::schedule::{Entry, Fault, Role};
use super::shared::Shared;
use super::topology::{Kind, MASTER_NAME, STEP_TIMEOUT, Topology};

/// How often the injector looks for faults that are due.
const TICK: Duration = Duration::from_millis(20);

/// A node of Redis that ended by itself is started again after this time.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// The difference of clocks.
const CLOCK_SECONDS: i64 = 300;

/// What ends a fault.
#[derive(Clone, Copy, Debug)]
enum Undo {
    StartNode(usize),
    StartSentinel(usize),
    StartGateway(usize),
    ContinueNode(usize),
    ContinueSentinel(usize),
    ContinueGateway(usize),
    HealLink(usize),
    Join,
    FreeMemory(usize),
    FreeDisk(usize),
}

pub struct Injector<'a> {
    pub topology: Topology,
    pub gateways: Vec<Gateway>,
    reaper: &'a Reaper,
    shared: &'a Shared,
    /// Waits before each fault until the store is healthy.
    gentle: bool,
    random: Random,
    undos: Vec<(Instant, Undo)>,
    pub gateway_faults: Vec<GatewayFault>,
    /// Faults that were applied, by name, and the reasons of those that were not.
    pub applied: BTreeMap<&'static str, usize>,
    pub skipped: BTreeMap<(&'static str, String), usize>,
    /// Failures of the suite's processes themselves.
    pub crashes: Vec<String>,
}

impl<'a> Injector<'a> {
    pub fn new(
        topology: Topology,
        gateways: Vec<Gateway>,
        reaper: &'a Reaper,
        shared: &'a Shared,
        gentle: bool,
        random: Random,
    ) -> Self {
        Self {
            topology,
            gateways,
            reaper,
            shared,
            gentle,
            random,
            undos: Vec::new(),
            gateway_faults: Vec::new(),
            applied: BTreeMap::new(),
            skipped: BTreeMap::new(),
            crashes: Vec::new(),
        }
    }

    /// Applies all faults at their offsets, and returns when they are over.
    pub fn run(&mut self, schedule: &[Entry], length: Duration) -> Result<()> {
        let mut next = 0;
        while next < schedule.len() || self.shared.begin.elapsed() < length {
            thread::sleep(TICK);
            self.undo_due()?;
            self.watch();
            let Some(entry) = schedule.get(next).filter(|entry| entry.offset <= self.shared.begin.elapsed()) else {
                continue;
            };
            if self.gentle && (!self.undos.is_empty() || self.topology.ailment().is_some()) {
                if self.shared.begin.elapsed() > length + STEP_TIMEOUT {
                    anyhow::bail!("the store did not recover: {:?}", self.topology.ailment());
                }
                continue;
            }
            next += 1;
            self.apply(entry)?;
        }
        Ok(())
    }

    /// Ends all faults, and waits until the store and the gateways are ready.
    pub fn heal(&mut self) -> Result<()> {
        for (at, _) in &mut self.undos {
            *at = Instant::now();
        }
        self.undo_due()?;
        // A node that does not start needs its repair.
        let (settled, end) = (Instant::now() + RESTART_DELAY, Instant::now() + STEP_TIMEOUT);
        while !self.undos.is_empty() || Instant::now() < settled {
            anyhow::ensure!(Instant::now() < end, "a node of Redis does not start");
            thread::sleep(TICK);
            self.watch();
            self.undo_due()?;
        }
        self.topology.heal(self.reaper)?;
        let end = Instant::now() + STEP_TIMEOUT;
        loop {
            self.watch();
            let Some(number) = self.gateways.iter().position(|gateway| !gateway.is_ready()) else { return Ok(()) };
            if !self.gateways[number].is_started() {
                self.gateways[number].start(self.reaper)?;
            }
            anyhow::ensure!(Instant::now() < end, "gateway {number} is not ready after the faults");
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn apply(&mut self, entry: &Entry) -> Result<()> {
        let at = self.shared.begin.elapsed().as_secs_f64();
        match self.inject(entry)? {
            Ok(target) => {
                println!("   {at:>8.3} {} of {target} for {} ms", entry.fault.name(), entry.duration.as_millis());
                *self.applied.entry(entry.fault.name()).or_default() += 1;
            }
            Err(reason) => {
                println!("   {at:>8.3} {} skipped: {reason}", entry.fault.name());
                *self.skipped.entry((entry.fault.name(), reason)).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Applies a fault. Returns its target, or why there is none.
    fn inject(&mut self, entry: &Entry) -> Result<Result<String, String>> {
        let after = |undo| (Instant::now() + entry.duration, undo);
        match entry.role {
            Role::Gateway => {
                let number = entry.index % self.gateways.len().max(1);
                let target = format!("gateway {number}");
                if !self.gateways.get(number).is_some_and(Gateway::is_started) {
                    return Ok(Err(format!("{target} does not run")));
                }
                self.begin_gateway_fault(number);
                if entry.fault.kills() {
                    self.gateways[number].kill(self.reaper);
                    self.undos.push(after(Undo::StartGateway(number)));
                } else {
                    self.gateways[number].signal("STOP");
                    self.undos.push(after(Undo::ContinueGateway(number)));
                }
                Ok(Ok(target))
            }
            Role::Sentinel => {
                let number = entry.index % self.topology.sentinels.len().max(1);
                let Some(sentinel) = self.topology.sentinels.get_mut(number) else {
                    return Ok(Err("there are no sentinels".into()));
                };
                let undo = if entry.fault.kills() {
                    sentinel.kill(self.reaper);
                    Undo::StartSentinel(number)
                } else {
                    sentinel.signal("STOP");
                    Undo::ContinueSentinel(number)
                };
                self.undos.push(after(undo));
                Ok(Ok(sentinel.name.clone()))
            }
            Role::Master | Role::Replica => {
                let (masters, replicas) = self.topology.roles();
                let role = if entry.role == Role::Master { masters } else { replicas };
                // While no node knows the masters, all nodes are replicas.
                let Some(number) = role.get(entry.index % role.len().max(1)) else {
                    return Ok(Err("no node has this role".into()));
                };
                Ok(self.inject_node(entry, *number))
            }
        }
    }

    fn inject_node(&mut self, entry: &Entry, number: usize) -> Result<String, String> {
        let node = &mut self.topology.nodes[number];
        let name = node.name.clone();
        if !node.is_running() {
            return Err(format!("{name} does not run"));
        }
        let kill_clients = |node: &Node, kind: &str| {
            node.admin(&["CLIENT", "KILL", "TYPE", kind]).map(|_| None).ok_or("the node does not answer")
        };
        let set_link = |node: &Node, mode: Mode| {
            node.proxy.iter().for_each(|proxy| proxy.set_gateways(mode));
            Ok(Some(Undo::HealLink(number)))
        };
        let result = match entry.fault {
            Fault::Kill | Fault::Empty | Fault::Slow | Fault::Fast => {
                let clock = match entry.fault {
                    Fault::Slow => -CLOCK_SECONDS,
                    Fault::Fast => CLOCK_SECONDS,
                    _ => 0,
                };
                if clock != 0 && !node.set_clock(clock) {
                    Err("clocks cannot be shifted here: there is no C compiler")
                } else {
                    node.kill(self.reaper);
                    if entry.fault == Fault::Empty {
                        // With a slow clock nothing would distinguish its new entries from those of a restored backup.
                        node.set_clock(0);
                        node.empty_disk();
                    }
                    Ok(Some(Undo::StartNode(number)))
                }
            }
            Fault::Stop => {
                node.signal("STOP");
                Ok(Some(Undo::ContinueNode(number)))
            }
            Fault::Failover => self.fail_over(number).map(|()| None),
            Fault::Migrate => self.migrate(number).map(|()| None),
            Fault::ClientNormal => kill_clients(node, "normal"),
            Fault::ClientPubsub => kill_clients(node, "pubsub"),
            Fault::ClientReplica => kill_clients(node, "replica"),
            Fault::ClientMaster => kill_clients(node, "master"),
            Fault::Cut => set_link(node, Mode::Cut),
            Fault::HalfOpen => set_link(node, Mode::HalfOpen),
            Fault::Lag => set_link(node, Mode::Lag),
            Fault::Isolate => {
                self.topology.isolate(number);
                Ok(Some(Undo::Join))
            }
            Fault::Memory => {
                let set = node.admin(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]);
                set.map(|_| Some(Undo::FreeMemory(number))).ok_or("the node does not answer")
            }
            Fault::Disk if !node.has_disk => Err("small disks need the rights of root to mount a file system"),
            Fault::Disk => {
                node.fill_disk().map(|()| Some(Undo::FreeDisk(number))).map_err(|_| "the node does not answer")
            }
        };
        let undo = result.map_err(str::to_owned)?;
        self.undos.extend(undo.map(|undo| (Instant::now() + entry.duration, undo)));
        Ok(name)
    }

    fn fail_over(&self, master: usize) -> Result<(), &'static str> {
        match self.topology.kind {
            Kind::Single => Err("a single master has no failover"),
            Kind::Sentinel => {
                let mut sentinels = self.topology.sentinels.iter();
                let forced = sentinels.any(|sentinel| sentinel.admin(&["SENTINEL", "FAILOVER", MASTER_NAME]).is_some());
                forced.then_some(()).ok_or("no sentinel begins a failover now")
            }
            Kind::Cluster => {
                let nodes = &self.topology.nodes;
                let announced = nodes[master].announced().to_string();
                let is_replica = |node: &&Node| {
                    node.info(&["INFO", "replication"], "master_port").is_some_and(|port| port == announced)
                };
                let replica = nodes.iter().find(is_replica).ok_or("the master has no replica now")?;
                replica.admin(&["CLUSTER", "FAILOVER"]).map(|_| ()).ok_or("the replica refuses")
            }
        }
    }

    /// Moves the slot of a channel of this master to another master, entry by entry, while events are emitted.
    fn migrate(&mut self, from: usize) -> Result<(), &'static str> {
        let masters = self.topology.directory.masters();
        let nodes = &self.topology.nodes;
        let owner = |channel: &str| masters.range(slot(channel)..).next().map(|(_, port)| *port);
        let channels: Vec<&String> =
            self.shared.channels.iter().filter(|channel| owner(channel) == Some(nodes[from].port)).collect();
        let targets: Vec<&Node> = nodes
            .iter()
            .filter(|node| node.port != nodes[from].port && masters.values().any(|port| *port == node.port))
            .collect();
        if channels.is_empty() || targets.is_empty() {
            return Err("there is no channel to move, or no other master");
        }
        let slot = slot(channels[self.random.index(channels.len())]).to_string();
        let (source, target) = (&nodes[from], targets[self.random.index(targets.len())]);
        let id = |node: &Node| {
            node.admin(&["CLUSTER", "MYID"]).map(|reply| reply.text().to_owned()).ok_or("a master does not answer")
        };
        let (source_id, target_id) = (id(source)?, id(target)?);
        target.admin(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).ok_or("the target refuses the slot")?;
        let steps = || {
            source.admin(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id])?;
            // Emitters meet ASK meanwhile.
            thread::sleep(Duration::from_millis(200));
            let keys = source.admin(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])?;
            for key in keys.array() {
                let port = target.announced().to_string();
                source.admin(&["MIGRATE", "127.0.0.1", &port, key.text(), "0", "5000"])?;
            }
            target.admin(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id])?;
            source.admin(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id])
        };
        if steps().is_some() {
            return Ok(());
        }
        // The repair at the end of the run closes the slot.
        Err("a master failed during the migration")
    }

    fn undo_due(&mut self) -> Result<()> {
        let now = Instant::now();
        let due: Vec<Undo> = self.undos.iter().filter(|(at, _)| *at <= now).map(|(_, undo)| *undo).collect();
        self.undos.retain(|(at, _)| *at > now);
        due.into_iter().try_for_each(|undo| self.undo(undo))
    }

    fn undo(&mut self, undo: Undo) -> Result<()> {
        let topology = &mut self.topology;
        match undo {
            Undo::StartNode(n) if !topology.nodes[n].is_running() => topology.nodes[n].start(self.reaper)?,
            Undo::StartSentinel(n) if !topology.sentinels[n].is_running() => {
                topology.sentinels[n].start(self.reaper)?
            }
            Undo::StartGateway(n) if !self.gateways[n].is_started() => self.gateways[n].start(self.reaper)?,
            Undo::StartNode(_) | Undo::StartSentinel(_) | Undo::StartGateway(_) => {}
            Undo::ContinueNode(n) => topology.nodes[n].signal("CONT"),
            Undo::ContinueSentinel(n) => topology.sentinels[n].signal("CONT"),
            Undo::ContinueGateway(n) => self.gateways[n].signal("CONT"),
            Undo::HealLink(n) => topology.nodes[n].proxy.iter().for_each(|proxy| proxy.set_gateways(Mode::Pass)),
            Undo::Join => topology.join_nodes(),
            Undo::FreeMemory(n) => {
                topology.nodes[n].admin(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Undo::FreeDisk(n) => topology.nodes[n].free_disk(topology.appendfsync),
        }
        Ok(())
    }

    fn begin_gateway_fault(&mut self, number: usize) {
        let Ok(gateway) = u8::try_from(number) else { return };
        self.gateway_faults.push(GatewayFault { gateway, from: self.shared.now(), until: Millis::MAX });
    }

    /// Notices gateways that are up again, and processes that ended by themselves.
    fn watch(&mut self) {
        let pending: Vec<u8> = self
            .undos
            .iter()
            .filter_map(|(_, undo)| match undo {
                Undo::StartGateway(n) | Undo::ContinueGateway(n) => u8::try_from(*n).ok(),
                _ => None,
            })
            .collect();
        for fault in self.gateway_faults.iter_mut().filter(|fault| fault.until == Millis::MAX) {
            if !pending.contains(&fault.gateway) && self.gateways[usize::from(fault.gateway)].is_up() {
                fault.until = self.shared.now();
            }
        }
        for number in 0..self.gateways.len() {
            if let Some(status) = self.gateways[number].exited() {
                self.crashes.push(format!("gateway {number} ended by itself: {status}"));
                self.begin_gateway_fault(number);
                self.undos.push((Instant::now(), Undo::StartGateway(number)));
            }
        }
        for number in 0..self.topology.nodes.len() {
            if self.topology.nodes[number].has_exited() {
                self.topology.nodes[number].repair();
                println!("   {} ended by itself, and is started again", self.topology.nodes[number].name);
                self.undos.push((Instant::now() + RESTART_DELAY, Undo::StartNode(number)));
            }
        }
    }
}

/// Closes the open slots of a cluster, as an operator does after an interrupted migration.
pub fn close_slots(topology: &Topology) {
    if topology.kind != Kind::Cluster {
        return;
    }
    let Some(first) = topology.nodes.first() else { return };
    let mut fix = Command::new("redis-cli");
    fix.args(["--cluster", "fix", &format!("127.0.0.1:{}", first.announced()), "--cluster-yes"]);
    let _ = fix.output();
}

/// The entries of a channel on its master, with the tokens of their data.
pub fn surviving(topology: &Topology, channel: &str) -> Result<Vec<(super::history::Id, super::history::Token)>> {
    let masters = topology.directory.masters();
    let port = masters.range(slot(channel)..).next().map(|(_, port)| *port);
    let port = port.ok_or_else(|| anyhow::anyhow!("channel {channel} has no master"))?;
    let mut connection = resp::Connection::open(port, STEP_TIMEOUT)?;
    let (mut entries, mut from) = (Vec::new(), "-".to_owned());
    loop {
        let page = connection.command(&["XRANGE", channel, &from, "+", "COUNT", "1000"])?;
        if let Reply::Error(error) = &page {
            anyhow::bail!("channel {channel}: {error}");
        }
        let Some(last) = page.array().last().and_then(|entry| entry.array().first()) else { return Ok(entries) };
        from = format!("({}", last.text());
        for entry in page.array() {
            let [id, fields] = entry.array() else { anyhow::bail!("channel {channel}: an entry without fields") };
            let data =
                fields.array().chunks_exact(2).find(|pair| pair[0].text() == "data").map_or("", |pair| pair[1].text());
            let data: serde_json::Value = serde_json::from_str(data)?;
            let token = data["t"].as_u64().and_then(|token| token.try_into().ok());
            let token = token.ok_or_else(|| anyhow::anyhow!("channel {channel}: entry {} has no token", id.text()))?;
            let id =
                id.text().parse().map_err(|()| anyhow::anyhow!("channel {channel}: {} is not an id", id.text()))?;
            entries.push((id, token));
        }
    }
}
