//! The hub owns the channels of this node: one subscription a channel, one read at a time a channel, whatever the number of
//! streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::buffer::BufferBudget;
use crate::channel::reader::Plan;
use crate::channel::sequencer::{PayloadBudget, SequencedFrame};
use crate::channel::{Channel, Cursor, Link, OpenResult, PullResult, StartPosition, TAP_MESSAGES};
use crate::event::{Notification, StreamId};
use crate::store::{Limits, NotificationHandler, Page, Store, StoreError};
use crate::telemetry::metrics::Metrics;

/// How a hub behaves.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// Bytes of all channels' logs.
    pub buffer_memory: usize,
    /// A quiet channel's position is checked about this often.
    pub reconcile_interval: Duration,
    /// An entry larger than that becomes a gap.
    pub max_event_size: usize,
    /// A channel that its last stream has left is kept so long: clients come back.
    pub linger: Duration,
}

/// Reads of channels under way at once; what they bring is bounded by this times [`PAGE`].
const READS: usize = 16;
/// One read of a channel, in entries and bytes. A larger entry comes alone.
const PAGE: (usize, usize) = (256, 256 * 1024);
/// Payloads of doorbells that wait for a read, in bytes, on the whole node.
const PAYLOADS: usize = 8 << 20;
/// The hub looks at its channels this often, and checks so many positions at the most.
const TICK: (Duration, usize) = (Duration::from_millis(250), 250);
/// After a read that failed, growing from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The hub. Clones share it.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    this: Weak<Shared>,
    store: Arc<dyn Store>,
    settings: HubSettings,
    channels: Mutex<HashMap<Arc<str>, Arc<Channel>>>,
    /// What is read before any of them, if there is such a thing.
    lead: OnceLock<Arc<CommandBarrier>>,
    logs: Arc<BufferBudget>,
    payloads: Arc<PayloadBudget>,
    metrics: Arc<Metrics>,
    reads: Semaphore,
    up: AtomicBool,
}

impl Hub {
    /// Starts a hub on a store, which will ring it.
    pub fn start(store: Arc<dyn Store>, settings: HubSettings, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new_cyclic(|this: &Weak<Shared>| Shared {
            this: this.clone(),
            logs: Arc::new(BufferBudget::new(settings.buffer_memory)),
            payloads: Arc::new(PayloadBudget::new(PAYLOADS)),
            reads: Semaphore::new(READS),
            channels: Mutex::default(),
            lead: OnceLock::new(),
            up: AtomicBool::new(true),
            settings,
            store,
            metrics,
        });
        let bell: Weak<dyn NotificationHandler> = shared.this.clone();
        shared.store.start(bell);
        tokio::spawn(tend(shared.this.clone()));
        Self(shared)
    }

    /// The store beneath.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// The metrics that channels and streams count in.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Lets a stream of the store go first: from now on no channel is read before [`CommandBarrier::caught_up`], and after each lost link it is
    /// so again. There is one at the most, and it is no channel.
    pub fn follow(&self, key: &str) -> Arc<CommandBarrier> {
        let lead = self.0.lead.get_or_init(|| Arc::new(CommandBarrier::new(key.into())));
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
            let channel = Arc::new(Channel::new(Arc::clone(&name), logs, payloads, Arc::clone(&self.0.metrics)));
            self.0.store.watch(&name);
            channels.insert(name, Arc::clone(&channel));
            channel
        });
        let member = channel.inner().members.insert(None);
        Membership { hub: self.clone(), channel, member }
    }

    /// Listens to what is published on a channel, as it is.
    #[must_use]
    pub fn tap(&self, name: &str) -> RawSubscription {
        let membership = self.join(name);
        let messages = {
            let mut inner = membership.channel.inner();
            match &inner.tap {
                Some(tap) => tap.subscribe(),
                None => {
                    let (tap, messages) = broadcast::channel(TAP_MESSAGES);
                    inner.tap = Some(tap);
                    messages
                }
            }
        };
        RawSubscription { membership, messages }
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
        let limits = Limits { entries: usize::from(u16::MAX), bytes, max_event: self.0.settings.max_event_size };
        self.0.read(channel, after, limits).await
    }
}

/// A stream's membership in a channel.
pub struct Membership {
    hub: Hub,
    channel: Arc<Channel>,
    member: usize,
}

