//! The hub owns the channels of this node and their lifetimes. It holds one subscription for each channel, however many
//! streams read it, and passes the store's notifications on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::unconstrained;
use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::budget::SequencerBudgets;
use crate::channel::buffer::{BufferBudget, EventBuffer};
use crate::channel::delivery::{Delivery, DeliveryQueue, deliver};
use crate::channel::lifetimes::{Due, Lifetimes, MAX_CHANNELS_PER_STEP};
use crate::channel::master_proof::keep_proving;
use crate::channel::membership::Membership;
use crate::channel::raw_subscription::{RawMessages, RawQueues, RawSubscription};
use crate::channel::reader::StoreReader;
use crate::channel::resets::Resets;
use crate::channel::sequencer::Sequencer;
use crate::channel::{Channel, ChannelState, Link, Reads, reconciliation};
use crate::event::{Notification, StreamId};
use crate::store::slot::KeyScope;
use crate::store::{EventStore, NotificationHandler, Page, ReadRequest, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::util::client_key::ClientKey;
use crate::util::client_shares::ClientShare;
use crate::util::shares::Refusal;

/// The hub's part of the configuration.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Bytes of all event buffers.
    pub buffer_memory: usize,
    /// Bytes of all channels, without their events.
    pub channel_memory: usize,
    /// How often a channel's position is checked against the store, in case a notification was lost.
    pub reconcile_interval: Duration,
    /// Bytes. A larger entry becomes a gap.
    pub max_event_size: usize,
    /// Whether notifications supply entries that were trimmed before they were read.
    pub fill_holes: bool,
    /// How long a channel without members is kept: clients reconnect.
    pub linger: Duration,
    /// How long a proof counts that the store's server is the current master, and a reply of it.
    pub fence: Duration,
}

const TIMER_INTERVAL: Duration = Duration::from_millis(250);

/// The channels of a node. Clones share them.
#[derive(Clone)]
pub struct Hub(Arc<HubShared>);

pub(super) struct HubShared {
    settings: HubSettings,
    /// Lock order: the lifetimes first, then the state of a channel.
    channels: Arc<Mutex<Lifetimes>>,
    reader: Arc<StoreReader>,
    buffers: Arc<BufferBudget>,
    sequencers: Arc<SequencerBudgets>,
    raw_queues: Arc<RawQueues>,
    deliveries: Arc<DeliveryQueue>,
    metrics: Arc<Metrics>,
    /// For the log only: whether the store's link is up.
    is_store_up: AtomicBool,
    /// A stream waits until it may send events.
    has_fenced_streams: AtomicBool,
}

impl Hub {
    /// Starts a hub on a store, and becomes the store's notification handler.
    pub fn start(store: Arc<dyn EventStore>, settings: HubSettings, metrics: Arc<Metrics>) -> Self {
        let HubSettings { channel_memory, linger, reconcile_interval, .. } = settings;
        let shared = Arc::new(HubShared {
            channels: Arc::new(Mutex::new(Lifetimes::new(channel_memory, linger, reconcile_interval))),
            reader: Arc::new(StoreReader::new(store, settings.max_event_size)),
            buffers: Arc::new(BufferBudget::new(settings.buffer_memory)),
            sequencers: Arc::default(),
            raw_queues: Arc::new(RawQueues::new(settings.max_event_size)),
            deliveries: Arc::default(),
            is_store_up: AtomicBool::new(true),
            has_fenced_streams: AtomicBool::new(false),
            settings,
            metrics,
        });
        shared.reader.store.start(Arc::downgrade(&shared) as Weak<dyn NotificationHandler>);
        tokio::spawn(run_timers(Arc::downgrade(&shared)));
        // One for each core: a channel with many streams is served by all of them.
        for _ in 0..Handle::current().metrics().num_workers() {
            let (queue, metrics) = (Arc::clone(&shared.deliveries), Arc::clone(&shared.metrics));
            // Yields by itself, and a write that finds no budget left would look like one to a client that does not read.
            tokio::spawn(unconstrained(deliver(queue, metrics)));
        }
        tokio::spawn(reconciliation::run(Arc::downgrade(&shared.channels), Arc::downgrade(&shared.reader)));
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
        let new = || Arc::new(CommandBarrier::new(key.into(), Arc::clone(self.store()), self.0.settings.fence));
        let barrier = self.0.reader.barrier.get_or_init(new);
        tokio::spawn(keep_proving(Arc::downgrade(barrier)));
        self.store().set_barrier_stream(&barrier.key);
        self.store().subscribe(&barrier.key, &Arc::default());
        Arc::clone(barrier)
    }

