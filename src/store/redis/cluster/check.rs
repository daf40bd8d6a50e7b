//! What a start and `tidegate check` ask a cluster.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::ConnectionLike;
use redis::{RedisError, Value, cmd, pipe};

use crate::store::StoreError;
use crate::store::redis::cluster::nodes::NodePool;
use crate::store::redis::cluster::slot_map::NodeAddress;
use crate::store::redis::cluster::topology::ClusterTopology;
use crate::store::redis::servers::{check_version, is_cluster_node};

/// Maximum nodes that are checked.
const MAX_CHECKED_NODES: usize = 64;

/// Checks that the nodes are a cluster that serves its slots, that it is not too old, and that it does not answer reads while it is down.
pub async fn check(topology: &ClusterTopology, timeout: Duration, canary_channel: &str) -> Result<(), StoreError> {
    let map = topology.first_map(timeout).await.map_err(explain)?;
    let pool = &topology.control;
    let nodes: Vec<_> = map.nodes().keys().take(MAX_CHECKED_NODES).collect();
    for checked in join_all(nodes.iter().map(|node| check_node(node, pool))).await {
        checked?;
    }
    if let Some(node) = topology.any_node() {
        check_rights(&node, pool, canary_channel).await?;
    }
    if topology.is_down() {
        let text = "CLUSTERDOWN: slots have no master, or most masters cannot be reached";
        return Err(StoreError::NotReady(text.into()));
    }
    Ok(())
}

/// The remedy for servers that cannot be used as a cluster.
fn explain(error: RedisError) -> StoreError {
    match StoreError::from(error) {
        StoreError::Refused(text) if text.contains("cluster support disabled") => StoreError::Refused(
            "the server is not a node of a Redis Cluster: write the URL with redis:// or rediss://".into(),
        ),
        StoreError::Refused(text) if text.starts_with("NOPERM") => StoreError::Refused(format!(
            "{text}: a cluster needs the rights +cluster|slots +cluster|info +cluster|nodes"
        )),
        error => error,
    }
}

/// Checks one node. One that cannot be reached does not count: a cluster serves its slots without some of its nodes.
async fn check_node(node: &NodeAddress, pool: &NodePool) -> Result<(), StoreError> {
    let mut link = pool.get(node);
    let info: Result<String, RedisError> = cmd("INFO").arg("server").query_async(&mut link).await;
    if let Ok(info) = info {
        check_version(&info)?;
        // An address that the cluster lists may be another server's by now.
        if !is_cluster_node(&info) && info.contains("redis_mode:") {
            return Err(StoreError::Refused(format!("{node}: the server is not a node of a Redis Cluster")));
        }
    }
    // A user without the right to read the configuration gets no answer.
    let option = "cluster-allow-reads-when-down";
    let setting: Result<Vec<(String, String)>, RedisError> =
        cmd("CONFIG").arg("GET").arg(option).query_async(&mut link).await;
    match setting.unwrap_or_default().first() {
        Some((_, value)) if value == "yes" => Err(StoreError::Refused(format!(
            "{node}: {option} is yes, so a master that was replaced delivers old data: set it to no on all nodes"
        ))),
        _ => Ok(()),
    }
}

/// Checks the rights that notifications need on a cluster.
async fn check_rights(node: &NodeAddress, pool: &NodePool, canary_channel: &str) -> Result<(), StoreError> {
    let mut commands = pipe();
    commands.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("NODES").cmd("PUBLISH").arg(canary_channel).arg(0);
    let replies = pool.get(node).req_packed_commands(&commands, 0, 3).await?;
    for reply in replies {
        if let Value::ServerError(error) = reply
            && error.code() == "NOPERM"
        {
            let message = error.details().unwrap_or_default().to_owned();
            // Its last part is random.
            let fleet = canary_channel.rsplit_once(":canary:").map_or(canary_channel, |(fleet, _)| fleet);
            return Err(StoreError::Refused(format!(
                "NOPERM {message}: a cluster needs the rights +cluster|info +cluster|nodes +publish, and the channels &{fleet}:*"
            )));
        }
    }
    Ok(())
}
