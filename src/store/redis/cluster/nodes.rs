//! The connections of one link to the nodes of a cluster.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{Client, ErrorKind, RedisError};

use crate::store::redis::cluster::slot_map::{MAX_NODES, NodeAddress};
use crate::store::redis::node_link::{Changes, NodeLink, NodeSource};

/// The cluster to which the nodes belong.
pub(crate) trait NodeDirectory: Send + Sync + 'static {
    fn client(&self, node: &NodeAddress) -> Result<Client, RedisError>;
    fn renewals(&self) -> Changes;
    /// A connection over which channels are read stands, and no command was sent over it yet.
    fn connected(&self, node: &NodeAddress);
}

/// A connection to each node that was needed, for one purpose. Connections to nodes that left the cluster are dropped.
pub(crate) struct NodePool {
    directory: Weak<dyn NodeDirectory>,
    connect_timeout: Duration,
    reply_timeout: Duration,
    /// Whether channels are read over these connections.
    has_reads: bool,
    nodes: Mutex<HashMap<NodeAddress, NodeLink>>,
}

impl NodePool {
    pub fn new(
        directory: Weak<dyn NodeDirectory>,
        connect_timeout: Duration,
        reply_timeout: Duration,
        has_reads: bool,
    ) -> Self {
        Self { directory, connect_timeout, reply_timeout, has_reads, nodes: Mutex::default() }
    }

    pub fn get(&self, address: &NodeAddress) -> NodeLink {
        let mut nodes = self.nodes.lock();
        // Redirections may name any number of nodes until the next refresh.
        if nodes.len() >= MAX_NODES && !nodes.contains_key(address) {
            nodes.clear();
        }
        let link = nodes.entry(address.clone()).or_insert_with(|| {
            let directory = Weak::clone(&self.directory);
            let source = ClusterNode { directory, address: address.clone(), has_reads: self.has_reads };
            NodeLink::new(Arc::new(source), self.connect_timeout, self.reply_timeout)
        });
        link.clone()
    }

    pub fn retain(&self, keep: impl Fn(&NodeAddress) -> bool) {
        self.nodes.lock().retain(|address, _| keep(address));
    }
}

/// A node at its address.
struct ClusterNode {
    directory: Weak<dyn NodeDirectory>,
    address: NodeAddress,
    has_reads: bool,
}

#[async_trait]
impl NodeSource for ClusterNode {
    async fn client(&self) -> Result<Client, RedisError> {
        match self.directory.upgrade() {
            Some(directory) => directory.client(&self.address),
            None => Err((ErrorKind::Io, "the store is closed").into()),
        }
    }

    fn connected(&self) {
        if let Some(directory) = self.directory.upgrade().filter(|_| self.has_reads) {
            directory.connected(&self.address);
        }
    }

    fn renewals(&self) -> Changes {
        self.directory.upgrade().and_then(|directory| directory.renewals())
    }
}
