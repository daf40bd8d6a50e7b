//! The embedded store over a link that tests can disconnect, and emitters on the store's side of that link.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use async_trait::async_trait;
use serde_json::{Value, json};
use tidegate::event::{NewEvent, StreamId};
use tidegate::store::command::{Keep, NewId, Reply, RestCommand, Trim};
use tidegate::store::emit::{Attempt, Emitted};
use tidegate::store::memory::{MemoryStore, Seed};
use tidegate::store::revocations::{AddedRevocation, NewRevocation, RevocationIds, StoredRevocations};
use tidegate::store::slot::KeyScope;
use tidegate::store::{
    ChangedStreams, EventStore, KeyLookup, KnownStream, NotificationHandler, Page, ReadLimits, ReadRequest, Retention,
    StoreError,
};
use tidegate::util::client_key::ClientKey;

/// The initial time of the store's clock.
pub const START: u64 = 1_732_464_000_000;
/// The memory of the embedded store, more than any test needs.
const LIMIT: usize = 256 << 20;

pub struct FaultyStore {
    memory: Mutex<Arc<MemoryStore>>,
    seed: HashMap<String, Seed>,
    relay: Arc<Relay>,
    clock: Arc<AtomicU64>,
    /// Keys of a type other than stream.
    wrong_types: Mutex<HashSet<String>>,
    /// The greatest deleted id that every stream reports.
    max_deleted: Mutex<StreamId>,
    /// A writer holds back all reads.
    read_gate: tokio::sync::RwLock<()>,
    /// The same for pages that were read.
    page_gate: tokio::sync::RwLock<()>,
    /// The same for look-ups.
    lookup_gate: tokio::sync::RwLock<()>,
    /// The channels that were read, in this order.
    reads: Mutex<Vec<String>>,
    adds: AtomicU64,
    /// Whether the gateway has to prove that it reads from the master.
    needs_proof: AtomicBool,
    /// Whether such a proof succeeds.
    is_master: AtomicBool,
    /// Pages do not show the last command: the commands are on another server, as on a Cluster.
    is_cluster: AtomicBool,
    /// A writer holds back all checks of the last command.
    check_gate: tokio::sync::RwLock<()>,
    checks: AtomicUsize,
    /// Pages of channels that reads have returned.
    pages: AtomicUsize,
    /// Replies to emits that are lost from now on.
    lost_replies: AtomicUsize,
    /// Whether the server with the commands refuses all reads.
    fails_checks: AtomicBool,
}

/// Relays notifications from the embedded store to the hub.
struct Relay(Mutex<LinkState>);

struct LinkState {
    up: bool,
    handler: Option<Weak<dyn NotificationHandler>>,
    subscribed: BTreeSet<Arc<str>>,
    barrier_stream: Option<Arc<str>>,
    subscriptions: usize,
    /// Confirmations of a store that replaced another one without a loss of the link: the hub does not get them.
    unconfirmed: Vec<Arc<str>>,
    delivery: Delivery,
}

enum Delivery {
    Immediate,
    Dropped,
    Held(Vec<(String, Vec<u8>)>),
}

impl FaultyStore {
    pub fn new(seed: HashMap<String, Seed>) -> Arc<Self> {
        let state = LinkState {
            up: true,
            handler: None,
            subscribed: BTreeSet::new(),
            barrier_stream: None,
            subscriptions: 0,
            unconfirmed: Vec::new(),
            delivery: Delivery::Immediate,
        };
        let clock = Arc::new(AtomicU64::new(START));
        let relay = Arc::new(Relay(Mutex::new(state)));
        Arc::new(Self {
            memory: Mutex::new(memory(&seed, &clock, &relay)),
            seed,
            relay,
            clock,
            wrong_types: Mutex::default(),
            max_deleted: Mutex::default(),
            read_gate: tokio::sync::RwLock::default(),
            page_gate: tokio::sync::RwLock::default(),
            lookup_gate: tokio::sync::RwLock::default(),
            reads: Mutex::default(),
            adds: AtomicU64::new(0),
            needs_proof: AtomicBool::new(false),
            is_master: AtomicBool::new(true),
            is_cluster: AtomicBool::new(false),
            check_gate: tokio::sync::RwLock::default(),
            checks: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            lost_replies: AtomicUsize::new(0),
            fails_checks: AtomicBool::new(false),
        })
    }

