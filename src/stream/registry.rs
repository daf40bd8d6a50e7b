//! The registry of open streams: it limits their number, knows who reads which channels, and ends streams on rotation,
//! revocation, expiry and shutdown.
//!
//! To end a stream, the registry first asks: the stream writes a last frame when it is polled. A stream whose client does not
//! read is never polled, so its connection is aborted after a grace period.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::policy::stream_selector::StreamSelector;
use crate::util::named::named_variants;
use crate::util::shares::{Refusal, Share, Shares};

/// A stream is not rotated before this age: its client may have reconnected for the last rotation just now. At most half of
/// the window is spent on that: the other half spreads streams that were opened together.
const MIN_ROTATION_AGE: Duration = Duration::from_secs(10);

/// The time between the request to end a stream and the abort of its connection.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// The same for a revoked stream, which must not hold access for long.
const REVOKED_CLOSE_GRACE: Duration = Duration::from_millis(250);
/// Revocations that are kept for streams whose request is still being decided. If there were more during a decision, the
/// stream counts as revoked, since the older ones cannot be checked.
const MAX_RECENT_REVOCATIONS: usize = 256;

/// All streams of this node. Clones share them.
#[derive(Clone)]
pub struct StreamRegistry(Arc<RegistryShared>);

struct RegistryShared {
    /// The limit on streams, and its shares by network and, for the decided ones, by subject.
    networks: Shares<IpAddr>,
    subjects: Shares<Arc<str>>,
    state: Mutex<RegistryState>,
    /// Wakes the timers: a new step may be due before those that they know of.
    step_added: Notify,
    all_closed: Notify,
    ended: [AtomicU64; EndReason::ALL.len()],
}

#[derive(Default)]
struct RegistryState {
    last_id: u64,
    /// By id, which is the order in which they were opened.
    streams: BTreeMap<u64, RegisteredStream>,
    /// The next steps to end streams, by time.
    due: BTreeSet<(Instant, u64, Step)>,
    /// Streams of an older generation than this are rotated, spread over this time.
    rotation: Option<(u64, Duration)>,
    /// All streams end, also those that register from now on.
    draining: bool,
    /// The latest revocations, newest last.
    recent_revocations: VecDeque<StreamSelector>,
    /// The number of revocations ever.
    revocations: u64,
}

/// A stream, from the moment that its permit is taken.
struct RegisteredStream {
    signal: Arc<EndSignal>,
    /// Set once the request is decided.
    info: Option<Arc<StreamInfo>>,
    opened_at: Instant,
    planned_end: Option<(Instant, EndReason)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Ask the stream to end.
    End(EndReason),
    /// Abort its connection.
    Abort,
}

/// Tells one stream to end.
#[derive(Default)]
struct EndSignal {
    requested: AtomicBool,
    /// The stream must not deliver anything more.
    revoked: AtomicBool,
    waker: AtomicWaker,
    abort: AbortSignal,
    /// Held while bytes of the stream are written to its socket.
    writing: Mutex<()>,
}

/// Who reads a stream, and by which decision.
#[derive(Debug)]
pub struct StreamInfo {
    /// The id of the request that opened the stream.
    pub request_id: String,
    /// The client's subject, as the policy named it.
    pub subject: Option<Box<str>>,
    pub channels: Box<[Arc<str>]>,
    /// The client's address; `None` if a trusted proxy does not name it.
    pub address: Option<IpAddr>,
    /// When the stream was opened, in ms since the Unix epoch.
    pub since: u64,
    /// When the grant expires, in ms since the Unix epoch.
    pub expires_at: Option<u64>,
    /// The policy generation that allowed the stream; 0 without a policy.
    pub generation: u64,
}

impl StreamInfo {
    fn matches(&self, selector: &StreamSelector) -> bool {
        selector.matches(self.subject.as_deref(), self.channels.iter())
    }
}

