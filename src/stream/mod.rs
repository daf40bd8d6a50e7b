//! Client streams: response bodies, positions, replay from the store, and the registry of open streams.

pub(crate) mod body;
pub(crate) mod channel_reader;
pub(crate) mod chunk;
#[cfg(test)]
mod fixture;
pub(crate) mod large_frames;
pub(crate) mod position;
pub mod registry;
pub(crate) mod writer;
pub(crate) mod replay;
pub(crate) mod replay_budget;

use std::sync::Arc;
use std::time::Duration;

use crate::channel::hub::Hub;
use crate::stream::large_frames::LargeFrames;
use crate::stream::replay_budget::ReplayBudget;
use crate::util::clock::RemoteClock;

/// What all streams of a node share.
#[derive(Clone)]
pub struct StreamContext {
    pub hub: Hub,
    pub replay_budget: Arc<ReplayBudget>,
    pub large_frames: Arc<LargeFrames>,
    /// A stream that has sent nothing for this long sends a ping.
    pub ping_interval: Duration,
    /// The clock that the ids of entries come from.
    pub store_clock: Arc<RemoteClock>,
}
