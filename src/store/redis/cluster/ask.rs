//! Asks the nodes of a cluster which one is the master of each slot.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError, Value, pipe};

use crate::store::redis::cluster::nodes::NodePool;
use crate::store::redis::cluster::slot_map::{NodeAddress, SlotMap, text};
use crate::store::redis::tls_faults;

/// How long a node may take to answer before the next one is asked as well.
const HEDGE_DELAY: Duration = Duration::from_millis(300);
/// Maximum nodes that one refresh asks.
const MAX_ASKED_NODES: usize = 12;

/// What a cluster says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// Whether the node serves its slots; `None` if it does not say.
    pub is_ok: Option<bool>,
    /// Greater after each failover.
    epoch: u64,
}

impl ClusterState {
    /// Parses the reply to `CLUSTER INFO`.
    pub fn parse(reply: &Value) -> Self {
        let field = |name: &str| text(reply)?.lines().find_map(|line| line.strip_prefix(name));
        Self {
            is_ok: field("cluster_state:").map(|state| state.trim() == "ok"),
            epoch: field("cluster_current_epoch:").and_then(|epoch| epoch.trim().parse().ok()).unwrap_or_default(),
        }
    }
}

/// What a node says about the cluster.
pub struct Answer {
    pub node: NodeAddress,
    pub state: ClusterState,
    pub map: SlotMap,
}

/// Asks one node after another until one says that the cluster is up. If none does, the one with the greatest epoch knows best: an isolated
/// node knows of no failover.
pub async fn ask_nodes(nodes: Vec<NodeAddress>, control: &NodePool) -> Result<Answer, RedisError> {
    let mut left = nodes.into_iter().take(MAX_ASKED_NODES);
    let (mut asked, mut best, mut failures) = (FuturesUnordered::new(), None::<Answer>, Failures::default());
    loop {
        asked.extend(left.next().map(|node| ask(node, control)));
        match tokio::time::timeout(HEDGE_DELAY, asked.next()).await {
            Ok(Some(Ok(answer))) if answer.state.is_ok != Some(false) => return Ok(answer),
            Ok(Some(Ok(answer))) => {
                if best.as_ref().is_none_or(|best| answer.state.epoch > best.state.epoch) {
                    best = Some(answer);
                }
            }
            Ok(Some(Err((node, error)))) => failures.0.push((node, error)),
            Ok(None) => return best.ok_or_else(|| failures.into()),
            // The node may still answer; meanwhile the next one is asked as well.
            Err(_) => {}
        }
    }
}

async fn ask(node: NodeAddress, control: &NodePool) -> Result<Answer, (NodeAddress, RedisError)> {
    let mut commands = pipe();
    commands.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    let replies = control.get(&node).req_packed_commands(&commands, 0, 2).await;
    let replies = match replies.map(<[Value; 2]>::try_from) {
        Ok(Ok(replies)) => replies,
        Ok(Err(_)) => return Err((node, (ErrorKind::UnexpectedReturnType, "not two replies").into())),
        Err(error) => return Err((node, error)),
    };
    match replies {
        [_, Value::ServerError(error)] => Err((node, error.into())),
        [info, slots] => match SlotMap::parse(&slots, &node) {
            // It left the cluster, or the cluster is not created yet.
            Some(map) if map.is_empty() => Err((node, (ErrorKind::Io, "it is in no cluster with slots").into())),
            Some(map) => Ok(Answer { state: ClusterState::parse(&info), map, node }),
            None => Err((node, (ErrorKind::UnexpectedReturnType, "CLUSTER SLOTS returned no slots").into())),
        },
    }
}

pub fn no_answer() -> RedisError {
    (ErrorKind::Io, "no node of the cluster has said where its slots are").into()
}

/// Why no node answered.
#[derive(Default)]
struct Failures(Vec<(NodeAddress, RedisError)>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (node, error)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            // The library appends the kind of an error to its text.
            let text = error.to_string().replacen(&format!(" - {:?}", error.kind()), "", 1);
            write!(f, "{separator}{node}: {text}")?;
        }
        Ok(())
    }
}

impl From<Failures> for RedisError {
    /// An error that a server replied keeps its code, and one of a TLS handshake its cause: they say more than one of a connection.
    fn from(failures: Failures) -> Self {
        let has_reply = |error: &RedisError| error.clone().into_server_errors().is_some();
        let says_more = |error: &RedisError| has_reply(error) || tls_faults::describe(error).is_some();
        match failures.0.iter().find(|(_, error)| says_more(error)) {
            Some((_, error)) => error.clone(),
            None => (ErrorKind::Io, "no node of the cluster answers", failures.to_string()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_the_cluster_is_read() {
        let info = |text: &str| ClusterState::parse(&Value::BulkString(text.into()));
        let ok = info("cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:7\r\n");
        assert_eq!(ok, ClusterState { is_ok: Some(true), epoch: 7 });
        assert_eq!(info("cluster_state:fail\r\n").is_ok, Some(false));
        assert_eq!(ClusterState::parse(&Value::Nil), ClusterState::default());
    }

    #[test]
    fn error_names_every_node_that_was_asked() {
        let refused = || RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let failures = Failures(vec![(NodeAddress::new("a", 1), refused()), (NodeAddress::new("b", 2), refused())]);
        let error = RedisError::from(failures);
        assert!(error.is_io_error());
        let text = error.to_string();
        assert!(text.contains("a:1: connection refused; b:2: connection refused"), "{text}");
    }
}