    fn memory(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.memory.lock().expect("no test panics under this lock"))
    }

    fn check_link(&self) -> Result<(), StoreError> {
        let up = self.relay.state().up;
        if up { Ok(()) } else { Err(StoreError::Unavailable("the link is disconnected".into())) }
    }

    /// Disconnects the link to the store.
    pub fn disconnect(&self) {
        let handler = {
            let mut state = self.relay.state();
            state.up = false;
            state.handler.clone()
        };
        if let Some(handler) = handler.and_then(|handler| handler.upgrade()) {
            handler.lost("the link is disconnected");
        }
    }

    /// Restores the link. A task of the store confirms each subscription again.
    pub fn reconnect(&self) {
        let subscribed = {
            let mut state = self.relay.state();
            state.up = true;
            state.subscribed.clone()
        };
        let relay = Arc::clone(&self.relay);
        tokio::spawn(async move { subscribed.iter().for_each(|channel| relay.subscribed(channel)) });
    }

    /// Drops notifications from now on; the link stays up.
    pub fn drop_notifications(&self) {
        self.relay.state().delivery = Delivery::Dropped;
    }

    /// Holds notifications from now on.
    pub fn hold_notifications(&self) {
        self.relay.state().delivery = Delivery::Held(Vec::new());
    }

    /// Delivers the held notifications in this order, with other tasks running in between if `interleaved`. Those not in `order` are lost.
    pub async fn release_notifications(&self, order: &[usize], interleaved: bool) {
        let held = std::mem::replace(&mut self.relay.state().delivery, Delivery::Immediate);
        let Delivery::Held(held) = held else { panic!("no notification is held") };
        for i in order {
            let (channel, payload) = &held[*i];
            self.relay.notified(channel, payload);
            if interleaved {
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Holds back all reads for as long as the guard lives.
    pub async fn hold_reads(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.read_gate.write().await
    }

    /// Holds back all pages after they were read, for as long as the guard lives.
    pub async fn hold_pages(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.page_gate.write().await
    }

    /// Holds back all look-ups for as long as the guard lives.
    pub async fn hold_lookups(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.lookup_gate.write().await
    }

    /// A store whose server another one can replace, before a gateway starts on it: the gateway needs proofs of the master.
    pub fn with_failover(seed: HashMap<String, Seed>) -> Arc<Self> {
        let store = Self::new(seed);
        store.needs_proof.store(true, Ordering::Relaxed);
        store
    }

    /// Whether the store's server is the master from now on, as others see it. It answers in any case.
    pub fn set_master(&self, is_master: bool) {
        self.is_master.store(is_master, Ordering::Relaxed);
    }

    /// From now on the commands are on another server than the channels.
    pub fn separate_commands(&self) {
        self.is_cluster.store(true, Ordering::Relaxed);
    }

    /// Holds back all checks of the last command for as long as the guard lives.
    pub async fn hold_checks(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.check_gate.write().await
    }

    /// The commands cannot be read, or can be read again, as while their server has no successor.
    pub fn fail_checks(&self, fail: bool) {
        self.fails_checks.store(fail, Ordering::Relaxed);
    }

    fn check_commands(&self) -> Result<(), StoreError> {
        let fails = self.fails_checks.load(Ordering::Relaxed);
        if fails { Err(StoreError::NotReady("the slot has no master".into())) } else { Ok(()) }
    }

    /// The replies to the next emits through the gateway get lost after the events were added.
    pub fn lose_replies(&self, count: usize) {
        self.lost_replies.store(count, Ordering::Relaxed);
    }

    /// Number of pages of channels that the gateway has got so far.
    pub fn pages(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// Number of checks of the last command so far.
    pub fn checks(&self) -> usize {
        self.checks.load(Ordering::Relaxed)
    }

    /// Number of reads of channels so far, by the hub and by streams.
    pub fn reads(&self) -> usize {
        self.read_order().len()
    }

    /// The channels that were read so far.
    pub fn read_order(&self) -> Vec<String> {
        self.reads.lock().expect("no test panics under this lock").clone()
    }

    /// Number of subscriptions so far.
    pub fn subscriptions(&self) -> usize {
        self.relay.state().subscriptions
    }

    /// The channels that are subscribed to.
    pub fn subscribed_channels(&self) -> Vec<String> {
        self.relay.state().subscribed.iter().filter(|key| !is_own(key)).map(ToString::to_string).collect()
    }

    /// Gives a key another type, or makes it a stream again.
    pub fn set_wrong_type(&self, key: &str, wrong: bool) {
        let mut keys = self.wrong_types.lock().expect("no test panics under this lock");
        if wrong {
            keys.insert(key.into())
        } else {
            keys.remove(key)
        };
    }

    /// Sets the greatest deleted id that all streams report, as Redis does after `XDEL`.
    pub fn set_max_deleted(&self, id: StreamId) {
        *self.max_deleted.lock().expect("no test panics under this lock") = id;
    }

    /// The store's clock.
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Advances the store's clock.
    pub fn advance_clock(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets the store's clock, as an administrator or a failover to another server does.
    pub fn set_clock(&self, ms: u64) {
        self.clock.store(ms, Ordering::Relaxed);
    }

    /// Advances the clock between some entries; others share their millisecond.
    fn advance_between_entries(&self) {
        let n = self.adds.fetch_add(1, Ordering::Relaxed);
        self.advance_clock(u64::from(!n.is_multiple_of(3)));
    }

    /// The entries of a channel, each with its fields.
    async fn entries(&self, channel: &str) -> Vec<(StreamId, Vec<(String, String)>)> {
        let range = RestCommand::Range {
            key: channel.into(),
            start: "-".into(),
            end: "+".into(),
            count: None,
            max_bytes: usize::MAX,
        };
        let Ok(Reply::List(rows)) = self.memory().command(&range).await else { panic!("a range is a list") };
        let entry = |row| {
            let Reply::List(row) = row else { panic!("an entry is a list") };
            let [Reply::Text(id), Reply::List(fields)] = &row[..] else { panic!("an id and fields") };
            let fields: Vec<String> = fields.iter().map(text).collect();
            let fields = fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            (String::from_utf8_lossy(id).parse().expect("an id"), fields)
        };
        rows.into_iter().map(entry).collect()
    }

    /// The ids of the entries of a channel.
    pub async fn ids(&self, channel: &str) -> Vec<StreamId> {
        self.entries(channel).await.into_iter().map(|(id, _)| id).collect()
    }

    /// Replaces the store with one that holds only the first `entries` entries of a channel.
    pub async fn keep_first_entries(&self, channel: &str, entries: usize) {
        let kept = self.entries(channel).await.into_iter().take(entries).collect();
        self.replace(channel, kept).await;
    }

    /// Replaces the store with one that has lost the last `lost` entries of a channel.
    pub async fn lose_tail(&self, channel: &str, lost: usize) {
        let length = self.entries(channel).await.len();
        self.keep_first_entries(channel, length.saturating_sub(lost)).await;
    }

    /// Replaces the store with one that holds only these entries of a channel: those with data are new, the others are kept.
    pub async fn restore(&self, channel: &str, entries: &[(StreamId, Option<Value>)]) {
        let known: HashMap<_, _> = self.entries(channel).await.into_iter().collect();
        let fields = |(id, data): &(StreamId, Option<Value>)| match data {
            Some(data) => (*id, stock_fields(channel, "e", data)),
            None => (*id, known[id].clone()),
        };
        self.replace(channel, entries.iter().map(fields).collect()).await;
    }

    /// Tells the hub that another master may have taken over.
    pub fn change_master(&self) {
        self.relay.master_changed(&KeyScope::All);
    }

    async fn replace(&self, channel: &str, entries: Vec<(StreamId, Vec<(String, String)>)>) {
        let fresh = memory(&self.seed, &self.clock, &self.relay);
        for (id, fields) in entries {
            let (key, id) = (channel.into(), NewId::Exact(id));
            let add = RestCommand::Add { key, no_create: false, trim: None, id, fields };
            fresh.command(&add).await.expect("the copy accepts an entry of the original");
        }
        let (subscribed, barrier_stream) = {
            let mut state = self.relay.state();
            let state = &mut *state;
            state.unconfirmed.extend(state.subscribed.iter().cloned());
            (state.subscribed.clone(), state.barrier_stream.clone())
        };
        if let Some(barrier_stream) = barrier_stream {
            fresh.set_barrier_stream(&barrier_stream);
        }
        *self.memory.lock().expect("no test panics under this lock") = Arc::clone(&fresh);
        subscribed.iter().for_each(|channel| fresh.subscribe(channel, &Arc::default()));
    }

    /// A stock emitter's `XADD`.
    pub async fn add(&self, channel: &str, event: &str, data: &Value) -> StreamId {
        self.add_and_trim(channel, event, data, None).await
    }

    /// A stock emitter's `XADD … MAXLEN = n`.
    pub async fn add_and_trim(&self, channel: &str, event: &str, data: &Value, keep: Option<u64>) -> StreamId {
        self.advance_between_entries();
        let fields = stock_fields(channel, event, data);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.add_fields(channel, &fields, keep).await
    }

    pub async fn add_fields(&self, channel: &str, fields: &[(&str, &str)], keep: Option<u64>) -> StreamId {
        let add = RestCommand::Add {
            key: channel.into(),
            no_create: false,
            trim: keep.map(|n| Trim { approximate: false, keep: Keep::MaxLen(n) }),
            id: NewId::Auto,
            fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let reply = self.memory().command(&add).await.expect("the entry is added");
        text(&reply).parse().expect("XADD replies with an id")
    }

    /// Publishes these bytes unchanged.
    pub async fn publish(&self, channel: &str, message: &str) {
        let publish = RestCommand::Publish { key: channel.into(), message: message.into() };
        self.memory().command(&publish).await.expect("a message is published");
    }

    /// A stock emitter's `PUBLISH`.
    pub async fn notify(&self, channel: &str, id: StreamId, event: &str, data: &Value) {
        let payload = json!({"data": data, "event": event, "channel": channel, "id": id.to_string()});
        self.publish(channel, &payload.to_string()).await;
    }

    /// A stock emitter's `emit`: the entry, then the notification.
    pub async fn emit_stock(&self, channel: &str, event: &str, data: &Value) -> StreamId {
        let id = self.add(channel, event, data).await;
        self.notify(channel, id, event, data).await;
        id
    }

    /// Tidegate's own emitter.
    pub async fn emit_own(&self, channel: &str, event: &str, data: &Value) -> StreamId {
        self.advance_between_entries();
        let emitted = self.memory().emit(channel, &NewEvent::new(event, data), Retention::default()).await;
        emitted.expect("the event is emitted")
    }

    /// Sets an expiry, as `EXPIRE` does.
    pub async fn expire(&self, channel: &str, seconds: i64) {
        let expire = RestCommand::Expire { key: channel.into(), seconds };
        assert_eq!(self.memory().command(&expire).await.expect("an answer"), Reply::Int(1));
    }
}

/// The fields of an entry of a stock emitter.
fn stock_fields(channel: &str, event: &str, data: &Value) -> Vec<(String, String)> {
    let text = data.as_str().map_or_else(|| data.to_string(), ToOwned::to_owned);
    let fields = [("data", &*text), ("event", event), ("channel", channel)];
    fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

fn memory(seed: &HashMap<String, Seed>, clock: &Arc<AtomicU64>, relay: &Arc<Relay>) -> Arc<MemoryStore> {
    let clock = Arc::clone(clock);
    let memory = MemoryStore::new(LIMIT, seed.clone(), Arc::new(move || clock.load(Ordering::Relaxed)));
    let handler: Weak<dyn NotificationHandler> = Arc::downgrade(relay) as Weak<dyn NotificationHandler>;
    memory.start(handler);
    Arc::new(memory)
}

/// Whether the key is one of the fleet's, which are not counted.
fn is_own(key: &str) -> bool {
    key.starts_with("tidegate:")
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?} is not text"),
    }
}

impl Relay {
    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.0.lock().expect("no test panics under this lock")
    }

    /// The hub's handler while the link is up. It is never called under the lock, as the hub calls the store under its own lock.
    fn handler(&self) -> Option<Arc<dyn NotificationHandler>> {
        let state = self.state();
        state.handler.as_ref().filter(|_| state.up)?.upgrade()
    }
}

impl NotificationHandler for Relay {
    fn subscribed(&self, channel: &str) {
        let replaced = {
            let unconfirmed = &mut self.state().unconfirmed;
            let found = unconfirmed.iter().position(|known| **known == *channel);
            found.map(|index| unconfirmed.swap_remove(index))
        };
        if replaced.is_none()
            && let Some(handler) = self.handler()
        {
            handler.subscribed(channel);
        }
    }

    fn notified(&self, channel: &str, payload: &[u8]) {
        let Some(handler) = self.handler() else { return };
        match &mut self.state().delivery {
            Delivery::Immediate => {}
            Delivery::Dropped => return,
            Delivery::Held(held) => return held.push((channel.into(), payload.into())),
        }
        handler.notified(channel, payload);
    }

    fn refused(&self, channel: &str) {
        panic!("the embedded store refuses no subscription: {channel}");
    }

    fn master_changed(&self, keys: &KeyScope) {
        if let Some(handler) = self.handler() {
            handler.master_changed(keys);
        }
    }

    fn lost(&self, reason: &str) {
        panic!("the embedded store never loses its connection: {reason}");
    }
}

#[async_trait]
impl EventStore for FaultyStore {
    /// A gateway that replaces another one calls it again.
    fn start(&self, handler: Weak<dyn NotificationHandler>) {
        let mut state = self.relay.state();
        state.handler = Some(handler);
        state.subscribed.clear();
    }

    fn subscribe(&self, channel: &Arc<str>, client: &Arc<ClientKey>) {
        {
            let mut state = self.relay.state();
            state.subscribed.insert(Arc::clone(channel));
            state.subscriptions += usize::from(!is_own(channel));
        }
        self.memory().subscribe(channel, client);
    }

    fn unsubscribe(&self, channel: &str) {
        self.relay.state().subscribed.remove(channel);
        self.memory().unsubscribe(channel);
    }

    fn set_barrier_stream(&self, key: &Arc<str>) {
        self.relay.state().barrier_stream = Some(Arc::clone(key));
        self.memory().set_barrier_stream(key);
    }

    async fn read(&self, channel: &str, request: ReadRequest, limits: ReadLimits) -> Result<Page, StoreError> {
        if !is_own(channel) {
            self.reads.lock().expect("no test panics under this lock").push(channel.into());
        }
        let _permit = self.read_gate.read().await;
        self.check_link()?;
        if is_own(channel) {
            self.check_commands()?;
        }
        if self.wrong_types.lock().expect("no test panics under this lock").contains(channel) {
            return Err(StoreError::WrongType);
        }
        let mut page = self.memory().read(channel, request, limits).await?;
        let _permit = self.page_gate.read().await;
        if let Some(stream) = &mut page.stream {
            stream.max_deleted = *self.max_deleted.lock().expect("no test panics under this lock");
        }
        self.pages.fetch_add(usize::from(!is_own(channel)), Ordering::Relaxed);
        if self.is_cluster.load(Ordering::Relaxed) {
            page.barrier_position = None;
        }
        Ok(page)
    }

    async fn find_changed(&self, streams: &[KnownStream]) -> Result<ChangedStreams, StoreError> {
        let _permit = self.read_gate.read().await;
        self.check_link()?;
        let mut changed = self.memory().find_changed(streams).await?;
        let wrong_types = self.wrong_types.lock().expect("no test panics under this lock").clone();
        let is_changed =
            |index: &usize| changed.indices.contains(index) || wrong_types.contains(&*streams[*index].channel);
        let (indices, same): (Vec<_>, Vec<_>) = (0..streams.len()).partition(is_changed);
        // Each is in place of a read.
        let mut reads = self.reads.lock().expect("no test panics under this lock");
        reads.extend(same.into_iter().map(|index| streams[index].channel.to_string()));
        if self.is_cluster.load(Ordering::Relaxed) {
            changed.barrier_position = None;
        }
        Ok(ChangedStreams { indices, ..changed })
    }

    async fn barrier_position(&self) -> Result<StreamId, StoreError> {
        self.checks.fetch_add(1, Ordering::Relaxed);
        let _permit = self.check_gate.read().await;
        self.check_link()?;
        self.check_commands()?;
        self.memory().barrier_position().await
    }

    async fn prove_master(&self) -> Result<bool, StoreError> {
        self.check_link()?;
        Ok(self.is_master.load(Ordering::Relaxed))
    }

    fn needs_proof(&self) -> bool {
        self.needs_proof.load(Ordering::Relaxed)
    }

    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError> {
        self.check_link()?;
        self.memory().emit(channel, event, retention).await
    }

    async fn emit_once(
        &self,
        channel: &str,
        event: &NewEvent,
        retention: Retention,
        attempt: Attempt<'_>,
    ) -> Result<Emitted, StoreError> {
        self.check_link()?;
        let emitted = self.memory().emit_once(channel, event, retention, attempt).await?;
        // The reply is lost, and the entry is not.
        let left = self.lost_replies.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() { Err(StoreError::Unavailable("the reply is lost".into())) } else { Ok(emitted) }
    }

    async fn revocations(&self, key: &str, ids: RevocationIds<'_>) -> Result<StoredRevocations, StoreError> {
        self.check_link()?;
        self.memory().revocations(key, ids).await
    }

    async fn add_revocation(&self, key: &str, new: NewRevocation<'_>) -> Result<AddedRevocation, StoreError> {
        self.check_link()?;
        self.memory().add_revocation(key, new).await
    }

    async fn restore_revocation(&self, key: &str, id: &str, value: &str) -> Result<bool, StoreError> {
        self.check_link()?;
        self.memory().restore_revocation(key, id, value).await
    }

    async fn remove_revocation(&self, key: &str, id: &str) -> Result<bool, StoreError> {
        self.check_link()?;
        self.memory().remove_revocation(key, id).await
    }

    async fn command(&self, command: &RestCommand) -> Result<Reply, StoreError> {
        self.check_link()?;
        self.memory().command(command).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check_link()
    }
}

#[async_trait]
impl KeyLookup for FaultyStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let _permit = self.lookup_gate.read().await;
        self.check_link()?;
        self.memory().get(key).await
    }

    async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let _permit = self.lookup_gate.read().await;
        self.check_link()?;
        self.memory().hash_get(key, field).await
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, StoreError> {
        let _permit = self.lookup_gate.read().await;
        self.check_link()?;
        self.memory().set_contains(key, member).await
    }
}
