//! The faults of a run: drawn from a seed before the run begins, and written as lines that replay the same faults at the same offsets.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};

use super::random::Random;
use super::topology::Kind;

/// What a fault concerns. The index counts among those that have this role at the time of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Replica,
    Sentinel,
    Gateway,
}

/// A fault that is drawn or read from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `SIGKILL`, and a restart with the same files.
    Kill,
    /// `SIGKILL`, and a restart with an empty disk.
    Empty,
    /// `SIGKILL`, and a restart with a clock that is five minutes slow.
    Slow,
    /// `SIGKILL`, and a restart with a clock that is five minutes fast.
    Fast,
    /// `SIGSTOP`, and `SIGCONT` later.
    Stop,
    /// A forced failover: `CLUSTER FAILOVER` or `SENTINEL FAILOVER`.
    Failover,
    /// The slot of a channel moves to another master.
    Migrate,
    /// `CLIENT KILL TYPE` of each kind.
    ClientNormal,
    ClientPubsub,
    ClientReplica,
    ClientMaster,
    /// The connections of gateways to a node are reset, and new ones are refused.
    Cut,
    /// The connections of gateways to a node lose all bytes, and stay open.
    HalfOpen,
    /// Each chunk on a connection of a gateway to a node is late.
    Lag,
    /// A node is separated from the other nodes and from the sentinels, but not from gateways and emitters.
    Isolate,
    /// `maxmemory` is exceeded, with `noeviction`.
    Memory,
    /// The disk of a node is full.
    Disk,
}

/// Names in the log.
const NAMES: [(Fault, &str); 17] = [
    (Fault::Kill, "kill"),
    (Fault::Empty, "kill-empty-disk"),
    (Fault::Slow, "kill-slow-clock"),
    (Fault::Fast, "kill-fast-clock"),
    (Fault::Stop, "stop"),
    (Fault::Failover, "failover"),
    (Fault::Migrate, "migrate-slot"),
    (Fault::ClientNormal, "client-kill-normal"),
    (Fault::ClientPubsub, "client-kill-pubsub"),
    (Fault::ClientReplica, "client-kill-replica"),
    (Fault::ClientMaster, "client-kill-master"),
    (Fault::Cut, "link-cut"),
    (Fault::HalfOpen, "link-half-open"),
    (Fault::Lag, "link-slow"),
    (Fault::Isolate, "isolate"),
    (Fault::Memory, "memory-full"),
    (Fault::Disk, "disk-full"),
];

const ROLES: [(Role, &str); 4] =
    [(Role::Master, "master"), (Role::Replica, "replica"), (Role::Sentinel, "sentinel"), (Role::Gateway, "gateway")];

/// A fault at its time. The text form is `12.500 kill master 1 4000`: the offset in seconds, the fault, the role and the index of its
/// target, and its duration in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub offset: Duration,
    pub fault: Fault,
    pub role: Role,
    pub index: usize,
    pub duration: Duration,
}

impl Fault {
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(fault, _)| *fault == self).map_or("", |(_, name)| name)
    }

    /// Whether Redis may lose acknowledged entries with this fault, whatever its settings are. After a full disk Redis 7.0 may have an
    /// append-only file that it does not load.
    fn loses(self) -> bool {
        matches!(self, Self::Empty | Self::Disk)
    }

    /// Whether the process ends.
    pub fn kills(self) -> bool {
        matches!(self, Self::Kill | Self::Empty | Self::Slow | Self::Fast)
    }
}

/// Faults of nodes of Redis on each topology, with weights.
const COMMON: [(Fault, Role, u64); 18] = [
    (Fault::Kill, Role::Master, 6),
    (Fault::Empty, Role::Master, 2),
    (Fault::Slow, Role::Master, 1),
    (Fault::Stop, Role::Master, 3),
    (Fault::Kill, Role::Replica, 1),
    (Fault::Stop, Role::Replica, 1),
    (Fault::ClientNormal, Role::Master, 2),
    (Fault::ClientPubsub, Role::Master, 2),
    (Fault::ClientReplica, Role::Master, 1),
    (Fault::ClientMaster, Role::Replica, 1),
    (Fault::ClientPubsub, Role::Replica, 1),
    (Fault::Cut, Role::Master, 2),
    (Fault::HalfOpen, Role::Master, 2),
    (Fault::Lag, Role::Master, 2),
    (Fault::Memory, Role::Master, 1),
    (Fault::Disk, Role::Master, 1),
    (Fault::Kill, Role::Gateway, 3),
    (Fault::Stop, Role::Gateway, 2),
];

/// Faults of topologies that fail over.
const FAILOVER: [(Fault, Role, u64); 7] = [
    (Fault::Failover, Role::Master, 4),
    (Fault::Isolate, Role::Master, 3),
    (Fault::Slow, Role::Replica, 2),
    (Fault::Fast, Role::Replica, 1),
    (Fault::Empty, Role::Replica, 1),
    (Fault::Cut, Role::Replica, 1),
    (Fault::HalfOpen, Role::Replica, 1),
];