/// Why the gateway ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndReason {
    /// The policy that allowed it was replaced, and the client has to be authorized again.
    Rotated,
    Revoked,
    /// The node shuts down.
    Drained,
    /// The grant expired.
    Expired,
}

named_variants!(EndReason {
    Rotated => "rotated",
    Revoked => "revoked",
    Drained => "drained",
    Expired => "expired",
});

/// Tells a connection to abort a stream whose client does not read.
#[derive(Clone, Debug, Default)]
pub struct AbortSignal(Arc<Notify>);

impl AbortSignal {
    pub async fn requested(&self) {
        self.0.notified().await;
    }
}

impl StreamRegistry {
    /// Starts a registry and the task that ends its streams. Must be called within a runtime.
    pub fn new(max_streams: usize) -> Self {
        let shared = Arc::new(RegistryShared {
            networks: Shares::new(max_streams),
            subjects: Shares::leaving_room(max_streams),
            state: Mutex::default(),
            step_added: Notify::new(),
            all_closed: Notify::new(),
            ended: Default::default(),
        });
        tokio::spawn(run_timers(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// The number of open streams.
    pub fn count(&self) -> usize {
        self.0.state.lock().streams.len()
    }

    /// The number of streams that the gateway ended for this reason.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.0.ended[reason as usize].load(Ordering::Relaxed)
    }

    /// Up to `limit` matching streams with ids after `after`, each with its id.
    pub fn list(&self, after: u64, limit: usize, matches: impl Fn(&StreamInfo) -> bool) -> Vec<(u64, Arc<StreamInfo>)> {
        let state = self.0.state.lock();
        let streams = state.streams.range(after.saturating_add(1)..);
        let registered = streams.filter_map(|(id, stream)| Some((*id, Arc::clone(stream.info.as_ref()?))));
        registered.filter(|(_, info)| matches(info)).take(limit).collect()
    }

    /// A permit for one more stream of this network on this connection, unless there are too many.
    pub fn admit(&self, network: Option<IpAddr>, abort: AbortSignal) -> Result<StreamPermit, Refusal> {
        let share = self.0.networks.take(network, 1)?;
        let mut state = self.0.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        let signal = Arc::new(EndSignal { abort, ..EndSignal::default() });
        let stream =
            RegisteredStream { signal: Arc::clone(&signal), info: None, opened_at: Instant::now(), planned_end: None };
        state.streams.insert(id, stream);
        let revocations = state.revocations;
        Ok(StreamPermit {
            registry: self.clone(),
            signal,
            id,
            revocations,
            network_share: Some(share),
            subject_share: None,
        })
    }

    /// Ends all streams of older generations, spread over a window, so that their clients are authorized again. Streams that
    /// register later with an older generation are included. Returns the number of streams to end.
    pub fn rotate(&self, generation: u64, window: Duration) -> usize {
        let mut state = self.0.state.lock();
        state.rotation = Some((generation, window));
        let now = Instant::now();
        let is_old = |stream: &RegisteredStream| {
            stream.planned_end.is_none_or(|(at, _)| at > now + window)
                && stream.info.as_ref().is_some_and(|info| info.generation < generation)
        };
        let old = state.streams.iter().filter(|(_, stream)| is_old(stream));
        let old: Vec<(u64, Instant)> = old.map(|(id, stream)| (*id, stream.opened_at)).collect();
        // Oldest first. The younger streams, which may have to wait for their minimum age, come last; each step spreads the
        // remaining streams over the remaining time.
        let mut at = now;
        for (done, (id, opened_at)) in old.iter().enumerate() {
            let not_before = *opened_at + MIN_ROTATION_AGE;
            at = at.max(not_before.min(now + window / 2));
            state.plan_end(*id, at, EndReason::Rotated);
            at += (now + window).saturating_duration_since(at) / u32::try_from(old.len() - done).unwrap_or(u32::MAX);
        }
        drop(state);
        self.0.step_added.notify_one();
        old.len()
    }

    /// Ends all matching streams now, including those whose request is being decided. Returns how many are registered.
    pub fn revoke(&self, selector: &StreamSelector) -> usize {
        let mut state = self.0.state.lock();
        // Kept for streams that register later.
        state.revocations += 1;
        state.recent_revocations.push_back(selector.clone());
        if state.recent_revocations.len() > MAX_RECENT_REVOCATIONS {
            state.recent_revocations.pop_front();
        }
        let matches = |stream: &RegisteredStream| stream.info.as_ref().is_some_and(|info| info.matches(selector));
        let matching = state.streams.iter().filter(|(_, stream)| matches(stream));
        let matching: Vec<u64> = matching.map(|(id, _)| *id).collect();
        let now = Instant::now();
        matching.iter().for_each(|id| state.revoke(*id, now));
        let signals = matching.iter().filter_map(|id| state.streams.get(id)).map(|stream| Arc::clone(&stream.signal));
        let signals: Vec<_> = signals.collect();
        drop(state);
        // Not left to the timers, so that no stream delivers anything after this returns.
        self.0.run_due_steps();
        // A write that began before the revocation is over after this, and the next one sees the revocation.
        signals.iter().for_each(|signal| drop(signal.writing.lock()));
        self.0.step_added.notify_one();
        matching.len()
    }

    /// Ends all streams, spread over a time, and waits until all are closed.
    pub async fn drain(&self, over: Duration) {
        {
            let mut state = self.0.state.lock();
            state.draining = true;
            let ids: Vec<u64> = state.streams.keys().copied().collect();
            let step = over / u32::try_from(ids.len()).unwrap_or(u32::MAX).max(1);
            let mut at = Instant::now();
            for id in ids {
                state.plan_end(id, at, EndReason::Drained);
                at += step;
            }
        }
        self.0.step_added.notify_one();
        loop {
            // Created before the count, so that the last stream cannot close unnoticed in between.
            let all_closed = self.0.all_closed.notified();
            if self.count() == 0 {
                return;
            }
            all_closed.await;
        }
    }
}

impl RegistryShared {
    /// Runs the steps that are due. Returns the time of the next one.
    fn run_due_steps(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        let now = Instant::now();
        loop {
            let first @ (at, id, step) = *state.due.first()?;
            if at > now {
                return Some(at);
            }
            state.due.remove(&first);
            let Some(signal) = state.streams.get(&id).map(|stream| Arc::clone(&stream.signal)) else { continue };
            match step {
                Step::End(reason) => {
                    state.due.insert((now + CLOSE_GRACE, id, Step::Abort));
                    self.ended[reason as usize].fetch_add(1, Ordering::Relaxed);
                    signal.requested.store(true, Ordering::Release);
                    signal.waker.wake();
                }
                Step::Abort => signal.abort.0.notify_one(),
            }
        }
    }
}

impl RegistryState {
    /// Plans the end of a stream, unless it ends before that anyway.
    fn plan_end(&mut self, id: u64, at: Instant, reason: EndReason) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.planned_end.is_some_and(|(planned, _)| planned <= at) {
            return;
        }
        if let Some((planned, reason)) = stream.planned_end.replace((at, reason)) {
            self.due.remove(&(planned, id, Step::End(reason)));
        }
        self.due.insert((at, id, Step::End(reason)));
    }

    /// Ends a stream now. The shorter grace also applies to a stream that was asked to end before and has not closed.
    fn revoke(&mut self, id: u64, now: Instant) {
        if let Some(stream) = self.streams.get(&id) {
            stream.signal.revoked.store(true, Ordering::Release);
        }
        self.plan_end(id, now, EndReason::Revoked);
        self.due.insert((now + REVOKED_CLOSE_GRACE, id, Step::Abort));
    }

    /// Whether a revocation after the first `since` ones matches.
    fn was_revoked(&self, info: &StreamInfo, since: u64) -> bool {
        let new = usize::try_from(self.revocations - since).unwrap_or(usize::MAX);
        new > self.recent_revocations.len()
            || self.recent_revocations.iter().rev().take(new).any(|selector| info.matches(selector))
    }
}

/// Ends streams when it is time, until the registry and all permits are dropped.
async fn run_timers(registry: Weak<RegistryShared>) {
    loop {
        let Some(shared) = registry.upgrade() else { return };
        // Without a next step, look again after a while, so that the task ends some time after the registry.
        let latest = Instant::now() + CLOSE_GRACE;
        let next = shared.run_due_steps().unwrap_or(latest).min(latest);
        let _ = tokio::time::timeout_at(next, shared.step_added.notified()).await;
    }
}

/// The permit of one stream; dropping it removes the stream.
pub struct StreamPermit {
    registry: StreamRegistry,
    signal: Arc<EndSignal>,
    id: u64,
    /// The number of revocations when the permit was given.
    revocations: u64,
    /// `None` once the stream is closed.
    network_share: Option<Share<IpAddr>>,
    /// `None` before the subject is known, and for an anonymous client.
    subject_share: Option<Share<Arc<str>>>,
}

impl StreamPermit {
    /// Counts the stream for its subject, which the decision named, unless the subject has too many.
    pub fn set_subject(&mut self, subject: Arc<str>) -> Result<(), Refusal> {
        self.subject_share = Some(self.registry.0.subjects.take(Some(subject), 1)?);
        Ok(())
    }

