//! A node among others: its word, once a second, and what it hears when it gives it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::authz::authorizer::Authorizer;
use crate::channel::hub::Hub;
use crate::fleet::local_cache::LocalCache;
use crate::fleet::record;
use crate::fleet::record::{ActiveRecord, PrepareFailure, PushId};
use crate::fleet::shadow::follow::ShadowFollower;
use crate::rollout::Rollout;
use crate::shadow::counts::ShadowCounts;
use crate::store::StoreError;
use crate::store::redis::fleet::{BELL, Beat, FleetStore, Read};
use crate::util::clock::now_ms;
use crate::util::id::random_id;

/// A node gives word this often, and whenever something changes.
const BEAT: Duration = Duration::from_secs(1);
/// Who has given none for so long lives no longer.
pub const EXPIRY: Duration = Duration::from_secs(5);
/// Characters of an error that others are told.
const MAX_ERROR: usize = 2_000;
/// The same where a word has two of them.
const MAX_SHORTER: usize = 500;

/// A node's word of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where clients connect.
    pub address: String,
    /// The process.
    pub instance: String,
    /// The version of the program.
    pub program: String,
    /// Whether its policy is the fleet's.
    pub fleet: bool,
    /// Where its policy comes from, for people.
    pub source: Option<String>,
    /// What decides, `sha256:…`.
    pub digest: Option<String>,
    /// Counts its swaps.
    pub version: Option<u64>,
    /// The number under which the policy was pushed or signed.
    pub sequence: Option<u64>,
    /// In force since, ms since 1970.
    pub since: Option<u64>,
    /// The push that its policy came with.
    pub push: Option<PushId>,
    /// What was refused since.
    pub error: Option<String>,
    /// What it makes of the candidate that the fleet has.
    pub beside: Option<ShadowNodeStatus>,
    /// When it said so, ms since 1970.
    pub seen: u64,
}

/// A node's word of the fleet's candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowNodeStatus {
    /// Which one; none if it cannot be read.
    pub push: Option<PushId>,
    /// Since when it is asked here, ms since 1970.
    pub since: Option<u64>,
    /// What came of it.
    pub counts: Option<ShadowCounts>,
    /// Why it is not asked.
    pub refused: Option<PrepareFailure>,
}

/// The fleet's notes, as they were read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FleetState {
    /// What is in force.
    pub current: Option<Vec<u8>>,
    /// What is to be prepared.
    pub candidate: Option<Vec<u8>>,
    /// What is to be asked beside.
    pub shadow: Option<Vec<u8>>,
}

/// What a node brings with it.
pub struct NodeConfig {
    /// The part of the store that is the fleet's.
    pub store: FleetStore,
    /// The door.
    pub authorizer: Arc<Authorizer>,
    /// The way to it.
    pub rollout: Rollout,
    /// What the node is called.
    pub name: String,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the policy is kept, on a node whose policy is the fleet's.
    pub copy: Option<LocalCache>,
    /// Decisions of the fleet's candidate at once.
    pub concurrency: usize,
}

