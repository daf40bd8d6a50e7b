//! The way to the node that has a key. A link serves one purpose, with a connection to each node that it needs: a slow reply delays only
//! commands over the same link.

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisError, RedisFuture, Value};

use crate::store::redis::batching::BatchingLink;
use crate::store::redis::cluster::route::{ClusterLink, ClusterRoute};
use crate::store::redis::node_link::NodeLink;

#[derive(Clone)]
pub(crate) enum Link {
    /// All keys are on one node.
    Node(NodeLink),
    /// The same, for commands that are sent together.
    Batching(BatchingLink),
    /// Each slot is on a node of its own.
    Cluster(ClusterLink),
}

/// The way to one node, for commands with keys of one slot.
#[derive(Clone)]
pub(crate) enum Route {
    Node(NodeLink),
    Batching(BatchingLink),
    Cluster(Box<ClusterRoute>),
}

impl Link {
    /// The same connections, for commands that only read: those that are sent at the same time go out together. A Cluster has no such link.
    /// Needs a runtime.
    pub fn batching(&self) -> Self {
        match self {
            Self::Node(node) => Self::Batching(BatchingLink::new(node.clone())),
            other => other.clone(),
        }
    }

    /// The way to the node that has this key.
    pub fn to(&self, key: &str) -> Route {
        match self {
            Self::Node(node) => Route::Node(node.clone()),
            Self::Batching(node) => Route::Batching(node.clone()),
            Self::Cluster(cluster) => Route::Cluster(Box::new(cluster.to(key))),
        }
    }

    /// The way to any node, for a command without a key.
    pub fn to_any(&self) -> Route {
        match self {
            Self::Node(node) => Route::Node(node.clone()),
            Self::Batching(node) => Route::Batching(node.clone()),
            Self::Cluster(cluster) => Route::Cluster(Box::new(cluster.to_any())),
        }
    }

    /// Sends a command to the node that has this key.
    pub async fn send(&self, key: &str, command: Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Batching(node) => node.send(command).await,
            other => other.to(key).req_packed_command(&command).await,
        }
    }
}

impl ConnectionLike for Route {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Node(node) => node.req_packed_command(command),
            Self::Batching(node) => node.req_packed_command(command),
            Self::Cluster(route) => route.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Node(node) => node.req_packed_commands(commands, offset, count),
            Self::Batching(node) => node.req_packed_commands(commands, offset, count),
            Self::Cluster(route) => route.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Node(node) => node.get_db(),
            Self::Batching(node) => node.get_db(),
            Self::Cluster(route) => route.get_db(),
        }
    }
}
