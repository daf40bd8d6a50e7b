//! Client streams: response bodies, positions, replay from the store, and the registry of open streams.

pub(crate) mod body;
pub(crate) mod channel_reader;
pub(crate) mod chunk;
pub(crate) mod position;
pub mod registry;
pub(crate) mod replay;
pub(crate) mod replay_budget;

use std::sync::Arc;
use std::time::Duration;

use crate::channel::hub::Hub;
use crate::stream::replay_budget::ReplayBudget;

/// What all streams of a node share.
#[derive(Clone)]
pub struct StreamContext {
    /// The channels.
    pub hub: Hub,
    /// Memory for replays.
    pub replays: Arc<ReplayBudget>,
    /// A silent stream says something this often.
    pub ping: Duration,
}