    /// Joins channels on behalf of a client: all of them, or none if there is no room. Dropping a membership leaves its channel.
    pub fn join<'a>(
        &self,
        names: impl Iterator<Item = &'a str> + Clone,
        client: &Arc<ClientKey>,
    ) -> Result<Vec<Membership>, Refusal> {
        // The channels stay locked until the memberships are entered, so that no channel is removed in between.
        let mut channels = self.0.channels.lock();
        let shares = names.clone().map(|name| channels.share(name, client)).collect::<Result<Vec<_>, _>>()?;
        let joined = names.zip(shares).map(|(name, share)| self.join_one(&mut channels, name, share, client)).collect();
        while let Some(evicted) = channels.evict(None) {
            self.store().unsubscribe(&evicted.name);
        }
        Ok(joined)
    }

    fn join_one(
        &self,
        channels: &mut Lifetimes,
        name: &str,
        share: Option<ClientShare>,
        client: &Arc<ClientKey>,
    ) -> Membership {
        let new_channel =
            |name, due| Arc::new_cyclic(|this| self.0.new_channel(name, due, this, Arc::downgrade(&self.0)));
        let joined @ (channel, _) = &channels.join(name, share, client, new_channel);
        if channel.state.lock().link == Link::Down {
            self.store().subscribe(&channel.name, client);
        }
        Membership::new(joined.clone())
    }

    /// Subscribes to the raw messages of a channel.
    pub fn subscribe_raw(&self, name: &str) -> Result<RawSubscription, Refusal> {
        let joined = self.join(std::iter::once(name), &Arc::default())?;
        joined.into_iter().next().map(RawSubscription::new).ok_or(Refusal::Exhausted)
    }

    /// Subscribes to the raw messages of one of Tidegate's own channels, which do not count among those of clients.
    pub fn subscribe_own(&self, name: &str) -> RawSubscription {
        RawSubscription::new(self.join_one(&mut self.0.channels.lock(), name, None, &Arc::default()))
    }

    /// The number of channels, with those that linger.
    pub fn channel_count(&self) -> usize {
        self.0.channels.lock().by_name.len()
    }

    /// Bytes of all channels, with those that linger, without their events.
    pub fn channel_bytes(&self) -> usize {
        self.0.channels.lock().bytes()
    }

    /// How late the checks of quiet channels are (`stream.reconcile-interval`).
    pub fn check_delay(&self) -> Duration {
        self.0.channels.lock().next_due().map_or(Duration::ZERO, |due| due.elapsed())
    }

    /// Bytes in all event buffers.
    pub fn buffer_bytes(&self) -> usize {
        self.0.buffers.used_bytes()
    }

    /// Whether streams may send events: this node has proved that it reads from the store's current master, if the store needs that.
    pub fn may_deliver(&self) -> bool {
        self.0.may_deliver()
    }

    /// Wakes all streams when they may send events again. A stream calls it after it has set its wakers.
    pub fn wake_when_delivering(&self) {
        self.0.has_fenced_streams.store(true, Ordering::Release);
    }

    /// Reads entries after a position, for a stream whose cursor is not in the event buffer.
    pub async fn read(&self, channel: &str, request: ReadRequest, bytes: usize) -> Result<Page, StoreError> {
        self.0.reader.read(channel, request, usize::from(u16::MAX), bytes).await
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
        let Some(channel) = self.find(channel) else { return };
        let mut state = channel.state.lock();
        state.link = Link::CatchingUp;
        // Notifications of lost entries may have been missed.
        channel.require_proof(state);
    }

    fn refused(&self, channel: &str) {
        let Some(channel) = self.find(channel) else { return };
        let mut state = channel.state.lock();
        state.link = Link::Refused;
        state.wake_members();
    }

    fn notified(&self, channel: &str, payload: &[u8]) {
        if let Some(barrier) = self.barrier_of(channel) {
            if Notification::parse(payload) != Notification::System {
                barrier.notified();
            }
            return;
        }
        let Some(channel) = self.find(channel) else { return };
        channel.notify(payload, Instant::now());
    }

    fn master_changed(&self, keys: &KeyScope) {
        if let Some(barrier) = self.reader.barrier.get().filter(|barrier| keys.contains(&barrier.key)) {
            // The new master may lack commands that were processed; the next read of them finds out.
            barrier.mark_unsynced();
        }
        for channel in self.walk().flatten().filter(|channel| keys.contains(&channel.name)) {
            channel.require_proof(channel.state.lock());
        }
    }

    fn lost(&self, reason: &str) {
        if self.is_store_up.swap(false, Ordering::Relaxed) {
            tracing::warn!(reason, "store connection lost; streams stay open and catch up when it is restored");
        }
        if let Some(barrier) = self.reader.barrier.get() {
            barrier.set_subscribed(false);
        }
        self.walk().flatten().for_each(|channel| channel.state.lock().link = Link::Down);
    }
}

impl Drop for HubShared {
    fn drop(&mut self) {
        self.deliveries.close();
    }
}

impl HubShared {
    fn find(&self, channel: &str) -> Option<Arc<Channel>> {
        self.channels.lock().by_name.get(channel).cloned()
    }

