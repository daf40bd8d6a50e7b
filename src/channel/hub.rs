//! The hub owns the channels of this node and their lifetimes. It holds one subscription for each channel, however many
//! streams read it, and passes the store's notifications on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::budget::SequencerBudgets;
use crate::channel::buffer::{BufferBudget, EventBuffer};
use crate::channel::membership::Membership;
use crate::channel::raw_subscription::{RawMessages, RawQueues, RawSubscription};
use crate::channel::reader::{StoreReader, jitter};
use crate::channel::sequencer::Sequencer;
use crate::channel::{Channel, ChannelState, Link, Reads};
use crate::event::{Notification, StreamId};
use crate::store::{EventStore, NotificationHandler, Page, StoreError};
use crate::telemetry::metrics::Metrics;

/// The hub's part of the configuration.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Bytes of all event buffers.
    pub buffer_memory: usize,
    /// How often a channel's position is checked against the store, in case a notification was lost.
    pub reconcile_interval: Duration,
    /// Bytes. A larger entry becomes a gap.
    pub max_event_size: usize,
    /// Whether notifications supply entries that were trimmed before they were read.
    pub fill_holes: bool,
    /// How long a channel without members is kept: clients reconnect.
    pub linger: Duration,
}

const TIMER_INTERVAL: Duration = Duration::from_millis(250);
/// Channels that are reconciled in one interval. The bound keeps many quiet channels from flooding the store.
const MAX_RECONCILED_PER_INTERVAL: usize = 250;

/// The channels of a node. Clones share them.
#[derive(Clone)]
pub struct Hub(Arc<HubShared>);

struct HubShared {
    settings: HubSettings,
    /// Lock order: this map first, then the state of a channel.
    channels: Mutex<HashMap<Arc<str>, Arc<Channel>>>,
    reader: Arc<StoreReader>,
    buffers: Arc<BufferBudget>,
    sequencers: Arc<SequencerBudgets>,
    raw_queues: Arc<RawQueues>,
    metrics: Arc<Metrics>,
    /// For the log only: whether the store's link is up.
    is_store_up: AtomicBool,
}

impl Hub {
    /// Starts a hub on a store, and becomes the store's notification handler.
    pub fn start(store: Arc<dyn EventStore>, settings: HubSettings, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(HubShared {
            channels: Mutex::default(),
            reader: Arc::new(StoreReader::new(store, settings.max_event_size)),
            buffers: Arc::new(BufferBudget::new(settings.buffer_memory)),
            sequencers: Arc::default(),
            raw_queues: Arc::new(RawQueues::new(settings.max_event_size)),
            is_store_up: AtomicBool::new(true),
            settings,
            metrics,
        });
        shared.reader.store.start(Arc::downgrade(&shared) as Weak<dyn NotificationHandler>);
        tokio::spawn(run_timers(Arc::downgrade(&shared)));
        Self(shared)
    }

    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.0.reader.store
    }

    /// The metrics that channels and streams count in.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Puts a barrier on the command stream with this key: from now on no channel is read before
    /// [`CommandBarrier::mark_synced`], and again after each lost link. Called at most once; the key is not a channel.
    pub fn add_barrier(&self, key: &str) -> Arc<CommandBarrier> {
        let barrier = self.0.reader.barrier.get_or_init(|| Arc::new(CommandBarrier::new(key.into())));
        self.store().set_barrier_stream(&barrier.key);
        self.store().subscribe(&barrier.key);
        Arc::clone(barrier)
    }

    /// Joins a channel; dropping the membership leaves it.
    #[must_use]
    pub fn join(&self, name: &str) -> Membership {
        // The map stays locked until the membership is entered, so that the timers cannot remove and unsubscribe the channel
        // in between.
        let mut channels = self.0.channels.lock();
        let channel = channels.get(name).cloned().unwrap_or_else(|| {
            let channel = Arc::new(self.0.new_channel(name.into()));
            self.store().subscribe(&channel.name);
            channels.insert(Arc::clone(&channel.name), Arc::clone(&channel));
            channel
        });
        Membership::new(channel)
    }

    /// Subscribes to the raw messages of a channel.
    pub fn subscribe_raw(&self, name: &str) -> RawSubscription {
        RawSubscription::new(self.join(name))
    }

    /// The number of channels, with those that linger.
    pub fn channel_count(&self) -> usize {
        self.0.channels.lock().len()
    }

    /// Bytes in all event buffers.
    pub fn buffer_bytes(&self) -> usize {
        self.0.buffers.used_bytes()
    }

    /// Reads entries after a position, for a stream whose cursor is not in the event buffer.
    pub async fn read(&self, channel: &str, after: StreamId, bytes: usize) -> Result<Page, StoreError> {
        self.0.reader.read(channel, after, usize::from(u16::MAX), bytes).await
    }
}