/// Draws the faults of a run of this length.
pub fn draw(seed: u64, kind: Kind, durable: bool, length: Duration) -> Vec<Entry> {
    let mut faults: Vec<(Fault, Role, u64)> = COMMON.to_vec();
    match kind {
        Kind::Single => {}
        Kind::Cluster => faults.extend(FAILOVER.iter().chain(&[(Fault::Migrate, Role::Master, 6)])),
        Kind::Sentinel => {
            faults.extend(FAILOVER.iter().chain(&[(Fault::Kill, Role::Sentinel, 2), (Fault::Stop, Role::Sentinel, 1)]));
        }
    }
    faults.retain(|(fault, ..)| !(durable && fault.loses()));
    let total: u64 = faults.iter().map(|(.., weight)| weight).sum();
    let mut random = Random::new(seed, kind.name());
    let (mut entries, mut offset) = (Vec::new(), 4_000);
    let end = u64::try_from(length.as_millis()).unwrap_or(u64::MAX).saturating_sub(3_000);
    while offset < end {
        let mut at = random.below(total);
        let drawn = faults.iter().find(|(.., weight)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        let Some((fault, role, _)) = drawn else { break };
        // Short ones, and ones that are longer than the time after which Redis elects another master.
        let duration = if random.one_in(2) { random.between(300, 1_500) } else { random.between(3_000, 8_000) };
        entries.push(Entry {
            offset: Duration::from_millis(offset),
            fault: *fault,
            role: *role,
            index: random.index(6),
            duration: Duration::from_millis(duration),
        });
        // Some faults meet the recovery from the fault before.
        offset += if random.one_in(3) { random.between(200, 1_500) } else { random.between(3_000, 9_000) };
    }
    entries
}

/// Reads a log; lines that begin with `#` are comments.
pub fn parse(log: &str) -> Result<Vec<Entry>> {
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.parse().with_context(|| format!("in the log of faults: {line}"))).collect()
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = ROLES.iter().find(|(role, _)| *role == self.role).map_or("", |(_, name)| name);
        let (offset, duration) = (self.offset.as_secs_f64(), self.duration.as_millis());
        write!(f, "{offset:.3} {} {role} {} {duration}", self.fault.name(), self.index)
    }
}

impl FromStr for Entry {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [offset, fault, role, index, duration] = words.as_slice() else {
            bail!("expected five words, such as `12.500 kill master 1 4000`");
        };
        let (seconds, fraction) = offset.split_once('.').unwrap_or((offset, "0"));
        let milliseconds: u64 = format!("{fraction:0<3}").get(..3).unwrap_or("0").parse()?;
        Ok(Self {
            offset: Duration::from_millis(seconds.parse::<u64>()? * 1000 + milliseconds),
            fault: NAMES.iter().find(|(_, name)| name == fault).context("an unknown fault")?.0,
            role: ROLES.iter().find(|(_, name)| name == role).context("an unknown role")?.0,
            index: index.parse()?,
            duration: Duration::from_millis(duration.parse()?),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a broken expectation is a failed test")]

    use super::*;

    #[test]
    fn same_seed_gives_same_faults_and_log_replays_them() {
        for kind in [Kind::Single, Kind::Cluster, Kind::Sentinel] {
            let entries = draw(7, kind, false, Duration::from_secs(600));
            assert!(entries.len() > 60 && entries.iter().all(|entry| entry.offset < Duration::from_secs(600)));
            assert_eq!(entries, draw(7, kind, false, Duration::from_secs(600)));
            assert_ne!(entries, draw(8, kind, false, Duration::from_secs(600)));
            let log: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
            assert_eq!(parse(&format!("# seed 7\n\n{log}")).expect("a log"), entries);
        }
    }

    #[test]
    fn long_run_has_each_fault_of_its_topology() {
        let kinds = |kind, durable| {
            let entries = draw(1, kind, durable, Duration::from_secs(3600));
            NAMES.iter().filter(|(fault, _)| entries.iter().any(|entry| entry.fault == *fault)).count()
        };
        assert_eq!(kinds(Kind::Cluster, false), NAMES.len());
        assert_eq!(kinds(Kind::Cluster, true), NAMES.len() - 2, "no empty or full disk");
        assert_eq!(kinds(Kind::Sentinel, false), NAMES.len() - 1, "no slots");
        assert_eq!(kinds(Kind::Single, false), NAMES.len() - 4, "no failover, and one clock that is slow");
    }

    #[test]
    fn line_that_is_not_a_fault_is_an_error() {
        for line in [
            "1.0 kill master 1",
            "1.0 burn master 1 5",
            "1.0 kill king 1 5",
            "x kill master 1 5",
            "1.0 kill master 1 5 6",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
