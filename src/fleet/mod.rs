//! Nodes on one store: what they tell each other, and the policy that they have in common. They share nothing else.
//!
//! What is in force is one pointer. A push stores the component, makes it the candidate, waits until every live node has taken it
//! through all stages, and then flips the pointer, once. Nothing of it that is read from Redis is believed: contents are held against
//! their digests, and what was pushed against its signature.

mod beside;
pub mod commands;
mod copy;
mod follow;
mod member;
mod pointer;
pub mod proposal;
pub mod push;
pub mod revocation;
mod view;

pub use copy::LocalCopy;
pub use member::{Fleet, Join, Node};
pub use pointer::{Missing, Pointer};
pub use view::{NothingThere, View};
