//! The embedded store behind a link that can be cut, and emitters that stand on the store's side of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use async_trait::async_trait;
use serde_json::{Value, json};
use tidegate::event::{NewEvent, StreamId};
use tidegate::store::command::{Command, Keep, NewId, Reply, Trim};
use tidegate::store::memory::{MemoryStore, Seed};
use tidegate::store::{KeyLookup, Limits, NotificationHandler, Page, Retention, Store, StoreError};

/// Where the store's clock begins.
pub const START: u64 = 1_732_464_000_000;
/// More than any test needs.
const LIMIT: usize = 256 << 20;

pub struct LinkedStore {
    memory: Mutex<Arc<MemoryStore>>,
    seed: HashMap<String, Seed>,
    relay: Arc<Relay>,
    clock: Arc<AtomicU64>,
    /// Keys that are no streams.
    wrong: Mutex<HashSet<String>>,
    /// The greatest id that is said to have been deleted by itself, in every stream.
    deleted: Mutex<StreamId>,
    /// Whoever holds this for writing holds back all reads.
    reads_may_go: tokio::sync::RwLock<()>,
    /// The same for look-ups.
    lookups_may_go: tokio::sync::RwLock<()>,
    reads: AtomicUsize,
    adds: AtomicU64,
}

/// Stands between the memory's doorbell and the hub's.
struct Relay(Mutex<Line>);

struct Line {
    up: bool,
    bell: Option<Weak<dyn NotificationHandler>>,
    watched: BTreeSet<Arc<str>>,
    lead: Option<Arc<str>>,
    subscriptions: usize,
    doorbells: Doorbells,
}

enum Doorbells {
    Ring,
    Swallowed,
    Held(Vec<(String, Vec<u8>)>),
}

impl LinkedStore {
    pub fn new(seed: HashMap<String, Seed>) -> Arc<Self> {
        let line = Line {
            up: true,
            bell: None,
            watched: BTreeSet::new(),
            lead: None,
            subscriptions: 0,
            doorbells: Doorbells::Ring,
        };
        let clock = Arc::new(AtomicU64::new(START));
        let relay = Arc::new(Relay(Mutex::new(line)));
        Arc::new(Self {
            memory: Mutex::new(memory(&seed, &clock, &relay)),
            seed,
            relay,
            clock,
            wrong: Mutex::default(),
            deleted: Mutex::default(),
            reads_may_go: tokio::sync::RwLock::default(),
            lookups_may_go: tokio::sync::RwLock::default(),
            reads: AtomicUsize::new(0),
            adds: AtomicU64::new(0),
        })
    }

