//! The connections of one link to the nodes of a cluster.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{Client, ErrorKind, RedisError};

use crate::store::redis::cluster::slot_map::{MAX_NODES, NodeAddress};
use crate::store::redis::cluster::topology::Shared;
use crate::store::redis::node_link::{Changes, NodeLink, NodeSource};
use crate::store::slot::KeyScope;

/// A connection to each node that was needed, for one purpose. Connections to nodes that left the cluster are dropped.
pub(crate) struct NodePool {
    shared: Weak<Shared>,
    connect_timeout: Duration,
    reply_timeout: Duration,
    /// Whether channels are read over these connections.
    has_reads: bool,
    nodes: Mutex<HashMap<NodeAddress, NodeLink>>,
}

impl NodePool {
    pub(super) fn new(
        shared: &Arc<Shared>,
        connect_timeout: Duration,
        reply_timeout: Duration,
        has_reads: bool,
    ) -> Arc<Self> {
        let pool = Arc::new(Self {
            shared: Arc::downgrade(shared),
            connect_timeout,
            reply_timeout,
            has_reads,
            nodes: Mutex::default(),
        });
        shared.add_pool(&pool);
        pool
    }

    pub fn get(&self, address: &NodeAddress) -> NodeLink {
        let mut nodes = self.nodes.lock();
        // Redirections may name any number of nodes until the next refresh.
        if nodes.len() >= MAX_NODES && !nodes.contains_key(address) {
            nodes.clear();
        }
        let link = nodes.entry(address.clone()).or_insert_with(|| {
            let source =
                ClusterNode { shared: Weak::clone(&self.shared), address: address.clone(), has_reads: self.has_reads };
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
    shared: Weak<Shared>,
    address: NodeAddress,
    has_reads: bool,
}

#[async_trait]
impl NodeSource for ClusterNode {
    async fn client(&self) -> Result<Client, RedisError> {
        match self.shared.upgrade() {
            Some(shared) => shared.nodes.client(&self.address),
            None => Err((ErrorKind::Io, "the store is closed").into()),
        }
    }

    /// The node may have restarted, with other data.
    fn connected(&self) {
        let Some(shared) = self.shared.upgrade().filter(|_| self.has_reads) else { return };
        let slots = shared.map().slots_of(&self.address);
        if !slots.is_empty() {
            shared.master_changed(&KeyScope::Slots(slots));
        }
    }

    fn database(&self) -> i64 {
        0
    }

    fn renewals(&self) -> Changes {
        self.shared.upgrade().and_then(|shared| shared.nodes.connector.renewals())
    }
}
