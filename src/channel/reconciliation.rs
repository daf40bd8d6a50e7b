//! Checks of quiet channels for entries whose notification was lost. Channels are due one by one, spread over `stream.reconcile-interval`.
//! Those that are due are compared with the store together, and only channels that differ are read: a quiet channel costs little, however many
//! there are.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::channel::lifetimes::Lifetimes;
use crate::channel::reader::StoreReader;
use crate::channel::{Channel, ChannelState, Link};
use crate::event::StreamId;
use crate::store::KnownStream;

/// Between two looks for channels that are due.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// Channels of one comparison, which occupies Redis for less than a millisecond.
const MAX_COMPARED_CHANNELS: usize = 128;
/// Reads that are requested between two pauses. The bound keeps many channels from flooding the store after an outage.
const MAX_READS: usize = 250;

/// Checks channels when they are due, until the hub is dropped.
pub(super) async fn run(channels: Weak<Mutex<Lifetimes>>, reader: Weak<StoreReader>) {
    let mut pause = MAX_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        let mut reads = 0;
        pause = loop {
            let (Some(channels), Some(reader)) = (channels.upgrade(), reader.upgrade()) else { return };
            let due = channels.lock().take_due(Instant::now(), MAX_COMPARED_CHANNELS);
            if due.is_empty() {
                let next = channels.lock().next_due();
                let until_next = next.map_or(MAX_PAUSE, |due| due.saturating_duration_since(Instant::now()));
                break until_next.clamp(MIN_PAUSE, MAX_PAUSE);
            }
            reads += check(&reader, due).await;
            if reads >= MAX_READS {
                break MAX_PAUSE;
            }
        };
    }
}

/// Compares channels with the store, and requests reads of those that differ. Returns the number of these.
async fn check(reader: &StoreReader, channels: Vec<Arc<Channel>>) -> usize {
    let (mut streams, mut compared, mut reads) = (Vec::new(), Vec::new(), 0);
    for channel in channels {
        let state = channel.state.lock();
        // A read that is requested finds what there is.
        if !state.link.is_subscribed() || state.reads.requested {
            continue;
        }
        if let Some(last_entry) = state.known_end() {
            drop(state);
            streams.push(KnownStream { channel: Arc::clone(&channel.name), last_entry });
            compared.push(channel);
        } else {
            channel.request_read(state);
            reads += 1;
        }
    }
    if streams.is_empty() {
        return reads;
    }
    // If the store cannot compare, each read finds out why, and is tried again.
    let changed = reader.find_changed(&streams).await.unwrap_or_else(|_| (0..streams.len()).collect());
    for (channel, known) in changed.iter().filter_map(|index| Some((compared.get(*index)?, streams.get(*index)?))) {
        let state = channel.state.lock();
        // An entry that was read meanwhile is the change.
        if state.known_end() == Some(known.last_entry) {
            channel.request_read(state);
            reads += 1;
        }
    }
    reads
}

impl ChannelState {
    /// As [`Sequencer::known_end`](crate::channel::sequencer::Sequencer::known_end), if no read is wanted or needed for another reason.
    fn known_end(&self) -> Option<Option<StreamId>> {
        let is_quiet = self.link == Link::Live && self.opened && !self.reads.has_task;
        self.sequencer.known_end().filter(|_| is_quiet)
    }
}
