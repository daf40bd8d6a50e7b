//! A Redis Cluster: the masters of its slots, commands that follow them, and notifications through one live node.
//!
//! The cluster client of the library is not used. It sends a command again after it lost the connection, which may execute an `XADD` twice; it
//! delays commands of healthy slots while it learns the slots again; and it loses subscriptions in a failover.

mod ask;
pub(crate) mod check;
pub(crate) mod nodes;
pub(crate) mod notifications;
mod redirect;
pub(crate) mod route;
pub(crate) mod slot_map;
pub(crate) mod topology;

use redis::Value;

/// Whether a reply to `CLUSTER INFO` says that the node serves its slots.
pub(super) fn is_up(info: &Value) -> bool {
    ask::ClusterState::parse(info).is_ok == Some(true)
}

#[cfg(test)]
mod tests;