impl Membership {
    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.channel.name
    }

    /// Finds the place to begin at; `verified` is kept between calls, and begins as `None`.
    pub fn open(&self, start: StartPosition, verified: &mut Option<u64>, waker: &Waker) -> OpenResult {
        let (opening, read) = self.channel.open(self.member, start, verified, waker);
        if read {
            self.hub.0.spawn_read(&self.channel);
        }
        opening
    }

    /// Hands the items behind the cursor to the sink, until that answers false.
    pub fn pull(&self, cursor: &mut Cursor, waker: &Waker, sink: impl FnMut(&SequencedFrame) -> bool) -> PullResult {
        self.channel.pull(self.member, cursor, waker, sink)
    }

    /// The log's end, to be given to [`Self::rejoin`] behind a read of the store that begins now.
    #[must_use]
    pub fn log_end(&self) -> u64 {
        self.channel.log_end()
    }

    /// Goes on in the log, after a read of the store brought everything up to `cursor.at`.
    pub fn rejoin(&self, cursor: &mut Cursor, page: &Page, end: u64) {
        if self.channel.rejoin(cursor, page, end) {
            self.hub.0.spawn_read(&self.channel);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut inner = self.channel.inner();
        inner.members.try_remove(self.member);
        inner.idle_since = Instant::now();
    }
}

/// What is published on a channel, as it is.
pub struct RawSubscription {
    membership: Membership,
    messages: broadcast::Receiver<Bytes>,
}

impl RawSubscription {
    /// Waits until the channel is subscribed to.
    pub async fn ready(&self) {
        let mut verified = None;
        std::future::poll_fn(|cx| match self.membership.open(StartPosition::Tail, &mut verified, cx.waker()) {
            OpenResult::Wait => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        })
        .await;
    }

    /// The next message; `None` once this reader has been too slow for them.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.messages.recv().await.ok()
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
            if Notification::parse(payload) != Notification::Noise {
                lead.rang();
            }
            return;
        }
        let Some(channel) = self.channels().get(channel).cloned() else { return };
        let payload = if payload.len() > self.settings.max_event_size { b"" } else { payload };
        let held = self.lead.get().is_some_and(|lead| !lead.is_caught_up());
        let read = channel.ring(payload, held, Instant::now());
        self.start_read(&channel, read);
    }

    fn lost(&self, why: &str) {
        if self.up.swap(false, Ordering::Relaxed) {
            tracing::warn!(%why, "the store is away: streams stay, and catch up when it is back");
        }
        if let Some(lead) = self.lead.get() {
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

    fn lead_at(&self, key: &str) -> Option<&Arc<CommandBarrier>> {
        self.lead.get().filter(|lead| **lead.key() == *key)
    }

    /// Reads a channel. What it brings is handed on only when all that goes before is known.
    async fn read(&self, channel: &str, after: StreamId, limits: Limits) -> Result<Page, StoreError> {
        let Some(lead) = self.lead.get() else { return self.store.read(channel, after, limits).await };
        lead.passed().await;
        let page = self.store.read(channel, after, limits).await;
        if let Ok(page) = &page {
            lead.stands_at(page.lead);
        }
        // There is something to be read first, or the link was lost, and is back, while this was read.
        lead.passed().await;
        page
    }

    fn start_read(&self, channel: &Arc<Channel>, needed: bool) {
        if needed {
            self.spawn_read(channel);
        } else {
            channel.rung.notify_one();
        }
    }

    fn spawn_read(&self, channel: &Arc<Channel>) {
        if let Some(shared) = self.this.upgrade() {
            tokio::spawn(shared.read_until_quiet(Arc::clone(channel)));
        }
    }

    /// The one task that reads a channel, while anything is to be read or waits to be settled.
    async fn read_until_quiet(self: Arc<Self>, channel: Arc<Channel>) {
        let mut delay = RETRY.0;
        let mut bytes = PAGE.1;
        loop {
            let plan = channel.inner().plan();
            match plan {
                Plan::End => return,
                Plan::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = channel.rung.notified() => {}
                    }
                }
                Plan::Read { after, patient, number } => {
                    let entries = if channel.inner().opened { PAGE.0 } else { 0 };
                    let limits = Limits { entries, bytes, max_event: self.settings.max_event_size };
                    // Never closed, so the permit is always had.
                    let permit = self.reads.acquire().await;
                    let result = self.read(channel.name(), after, limits).await;
                    drop(permit);
                    bytes = PAGE.1;
                    if let Ok(page) = &result
                        && let Some(needs) = page.needs
                    {
                        bytes = needs;
                    }
                    if channel.inner().read_done(result, patient, number) {
                        delay = RETRY.0;
                    } else {
                        tokio::time::sleep(jitter(delay)).await;
                        delay = (delay * 2).min(RETRY.1);
                    }
                }
            }
        }
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
                inner.check_at = now + jitter(hub.settings.reconcile_interval);
                if inner.want_read() {
                    due.push(Arc::clone(channel));
                }
            }
            true
        });
        due.iter().for_each(|channel| hub.spawn_read(channel));
    }
}

/// Between three and five quarters of a time.
fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.75..1.25))
}
