//! The servers of a store, in one of its topologies.

use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd, pipe};

use crate::store::StoreError;
use crate::store::fleet_keys::FleetKeys;
use crate::store::options::StoreOptions;
use crate::store::redis::cluster::notifications::ClusterNotifications;
use crate::store::redis::cluster::route::ClusterLink;
use crate::store::redis::cluster::topology::{ClusterNodes, ClusterTopology};
use crate::store::redis::connector::Connector;
use crate::store::redis::error::pong;
use crate::store::redis::link::Link;
use crate::store::redis::node_link::{NodeLink, NodeSource};
use crate::store::redis::notifications::NotificationSource;
use crate::store::redis::sentinel::SentinelMaster;
use crate::store::redis::single::{MasterWatcher, SingleNode};
use crate::store::redis::{cluster, too_old};
use crate::store::url::{RedisUrl, Topology};
use crate::telemetry::metrics::Metrics;
use crate::util::id::random_id;

pub(super) enum Servers {
    Single(Arc<SingleNode>),
    Sentinel(Arc<SentinelMaster>),
    Cluster {
        topology: ClusterTopology,
        /// A key of the fleet.
        fleet_key: String,
        /// Of this process.
        canary_channel: String,
    },
}

impl Servers {
    /// The servers of a URL. Connects when a connection is first used. An error is a mistake in the configuration. Needs a runtime.
    pub fn open(
        url: &RedisUrl,
        options: &StoreOptions,
        keys: &FleetKeys,
        watcher: &Arc<MasterWatcher>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let (connector, watcher, timeout) =
            (Connector::open(url, options, metrics)?, Arc::clone(watcher), options.timeout);
        Ok(match &url.topology {
            Topology::Single(address) => {
                Self::Single(Arc::new(SingleNode { connector, address: address.clone(), watcher }))
            }
            Topology::Sentinel { sentinels, master } => {
                let group = (&**sentinels, &**master);
                Self::Sentinel(SentinelMaster::start(connector, group, timeout, watcher, Arc::clone(metrics)))
            }
            Topology::Cluster(seeds) => {
                let nodes = ClusterNodes { seeds: seeds.clone(), connector };
                let topology = ClusterTopology::start(nodes, timeout, watcher, Arc::clone(metrics));
                Self::Cluster { topology, fleet_key: keys.commands(), canary_channel: keys.canary(&random_id()) }
            }
        })
    }

    /// A link for one purpose. `has_reads` says whether channels are read over it.
    pub fn link(&self, timeout: Duration, reply_timeout: Duration, has_reads: bool) -> Link {
        match self {
            Self::Single(node) => Link::Node(NodeLink::new(Arc::clone(node) as Arc<_>, timeout, reply_timeout)),
            Self::Sentinel(master) => Link::Node(NodeLink::new(Arc::clone(master) as Arc<_>, timeout, reply_timeout)),
            Self::Cluster { topology, .. } => {
                Link::Cluster(ClusterLink::new(topology, timeout, reply_timeout, has_reads))
            }
        }
    }

    /// Where to subscribe.
    pub fn notifications(&self, timeout: Duration) -> Arc<dyn NotificationSource> {
        match self {
            Self::Single(node) => Arc::clone(node) as Arc<_>,
            Self::Sentinel(master) => Arc::clone(master) as Arc<_>,
            Self::Cluster { topology, canary_channel, .. } => {
                Arc::new(ClusterNotifications::new(topology, timeout, canary_channel.clone()))
            }
        }
    }

    /// Whether one script can read keys of different slots.
    pub const fn share_one_node(&self) -> bool {
        !matches!(self, Self::Cluster { .. })
    }

    /// The number of the database.
    pub fn database(&self) -> i64 {
        match self {
            Self::Single(node) => node.database(),
            Self::Sentinel(master) => master.database(),
            Self::Cluster { .. } => 0,
        }
    }

    /// Checks that the servers reply, are of the kind that the URL says, and are not too old.
    pub async fn check(&self, link: &Link, timeout: Duration) -> Result<(), StoreError> {
        if let Self::Cluster { topology, canary_channel, .. } = self {
            return cluster::check::check(topology, timeout, canary_channel).await;
        }
        pong(cmd("PING").exec_async(&mut link.to_any()).await)?;
        // If the server hides what it is, the first read finds out.
        let info: String = cmd("INFO").arg("server").query_async(&mut link.to_any()).await.unwrap_or_default();
        check_version(&info)?;
        if is_cluster_node(&info) {
            let text =
                "the server is a node of a Redis Cluster: write the URL with redis-cluster:// or rediss-cluster://";
            return Err(StoreError::Refused(text.into()));
        }
        Ok(())
    }

    /// Whether another server can be the master without a sign on the connections to this one.
    pub const fn need_proof(&self) -> bool {
        !matches!(self, Self::Single(_))
    }

    /// Whether others confirm that the node which this process reads from is the master of the fleet's keys.
    pub async fn prove_master(&self, link: &Link) -> Result<bool, StoreError> {
        match self {
            Self::Single(_) => Ok(true),
            Self::Sentinel(master) => Ok(master.prove().await),
            Self::Cluster { fleet_key, .. } => {
                let mut proof = pipe();
                // The node that executes the first command calls itself the master of the slot. The second one asks that node whether most
                // masters agree: if it was cut off from them, it says no after `cluster-node-timeout`.
                proof.cmd("TYPE").arg(fleet_key).ignore().cmd("CLUSTER").arg("INFO");
                let (info,): (Value,) = proof.query_async(&mut link.to(fleet_key)).await?;
                Ok(cluster::is_up(&info))
            }
        }
    }
}

/// Refuses a server whose `INFO server` names an older version.
pub(super) fn check_version(info: &str) -> Result<(), StoreError> {
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
    match version.and_then(|v| v.split('.').next()?.trim().parse::<u32>().ok()) {
        Some(major) if major < 7 => Err(too_old()),
        _ => Ok(()),
    }
}

/// Whether the server of this `INFO server` is a node of a cluster.
pub(super) fn is_cluster_node(info: &str) -> bool {
    let mode =
        info.lines().find_map(|line| line.strip_prefix("redis_mode:").or_else(|| line.strip_prefix("server_mode:")));
    mode.is_some_and(|mode| mode.trim() == "cluster")
}