    fn memory(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.memory.lock().expect("no test panics under this lock"))
    }

    fn up(&self) -> Result<(), StoreError> {
        let up = self.relay.line().up;
        if up { Ok(()) } else { Err(StoreError::Unavailable("the link is cut".into())) }
    }

    /// Nothing goes through any more.
    pub fn cut(&self) {
        let bell = {
            let mut line = self.relay.line();
            line.up = false;
            line.bell.clone()
        };
        if let Some(bell) = bell.and_then(|bell| bell.upgrade()) {
            bell.lost("the link is cut");
        }
    }

    /// The link is back; each subscription is confirmed anew, from a task of the store's own.
    pub fn heal(&self) {
        let watched = {
            let mut line = self.relay.line();
            line.up = true;
            line.watched.clone()
        };
        let relay = Arc::clone(&self.relay);
        tokio::spawn(async move { watched.iter().for_each(|channel| relay.watching(channel)) });
    }

    /// Doorbells get lost from now on, though the link stays up.
    pub fn swallow_doorbells(&self) {
        self.relay.line().doorbells = Doorbells::Swallowed;
    }

    /// Doorbells wait from now on.
    pub fn hold_doorbells(&self) {
        self.relay.line().doorbells = Doorbells::Held(Vec::new());
    }

    /// Rings those that waited, in this order, and lets others work in between if `paced`. Those that are not named are lost.
    pub async fn release_doorbells(&self, order: &[usize], paced: bool) {
        let held = std::mem::replace(&mut self.relay.line().doorbells, Doorbells::Ring);
        let Doorbells::Held(held) = held else { panic!("no doorbell is held") };
        for i in order {
            let (channel, payload) = &held[*i];
            self.relay.rang(channel, payload);
            if paced {
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Holds back all reads for as long as the guard lives.
    pub async fn hold_reads(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.reads_may_go.write().await
    }

    /// Holds back all look-ups for as long as the guard lives.
    pub async fn hold_lookups(&self) -> tokio::sync::RwLockWriteGuard<'_, ()> {
        self.lookups_may_go.write().await
    }

    /// How often the hub or a stream has read a channel.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// How often a channel was subscribed to.
    pub fn subscriptions(&self) -> usize {
        self.relay.line().subscriptions
    }

    /// The channels that are subscribed to.
    pub fn watched(&self) -> Vec<String> {
        self.relay.line().watched.iter().filter(|key| !is_own(key)).map(ToString::to_string).collect()
    }

    /// Makes a key one that is no stream, or a stream again.
    pub fn set_wrong(&self, key: &str, wrong: bool) {
        let mut keys = self.wrong.lock().expect("no test panics under this lock");
        if wrong {
            keys.insert(key.into())
        } else {
            keys.remove(key)
        };
    }

    /// From now on streams say that an entry was deleted from their middle, as Redis does after `XDEL`.
    pub fn say_deleted(&self, id: StreamId) {
        *self.deleted.lock().expect("no test panics under this lock") = id;
    }

    /// The store's clock.
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Turns the store's clock.
    pub fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// Time goes by between some entries; others share their millisecond.
    fn step(&self) {
        let n = self.adds.fetch_add(1, Ordering::Relaxed);
        self.pass(u64::from(!n.is_multiple_of(3)));
    }

    /// Puts a store in place that holds only the first so many entries of a channel, and nothing else.
    pub async fn lose_all_but(&self, channel: &str, entries: usize) {
        let range = Command::Range { key: channel.into(), start: "-".into(), end: "+".into(), count: None };
        let Ok(Reply::List(rows)) = self.memory().command(&range).await else { panic!("a range is a list") };
        let fresh = memory(&self.seed, &self.clock, &self.relay);
        for row in rows.into_iter().take(entries) {
            let Reply::List(row) = row else { panic!("an entry is a list") };
            let [Reply::Text(id), Reply::List(fields)] = &row[..] else { panic!("an id and fields") };
            let fields: Vec<String> = fields.iter().map(text).collect();
            let add = Command::Add {
                key: channel.into(),
                no_create: false,
                trim: None,
                id: NewId::Exact(String::from_utf8_lossy(id).parse().expect("an id")),
                fields: fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
            };
            fresh.command(&add).await.expect("the copy takes what the original took");
        }
        let (watched, lead) = {
            let line = self.relay.line();
            (line.watched.clone(), line.lead.clone())
        };
        if let Some(lead) = lead {
            fresh.lead(&lead);
        }
        *self.memory.lock().expect("no test panics under this lock") = Arc::clone(&fresh);
        watched.iter().for_each(|channel| fresh.watch(channel));
    }

    /// A stock emitter's `XADD`.
    pub async fn add(&self, channel: &str, event: &str, data: &Value) -> StreamId {
        self.add_and_trim(channel, event, data, None).await
    }

    /// A stock emitter's `XADD … MAXLEN = n`.
    pub async fn add_and_trim(&self, channel: &str, event: &str, data: &Value, keep: Option<u64>) -> StreamId {
        self.step();
        let text = data.as_str().map_or_else(|| data.to_string(), ToOwned::to_owned);
        let fields = [("data", &*text), ("event", event), ("channel", channel)];
        self.add_fields(channel, &fields, keep).await
    }

    pub async fn add_fields(&self, channel: &str, fields: &[(&str, &str)], keep: Option<u64>) -> StreamId {
        let add = Command::Add {
            key: channel.into(),
            no_create: false,
            trim: keep.map(|n| Trim { approximate: false, keep: Keep::MaxLen(n) }),
            id: NewId::Auto,
            fields: fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let reply = self.memory().command(&add).await.expect("the entry is added");
        text(&reply).parse().expect("XADD answers an id")
    }

    /// Publishes these very bytes.
    pub async fn publish(&self, channel: &str, message: &str) {
        let publish = Command::Publish { key: channel.into(), message: message.into() };
        self.memory().command(&publish).await.expect("a message is published");
    }

    /// A stock emitter's `PUBLISH`.
    pub async fn ring(&self, channel: &str, id: StreamId, event: &str, data: &Value) {
        let payload = json!({"data": data, "event": event, "channel": channel, "id": id.to_string()});
        self.publish(channel, &payload.to_string()).await;
    }

    /// A stock emitter's `emit`: the entry, then the doorbell.
    pub async fn stock(&self, channel: &str, event: &str, data: &Value) -> StreamId {
        let id = self.add(channel, event, data).await;
        self.ring(channel, id, event, data).await;
        id
    }

    /// Tidegate's own emitter.
    pub async fn own(&self, channel: &str, event: &str, data: &Value) -> StreamId {
        self.step();
        let emitted = self.memory().emit(channel, &NewEvent::new(event, data), Retention::default()).await;
        emitted.expect("the event is emitted")
    }

    /// `EXPIRE`
    pub async fn expire(&self, channel: &str, seconds: i64) {
        let expire = Command::Expire { key: channel.into(), seconds };
        assert_eq!(self.memory().command(&expire).await.expect("an answer"), Reply::Int(1));
    }
}

fn memory(seed: &HashMap<String, Seed>, clock: &Arc<AtomicU64>, relay: &Arc<Relay>) -> Arc<MemoryStore> {
    let clock = Arc::clone(clock);
    let memory = MemoryStore::new(LIMIT, seed.clone(), Arc::new(move || clock.load(Ordering::Relaxed)));
    let bell: Weak<dyn NotificationHandler> = Arc::downgrade(relay) as Weak<dyn NotificationHandler>;
    memory.start(bell);
    Arc::new(memory)
}

/// What the nodes tell each other is counted nowhere.
fn is_own(key: &str) -> bool {
    key.starts_with("tidegate:")
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?} is no text"),
    }
}

