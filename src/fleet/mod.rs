//! The nodes that share one store: their heartbeats, their commands, and the policy that they share.
//!
//! One record names the active policy. A push is a two-phase commit: it stores the component, sets the pending record, waits until
//! every live node has prepared the policy, and then replaces the active record atomically. Nodes do not trust the store: they check
//! blobs against their digests, and pushes against their signatures.

pub mod commands;
mod commit;
pub(crate) mod follower;
pub(crate) mod heartbeat;
pub(crate) mod local_cache;
pub(crate) mod node;
pub(crate) mod node_status;
pub(crate) mod push;
pub(crate) mod push_result;
pub(crate) mod record;
pub(crate) mod revocation;
pub(crate) mod shadow;
pub(crate) mod status;
mod write_back;