    /// All channels, in steps. They are unlocked in between, so that streams can join.
    fn walk(&self) -> impl Iterator<Item = Vec<Arc<Channel>>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            let (step, to) = self.channels.lock().step(next)?;
            next = to;
            Some(step)
        })
    }

    /// Removes a member, and the channel if it was never opened.
    pub(super) fn leave(&self, channel: &Arc<Channel>, member: usize) {
        let mut channels = self.channels.lock();
        if channels.leave(channel, member) {
            self.reader.store.unsubscribe(&channel.name);
        }
    }

    fn new_channel(&self, name: Arc<str>, due: Due, this: &Weak<Channel>, hub: Weak<Self>) -> Channel {
        let state = ChannelState {
            link: Link::Down,
            opened: false,
            sequencer: Sequencer::new(Arc::clone(&name), Arc::clone(&self.sequencers), self.settings.fill_holes),
            buffer: EventBuffer::new(Arc::clone(&self.buffers)),
            metrics: Arc::clone(&self.metrics),
            last_id: StreamId::ZERO,
            resets: Resets::default(),
            takeovers: 0,
            members: Slab::new(),
            delivery: Delivery::new(Weak::clone(this), Arc::clone(&self.deliveries)),
            share: None,
            due,
            raw_messages: RawMessages::new(Arc::clone(&self.raw_queues)),
            reads: Reads::default(),
        };
        let (state, reader) = (Mutex::new(state), Arc::clone(&self.reader));
        Channel { name, state, reader, hub, wake_reader: Notify::new(), proven: Notify::new() }
    }

    fn barrier_of(&self, key: &str) -> Option<&Arc<CommandBarrier>> {
        self.reader.barrier.get().filter(|barrier| *barrier.key == *key)
    }
}

/// Wakes streams when the fence opens, trims event buffers, and removes channels after their linger time, until the hub is dropped.
async fn run_timers(hub: Weak<HubShared>) {
    loop {
        tokio::time::sleep(TIMER_INTERVAL).await;
        let Some(hub) = hub.upgrade() else { return };
        if hub.may_deliver() && hub.has_fenced_streams.swap(false, Ordering::AcqRel) {
            hub.wake_streams().await;
        }
        while hub.remove_expired() {
            tokio::task::yield_now().await;
        }
        let mut walk = hub.walk();
        while hub.buffers.is_scarce()
            && let Some(step) = walk.next()
        {
            step.iter().for_each(|channel| channel.state.lock().buffer.trim());
            tokio::task::yield_now().await;
        }
    }
}

impl HubShared {
    fn may_deliver(&self) -> bool {
        self.reader.barrier.get().is_none_or(|barrier| barrier.fence.is_open())
    }

    async fn wake_streams(&self) {
        for step in self.walk() {
            step.iter().for_each(|channel| channel.state.lock().wake_members());
            tokio::task::yield_now().await;
        }
    }

    /// Removes channels whose linger time is over. Returns whether there may be more.
    fn remove_expired(&self) -> bool {
        let (now, mut channels) = (Instant::now(), self.channels.lock());
        for _ in 0..MAX_CHANNELS_PER_STEP {
            let Some(expired) = channels.evict(Some(now)) else { return false };
            self.reader.store.unsubscribe(&expired.name);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;
    use crate::channel::lifetimes;
    use crate::channel::sequencer::history::MAX_HISTORY_BYTES;
    use crate::store::memory::MemoryStore;
    use crate::util::clock::system_clock;

    #[tokio::test(start_paused = true)]
    async fn timers_visit_all_channels_in_steps() {
        let settings = HubSettings {
            buffer_memory: 1 << 20,
            channel_memory: 16 << 20,
            reconcile_interval: Duration::from_secs(5),
            max_event_size: 1 << 20,
            linger: Duration::from_secs(30),
            fill_holes: true,
            fence: Duration::from_secs(5),
        };
        let store = Arc::new(MemoryStore::new(1 << 20, HashMap::new(), system_clock()));
        let hub = Hub::start(store, settings, Arc::default());
        let names: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        let mut joined = hub.join(names.iter().map(|name| &**name), &Arc::default()).expect("there is room");
        while !joined.iter().all(|membership| membership.channel.state.lock().opened) {
            tokio::task::yield_now().await;
        }
        // While a channel is read, or waits for that, it has a task.
        let task = Arc::clone(&joined[0].channel).read_until_quiet();
        let size = size_of::<Channel>() + size_of_val(&task);
        assert!(size < lifetimes::CHANNEL_BYTES - MAX_HISTORY_BYTES - 512, "{size} bytes, without the subscription");
        joined.truncate(1000);
        let mut visited = BTreeSet::new();
        for step in hub.0.walk() {
            // Between two steps channels are joined and left.
            let other = hub.join(std::iter::once("1999"), &Arc::default()).expect("there is room");
            assert!(step.len() <= MAX_CHANNELS_PER_STEP && other.len() == 1);
            visited.extend(step.iter().map(|channel| Arc::clone(&channel.name)));
        }
        assert_eq!((visited.len(), hub.channel_count()), (2000, 2000));
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(hub.channel_count(), 1000, "those without members are removed");
        drop(joined);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!((hub.channel_count(), hub.channel_bytes()), (0, 0));
    }
}