impl Relay {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().expect("no test panics under this lock")
    }

    /// The hub's bell while the link is up. It is never called under the lock: the hub calls the store under its own.
    fn bell(&self) -> Option<Arc<dyn NotificationHandler>> {
        let line = self.line();
        line.bell.as_ref().filter(|_| line.up)?.upgrade()
    }
}

impl NotificationHandler for Relay {
    fn watching(&self, channel: &str) {
        if let Some(bell) = self.bell() {
            bell.watching(channel);
        }
    }

    fn rang(&self, channel: &str, payload: &[u8]) {
        let Some(bell) = self.bell() else { return };
        match &mut self.line().doorbells {
            Doorbells::Ring => {}
            Doorbells::Swallowed => return,
            Doorbells::Held(held) => return held.push((channel.into(), payload.into())),
        }
        bell.rang(channel, payload);
    }

    fn lost(&self, why: &str) {
        panic!("memory is never lost: {why}");
    }
}

#[async_trait]
impl Store for LinkedStore {
    /// Called again by a gateway that takes the place of another.
    fn start(&self, bell: Weak<dyn NotificationHandler>) {
        let mut line = self.relay.line();
        line.bell = Some(bell);
        line.watched.clear();
    }

    fn watch(&self, channel: &Arc<str>) {
        {
            let mut line = self.relay.line();
            line.watched.insert(Arc::clone(channel));
            line.subscriptions += usize::from(!is_own(channel));
        }
        self.memory().watch(channel);
    }

    fn unwatch(&self, channel: &str) {
        self.relay.line().watched.remove(channel);
        self.memory().unwatch(channel);
    }

    fn lead(&self, key: &Arc<str>) {
        self.relay.line().lead = Some(Arc::clone(key));
        self.memory().lead(key);
    }

    async fn read(&self, channel: &str, after: StreamId, limits: Limits) -> Result<Page, StoreError> {
        if !is_own(channel) {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        let _may_go = self.reads_may_go.read().await;
        self.up()?;
        if self.wrong.lock().expect("no test panics under this lock").contains(channel) {
            return Err(StoreError::WrongType);
        }
        let mut page = self.memory().read(channel, after, limits).await?;
        if let Some(stream) = &mut page.stream {
            stream.max_deleted = *self.deleted.lock().expect("no test panics under this lock");
        }
        Ok(page)
    }

    async fn emit(&self, channel: &str, event: &NewEvent, retention: Retention) -> Result<StreamId, StoreError> {
        self.up()?;
        self.memory().emit(channel, event, retention).await
    }

    async fn hash_all(&self, key: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.up()?;
        self.memory().hash_all(key).await
    }

    async fn hash_set(&self, key: &str, field: &str, value: Option<&str>) -> Result<(), StoreError> {
        self.up()?;
        self.memory().hash_set(key, field, value).await
    }

    async fn command(&self, command: &Command) -> Result<Reply, StoreError> {
        self.up()?;
        self.memory().command(command).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.up()
    }
}

#[async_trait]
impl KeyLookup for LinkedStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let _may_go = self.lookups_may_go.read().await;
        self.up()?;
        self.memory().get(key).await
    }

    async fn hash_get(&self, key: &str, field: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let _may_go = self.lookups_may_go.read().await;
        self.up()?;
        self.memory().hash_get(key, field).await
    }

    async fn set_contains(&self, key: &str, member: &str) -> Result<bool, StoreError> {
        let _may_go = self.lookups_may_go.read().await;
        self.up()?;
        self.memory().set_contains(key, member).await
    }
}
