//! Nodes on one store: what they tell each other, and the policy that they have in common. They share nothing else.
//!
//! What is in force is one pointer. A push stores the component, makes it the candidate, waits until every live node has taken it
//! through all stages, and then flips the pointer, once. Nothing of it that is read from Redis is believed: contents are held against
//! their digests, and what was pushed against its signature.

pub mod commands;
pub(crate) mod follower;
pub(crate) mod local_cache;
pub(crate) mod node;
pub(crate) mod push;
pub(crate) mod record;
pub(crate) mod revocation;
pub(crate) mod shadow;
pub(crate) mod status;