/// A node's part in the fleet.
pub struct Fleet {
    pub(super) store: FleetStore,
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) rollout: Rollout,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) copy: Option<LocalCache>,
    pub(super) instance: String,
    /// Why the fleet's pointer is not in force here, if something else than the stages is to blame.
    pub(super) trouble: Mutex<Option<String>>,
    pub(super) applied: Mutex<Option<ActiveRecord>>,
    /// The fleet's candidate, or why it is not asked.
    pub(super) trial: Mutex<Option<ShadowFollower>>,
    pub(super) concurrency: usize,
    /// What the store does not give this node, or does not take.
    denied: Mutex<Option<String>>,
    heard: watch::Sender<FleetState>,
    changed: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Fleet {
    /// A node that says nothing yet.
    #[must_use]
    pub fn new(join: NodeConfig) -> Arc<Self> {
        let NodeConfig { store, authorizer, rollout, name, address, copy, concurrency } = join;
        let instance = random_id();
        Arc::new(Self {
            store,
            authorizer,
            rollout,
            name,
            address,
            copy,
            instance,
            trouble: Mutex::default(),
            applied: Mutex::default(),
            trial: Mutex::default(),
            concurrency,
            denied: Mutex::default(),
            heard: watch::Sender::new(FleetState::default()),
            changed: Notify::new(),
            tasks: Mutex::default(),
        })
    }

    /// Gives word once, so that a push that begins now counts this node. Without the store, it does so when that is back.
    pub async fn greet(&self) {
        if let Err(error) = self.store.beat(&self.name, &record::note(&self.word()), EXPIRY, now_ms()).await {
            tracing::debug!(%error, "the fleet was not told of this node yet");
        }
    }

    /// Gives word from now on, and follows the fleet's pointer where that is the policy's source.
    pub fn start(self: &Arc<Self>, hub: &Hub) {
        let mut tasks = lock(&self.tasks);
        if self.copy.is_some() {
            tasks.push(tokio::spawn(Arc::clone(self).follow(self.heard.subscribe())).abort_handle());
            tasks.push(tokio::spawn(Arc::clone(self).ask_beside(self.heard.subscribe())).abort_handle());
        }
        tasks.push(tokio::spawn(Arc::clone(self).beat()).abort_handle());
        tasks.push(tokio::spawn(listen(Arc::clone(self), hub.clone())).abort_handle());
        let (fleet, mut swaps) = (Arc::clone(self), self.authorizer.swaps());
        let tell = async move {
            while swaps.changed().await.is_ok() {
                fleet.changed.notify_one();
            }
        };
        tasks.push(tokio::spawn(tell).abort_handle());
    }

    /// The part of the store that is the fleet's.
    #[must_use]
    pub fn store(&self) -> &FleetStore {
        &self.store
    }

    /// Whether this node's policy is the fleet's.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.copy.is_some()
    }

    /// Why the fleet's policy is not in force here, if it is not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// The others need not wait until this node's word expires.
    pub async fn leave(&self) {
        lock(&self.tasks).drain(..).for_each(|task| task.abort());
        if let Err(error) = self.store.leave(&self.name).await {
            tracing::debug!(%error, "the fleet could not be told that this node goes");
        }
    }

    /// This node's word.
    #[must_use]
    pub fn word(&self) -> NodeStatus {
        let info = self.authorizer.active();
        let push = lock(&self.applied).as_ref().map(|pointer| pointer.push.clone());
        NodeStatus {
            name: self.name.clone(),
            address: self.address.to_string(),
            instance: self.instance.clone(),
            program: env!("CARGO_PKG_VERSION").into(),
            fleet: self.follows(),
            source: info.as_ref().map(|info| {
                let until = if info.origin.until_restart { ", until it restarts" } else { "" };
                short(&format!("{}{until}", info.origin.source))
            }),
            digest: info.as_ref().map(|info| info.digest.to_string()),
            version: info.as_ref().map(|info| info.number),
            sequence: info.as_ref().and_then(|info| info.origin.sequence),
            since: info.as_ref().map(|info| info.since),
            push,
            error: self.error(),
            beside: lock(&self.trial).as_ref().map(ShadowFollower::word),
            seen: now_ms(),
        }
    }

    fn error(&self) -> Option<String> {
        if let Some(trouble) = &*lock(&self.trouble) {
            return Some(short(trouble));
        }
        if let Some(denied) = &*lock(&self.denied) {
            return Some(short(denied));
        }
        let since = self.authorizer.active().map_or(0, |info| info.since);
        let refused = self.rollout.status().failures.pop_front()?;
        (refused.time >= since).then(|| short(&refused.to_string()))
    }

    /// Something is to be told at once.
    pub(super) fn tell(&self) {
        self.changed.notify_one();
    }

    async fn beat(self: Arc<Self>) {
        let mut every = tokio::time::interval(BEAT);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut away, mut given, mut doubled) = (false, false, false);
        loop {
            tokio::select! { _ = every.tick() => {}, () = self.changed.notified() => {} }
            let heard = self.store.beat(&self.name, &record::note(&self.word()), EXPIRY, now_ms()).await;
            match heard {
                Ok(beat) => {
                    away = false;
                    let before = self.hear(beat);
                    let other = before.as_deref().and_then(|word| record::parse::<NodeStatus>(word).ok());
                    let twice = given && other.is_some_and(|other| other.instance != self.instance);
                    if twice && !std::mem::replace(&mut doubled, true) {
                        let name = &self.name;
                        tracing::error!(
                            node = name,
                            "another node has this name too: set fleet.node on both, or pushes cannot count them"
                        );
                    }
                    given = true;
                }
                Err(error) if !std::mem::replace(&mut away, true) => {
                    tracing::warn!(%error, "the fleet hears nothing from this node");
                }
                Err(_) => {}
            }
        }
    }

    /// Passes on what was read, and returns this node's word of before. What the store does not give is as it was.
    fn hear(&self, beat: Beat) -> Option<Vec<u8>> {
        let Beat { word, before, current, candidate, shadow } = beat;
        let mut denied = word.err();
        let mut or = |read: Read, was: &Option<Vec<u8>>| {
            read.unwrap_or_else(|error| {
                denied.get_or_insert(error);
                was.clone()
            })
        };
        self.heard.send_if_modified(|was| {
            let heard = FleetState {
                current: or(current, &was.current),
                candidate: or(candidate, &was.candidate),
                shadow: or(shadow, &was.shadow),
            };
            let changed = *was != heard;
            *was = heard;
            // What could not be put in force is tried again now and then, so that every word is passed on.
            changed || self.is_behind()
        });
        self.deny(denied.as_ref());
        before.unwrap_or_default()
    }

    fn deny(&self, error: Option<&StoreError>) {
        let what = |error| format!("the store keeps a part of the fleet from this node: {error}");
        let now = error.map(what);
        let before = std::mem::replace(&mut *lock(&self.denied), now.clone());
        if let Some(now) = now.filter(|now| before.as_ref() != Some(now)) {
            tracing::error!(error = now, "the fleet is not followed as it should be");
        }
    }

    /// Whether something else than the fleet's pointer is in force.
    fn is_behind(&self) -> bool {
        self.follows() && lock(&self.trouble).is_some()
    }
}

/// Looks at once when the bell rings.
async fn listen(fleet: Arc<Fleet>, hub: Hub) {
    loop {
        let mut tap = hub.tap(BELL);
        while tap.next().await.is_some() {
            fleet.tell();
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// As much of a text as others are told.
pub(super) fn short(text: &str) -> String {
    shortened(text, MAX_ERROR)
}

/// Less of it.
pub(super) fn shorter(text: &str) -> String {
    shortened(text, MAX_SHORTER)
}

fn shortened(text: &str, most: usize) -> String {
    // Nor does it move the cursor of whoever reads it.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let shortened: String = text.chars().take(most).map(plain).collect();
    if shortened.len() < text.len() { shortened + "…" } else { shortened }
}
