//! The result of a push.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::artifact::signature::MAX_SEQUENCE;
use crate::fleet::record::ActiveRecord;
use crate::rollout::stage::StageError;
use crate::store::StoreError;

/// Time between two reads of the nodes' reports.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(25);
/// The result of a push.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pushed {
    /// The policy that was pushed.
    #[serde(flatten)]
    pub record: ActiveRecord,
    /// Whether it is active now; false for a dry run.
    pub activated: bool,
    /// The nodes that prepared the policy and, after a commit, have activated it.
    pub nodes: Vec<ActivatedNode>,
    /// Time from the commit to the last node's activation, in ms.
    pub duration_ms: u64,
    /// No node has confirmed the commit, and no replica of the store: a failover may lose it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_replicated: bool,
}

/// A node that has activated the policy, or prepared it for a dry run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActivatedNode {
    pub name: String,
    /// The address that clients connect to.
    pub address: String,
    /// Time from the commit to its heartbeat with this push, in ms.
    pub after_ms: u64,
}

/// A node that cannot prepare the policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeFailure {
    pub name: String,
    #[serde(flatten)]
    pub failure: StageError,
}

/// Why a push failed. Only `Replaced`, `CommitLost`, `CommitUnknown` and `ActivationTimeout` can follow a commit: the first says that another
/// policy is active, the others how to find out which one is.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{what} of {bytes} bytes; at most {max_bytes} are pushed")]
    TooLarge {
        /// `a component` or `a table of cases`
        what: &'static str,
        bytes: usize,
        max_bytes: u64,
    },
    #[error("another push is in progress: nothing was changed; try again when it is done")]
    InProgress,
    #[error("its sequence number {sequence} is not greater than {current}, the active one: sign it with a greater one")]
    SequenceNotIncreasing {
        /// The sequence of the push.
        sequence: u64,
        /// The active sequence.
        current: u64,
    },
    #[error(
        "no sequence is greater than {MAX_SEQUENCE}, the sequence of an activated policy: see `tidegate policy list`"
    )]
    SequencesExhausted,
    #[error("the fleet manages the policy of no live node: set policy.source = \"fleet\" on its nodes")]
    NoNodes,
    #[error("{}; nothing was changed anywhere", describe_failures(.0))]
    PrepareFailed(Vec<NodeFailure>),
    #[error("after {timeout:?} it is not prepared on {}; nothing was changed anywhere", nodes.join(", "))]
    PrepareTimeout { timeout: Duration, nodes: Vec<String> },
    #[error("another push was committed first: nothing was changed; try again to push on top of it")]
    Superseded,
    /// The pending record or a blob has expired.
    #[error("the store lost this push before the commit: nothing was changed; try again")]
    Expired,
    #[error("the push was committed, and then another push replaced it, sequence {0}")]
    Replaced(u64),
    #[error(
        "the push was committed, and then the store lost it; some nodes may have activated it: run `tidegate policy status`, and push it again"
    )]
    CommitLost,
    /// The store failed before the commit, or a commit without a reply was not executed.
    #[error("{0}; nothing was changed anywhere")]
    NotCommitted(#[source] StoreError),
    #[error("the store did not answer within {0:?}; nothing was changed anywhere")]
    StoreTimeout(Duration),
    /// The store did not answer at the commit or after it.
    #[error("it is unknown whether the policy is active, and where: run `tidegate policy status`: {0}")]
    CommitUnknown(String),
    #[error(
        "the push is committed, but after {timeout:?} the policy is not active on {}: run `tidegate policy status`",
        nodes.join(", ")
    )]
    ActivationTimeout {
        timeout: Duration,
        /// The names of the nodes, with their errors.
        nodes: Vec<String>,
    },
}

/// Names each failure once, with all nodes that have it.
fn describe_failures(nodes: &[NodeFailure]) -> String {
    let mut failures: Vec<(Vec<&str>, &StageError)> = Vec::new();
    for NodeFailure { name, failure } in nodes {
        match failures.iter_mut().find(|(_, known)| *known == failure) {
            Some((names, _)) => names.push(name),
            None => failures.push((vec![name], failure)),
        }
    }
    let describe = |(names, failure): &(Vec<&str>, &StageError)| {
        let nodes = match &**names {
            [name] => format!("node {name} refuses"),
            names => format!("nodes {} refuse", names.join(", ")),
        };
        format!("{nodes} it (not {}): {}", failure.stage.as_str(), failure.reason)
    };
    failures.iter().map(describe).collect::<Vec<_>>().join("; ")
}