impl NotificationHandler for HubShared {
    fn subscribed(&self, channel: &str) {
        if !self.is_store_up.swap(true, Ordering::Relaxed) {
            tracing::info!("store connection restored");
        }
        if let Some(barrier) = self.barrier_of(channel) {
            return barrier.set_subscribed(true);
        }
        let Some(channel) = self.channels.lock().get(channel).cloned() else { return };
        let mut state = channel.state.lock();
        state.link = Link::CatchingUp;
        channel.request_read(state);
    }

    fn notified(&self, channel: &str, payload: &[u8]) {
        if let Some(barrier) = self.barrier_of(channel) {
            if Notification::parse(payload) != Notification::System {
                barrier.notified();
            }
            return;
        }
        let Some(channel) = self.channels.lock().get(channel).cloned() else { return };
        channel.notify(payload, Instant::now());
    }

    fn lost(&self, reason: &str) {
        if self.is_store_up.swap(false, Ordering::Relaxed) {
            tracing::warn!(reason, "store connection lost; streams stay open and catch up when it is restored");
        }
        if let Some(barrier) = self.reader.barrier.get() {
            barrier.set_subscribed(false);
        }
        for channel in self.channels.lock().values() {
            channel.state.lock().link = Link::Down;
        }
    }
}

impl HubShared {
    fn new_channel(&self, name: Arc<str>) -> Channel {
        let state = ChannelState {
            link: Link::Down,
            opened: false,
            sequencer: Sequencer::new(Arc::clone(&name), Arc::clone(&self.sequencers), self.settings.fill_holes),
            buffer: EventBuffer::new(Arc::clone(&self.buffers)),
            metrics: Arc::clone(&self.metrics),
            last_id: StreamId::ZERO,
            epoch: 0,
            reset_to: StreamId::ZERO,
            members: Slab::new(),
            raw_messages: RawMessages::new(Arc::clone(&self.raw_queues)),
            idle_since: Instant::now(),
            reconcile_at: Instant::now(),
            reads: Reads::default(),
        };
        Channel { name, state: Mutex::new(state), reader: Arc::clone(&self.reader), wake_reader: Notify::new() }
    }

    fn barrier_of(&self, key: &str) -> Option<&Arc<CommandBarrier>> {
        self.reader.barrier.get().filter(|barrier| *barrier.key == *key)
    }
}

/// Trims event buffers, removes channels after their linger time and starts due reconciling reads, until the hub is dropped.
async fn run_timers(hub: Weak<HubShared>) {
    loop {
        tokio::time::sleep(TIMER_INTERVAL).await;
        let Some(hub) = hub.upgrade() else { return };
        let now = Instant::now();
        let mut due = Vec::new();
        hub.channels.lock().retain(|name, channel| {
            let mut state = channel.state.lock();
            state.buffer.trim();
            if state.members.is_empty() {
                let keep = now.duration_since(state.idle_since) < hub.settings.linger;
                if !keep {
                    hub.reader.store.unsubscribe(name);
                }
                return keep;
            }
            if state.reconcile_at <= now && due.len() < MAX_RECONCILED_PER_INTERVAL && state.link != Link::Down {
                state.reconcile_at = now + jitter(hub.settings.reconcile_interval);
                due.push(Arc::clone(channel));
            }
            true
        });
        due.iter().for_each(|channel| channel.request_read(channel.state.lock()));
    }
}
