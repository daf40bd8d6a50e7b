//! Client streams: response bodies, positions, replay from the store, and the registry of open streams.

pub(crate) mod body;
pub(crate) mod position;
pub mod registry;
pub(crate) mod replay;