    /// Registers who reads the stream, and when its grant expires. A rotation, a revocation or a drain that began since the
    /// permit was given applies at once.
    pub fn register(&self, info: StreamInfo, expires: Option<Instant>) {
        let shared = &self.registry.0;
        let mut state = shared.state.lock();
        let rotation = state.rotation.filter(|(generation, _)| info.generation < *generation);
        let (draining, revoked) = (state.draining, state.was_revoked(&info, self.revocations));
        if let Some(stream) = state.streams.get_mut(&self.id) {
            stream.info = Some(Arc::new(info));
        }
        let now = Instant::now();
        if let Some(at) = expires.filter(|_| !revoked) {
            state.plan_end(self.id, at, EndReason::Expired);
        }
        if revoked {
            state.revoke(self.id, now);
        } else if draining {
            state.plan_end(self.id, now, EndReason::Drained);
        } else if let Some((_, window)) = rotation {
            state.plan_end(self.id, now + window.mul_f64(rand::random_range(0.0..1.0)), EndReason::Rotated);
        } else if expires.is_none() {
            return;
        }
        drop(state);
        if revoked {
            shared.run_due_steps();
        }
        shared.step_added.notify_one();
    }

    /// Whether the stream has to end. The waker is called when that changes.
    pub fn is_end_requested(&self, waker: &Waker) -> bool {
        // Registered before the flag is read: a request in between wakes the task.
        self.signal.waker.register(waker);
        self.has_to_end()
    }

    /// Whether the stream has to end, for a task that is not woken when that changes.
    pub fn has_to_end(&self) -> bool {
        self.signal.requested.load(Ordering::Acquire)
    }

    /// Permission to write to the stream's socket as long as the guard is held; `None` if the stream was revoked. A revocation waits for it.
    pub fn begin_write(&self) -> Option<MutexGuard<'_, ()>> {
        let guard = self.signal.writing.lock();
        (!self.is_revoked()).then_some(guard)
    }

    /// Whether the stream was revoked. Once [`StreamRegistry::revoke`] has returned, a stream must not deliver anything more.
    pub fn is_revoked(&self) -> bool {
        self.signal.revoked.load(Ordering::Acquire)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        // First, so that there is room for another stream once this one is gone from the registry.
        (self.network_share, self.subject_share) = (None, None);
        let mut state = self.registry.0.state.lock();
        let Some(stream) = state.streams.remove(&self.id) else { return };
        if let Some((at, reason)) = stream.planned_end {
            state.due.remove(&(at, self.id, Step::End(reason)));
        }
        if state.streams.is_empty() {
            self.registry.0.all_closed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
