//! The hub owns the channels of this node: one subscription a channel, one read at a time a channel, whatever the number of
//! streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::buffer::BufferBudget;
use crate::channel::membership::Membership;
use crate::channel::raw_subscription::RawSubscription;
use crate::channel::reader::{StoreReader, jitter};
use crate::channel::sequencer::PayloadBudget;
use crate::channel::{Channel, Link};
use crate::event::{Notification, StreamId};
use crate::store::{NotificationHandler, Page, Store, StoreError};

/// How a hub behaves.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Bytes of all channels' logs.
    pub log_memory: usize,
    /// A quiet channel's position is checked about this often.
    pub position_check: Duration,
    /// An entry larger than that becomes a gap.
    pub max_event: usize,
    /// A channel that its last stream has left is kept so long: clients come back.
    pub linger: Duration,
}

/// Payloads of doorbells that wait for a read, in bytes, on the whole node.
const PAYLOADS: usize = 8 << 20;
/// The hub looks at its channels this often, and checks so many positions at the most.
const TICK: (Duration, usize) = (Duration::from_millis(250), 250);

/// The hub. Clones share it.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    store: Arc<dyn Store>,
    settings: HubSettings,
    channels: Mutex<HashMap<Arc<str>, Arc<Channel>>>,
    reader: Arc<StoreReader>,
    logs: Arc<BufferBudget>,
    payloads: Arc<PayloadBudget>,
    up: AtomicBool,
}

impl Hub {
    /// Starts a hub on a store, which will ring it.
    pub fn start(store: Arc<dyn Store>, settings: HubSettings) -> Self {
        let shared = Arc::new(Shared {
            reader: Arc::new(StoreReader::new(Arc::clone(&store), settings.max_event)),
            logs: Arc::new(BufferBudget::new(settings.log_memory)),
            payloads: Arc::new(PayloadBudget::new(PAYLOADS)),
            channels: Mutex::default(),
            up: AtomicBool::new(true),
            settings,
            store,
        });
        shared.store.start(Arc::downgrade(&shared) as Weak<dyn NotificationHandler>);
        tokio::spawn(tend(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// The store beneath.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Lets a stream of the store go first: from now on no channel is read before [`CommandBarrier::caught_up`], and after each lost link it is
    /// so again. There is one at the most, and it is no channel.
    pub fn follow(&self, key: &str) -> Arc<CommandBarrier> {
        let lead = self.0.reader.barrier.get_or_init(|| Arc::new(CommandBarrier::new(key.into())));
        self.0.store.lead(lead.key());
        self.0.store.watch(lead.key());
        Arc::clone(lead)
    }

    /// Enters a channel; dropping the membership leaves it.
    #[must_use]
    pub fn join(&self, name: &str) -> Membership {
        // All under the lock of the map, so that the channel is not swept, and the subscription not ended, between.
        let mut channels = self.0.channels();
        let channel = channels.get(name).cloned().unwrap_or_else(|| {
            let name: Arc<str> = name.into();
            let (logs, payloads) = (Arc::clone(&self.0.logs), Arc::clone(&self.0.payloads));
            let channel = Arc::new(Channel::new(Arc::clone(&name), logs, payloads));
            self.0.store.watch(&name);
            channels.insert(name, Arc::clone(&channel));
            channel
        });
        Membership::new(Arc::clone(&self.0.reader), channel)
    }

    /// Listens to what is published on a channel, as it is.
    #[must_use]
    pub fn tap(&self, name: &str) -> RawSubscription {
        RawSubscription::new(self.join(name))
    }

    /// How many channels there are, those too that their last stream left a moment ago.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.0.channels().len()
    }

    /// Bytes in the channels' logs.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.0.logs.used()
    }

    /// Entries of a channel after a position, for one stream that is behind its log.
    pub async fn read(&self, channel: &str, after: StreamId, bytes: usize) -> Result<Page, StoreError> {
        self.0.reader.read(channel, after, usize::from(u16::MAX), bytes).await
    }
}

impl NotificationHandler for Shared {
    fn watching(&self, channel: &str) {
        if !self.up.swap(true, Ordering::Relaxed) {
            tracing::info!("the store is back");
        }
        if let Some(lead) = self.lead_at(channel) {
            return lead.watching();
        }
        let Some(channel) = self.channels().get(channel).cloned() else { return };
        let read = {
            let mut inner = channel.inner();
            inner.link = Link::Unread;
            inner.want_read()
        };
        self.start_read(&channel, read);
    }

    fn rang(&self, channel: &str, payload: &[u8]) {
        if let Some(lead) = self.lead_at(channel) {
            if Notification::parse(payload) != Notification::System {
                lead.rang();
            }
            return;
        }
        let Some(channel) = self.channels().get(channel).cloned() else { return };
        let payload = if payload.len() > self.settings.max_event { b"" } else { payload };
        let held = self.reader.barrier.get().is_some_and(|lead| !lead.is_caught_up());
        let read = channel.ring(payload, held, Instant::now());
        self.start_read(&channel, read);
    }

    fn lost(&self, why: &str) {
        if self.up.swap(false, Ordering::Relaxed) {
            tracing::warn!(%why, "the store is away: streams stay, and catch up when it is back");
        }
        if let Some(lead) = self.reader.barrier.get() {
            lead.lost();
        }
        for channel in self.channels().values() {
            channel.inner().link = Link::Down;
        }
    }
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Channel>>> {
        self.channels.lock()
    }

    fn start_read(&self, channel: &Arc<Channel>, needed: bool) {
        if needed {
            self.reader.start(channel);
        } else {
            channel.rung.notify_one();
        }
    }

    fn lead_at(&self, key: &str) -> Option<&Arc<CommandBarrier>> {
        self.reader.barrier.get().filter(|lead| **lead.key() == *key)
    }
}

/// Looks after the channels until the hub is gone.
async fn tend(hub: Weak<Shared>) {
    loop {
        tokio::time::sleep(TICK.0).await;
        let Some(hub) = hub.upgrade() else { return };
        let now = Instant::now();
        let mut due = Vec::new();
        hub.channels().retain(|name, channel| {
            let mut inner = channel.inner();
            inner.log.trim();
            if inner.members.is_empty() {
                let keep = now.duration_since(inner.idle_since) < hub.settings.linger;
                if !keep {
                    hub.store.unwatch(name);
                }
                return keep;
            }
            if inner.check_at <= now && due.len() < TICK.1 && inner.link != Link::Down {
                inner.check_at = now + jitter(hub.settings.position_check);
                if inner.want_read() {
                    due.push(Arc::clone(channel));
                }
            }
            true
        });
        due.iter().for_each(|channel| hub.reader.start(channel));
    }
}
