//! The streams of this node: how many there may be, who reads what, and the end that the gateway itself gives them.
//!
//! A stream is ended by asking: it says its last words when it is polled next. One whose client does not read is never polled, so
//! that its connection is cut when it is still there a while later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::policy::stream_selector::StreamSelector;

/// A stream that was asked to end has so long for its last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// One whose right to read was taken away has less.
const LAST_WORDS_OF_REVOKED: Duration = Duration::from_millis(250);
/// Revocations that are remembered for streams that are being decided about. One that saw fewer of them is taken for revoked.
const REMEMBERED: usize = 256;
/// The client of a stream that was rotated is let alone for so long, but not for more than half of the window: the other half is
/// for spreading those who came together.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// All streams of this node. Clones share it.
#[derive(Clone)]
pub struct StreamRegistry(Arc<Shared>);

struct Shared {
    max: usize,
    live: Mutex<RegisteredStream>,
    /// There is something new in `RegisteredStream::due`.
    earlier: Notify,
    empty: Notify,
    ended: [AtomicU64; EndReason::ALL.len()],
}

#[derive(Default)]
struct RegisteredStream {
    next: u64,
    streams: BTreeMap<u64, Stream>,
    /// What is to be done with which stream, and when.
    due: BTreeSet<(Instant, u64, Step)>,
    /// Streams of older versions are rotated within this time.
    rotation: Option<(u64, Duration)>,
    /// All streams are told to go, those too that come now.
    draining: bool,
    /// The latest revocations, and how many there ever were.
    revoked: VecDeque<StreamSelector>,
    revocations: u64,
}

/// One stream, from the moment that a place was taken for it.
struct Stream {
    end: Arc<EndSignal>,
    reader: Option<Arc<StreamInfo>>,
    since: Instant,
    /// When it is to end and why, if that is known.
    ends: Option<(Instant, EndReason)>,
}

/// Who reads what, on whose word.
#[derive(Debug)]
pub struct StreamInfo {
    /// The id of the request that opened the stream.
    pub request: String,
    /// Who it is, by the policy's word.
    pub subject: Option<Box<str>>,
    /// What it reads.
    pub channels: Box<[Arc<str>]>,
    /// Where the client is.
    pub address: Box<str>,
    /// Since when, ms since 1970.
    pub since: u64,
    /// When its grant ends, ms since 1970.
    pub expires_at: Option<u64>,
    /// The number of the version that let it in; 0 where there is no policy.
    pub version: u64,
}

impl StreamInfo {
    fn is_meant(&self, selector: &StreamSelector) -> bool {
        selector.matches(self.subject.as_deref(), self.channels.iter())
    }
}

/// Why the gateway ended a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// The policy that let it in is in force no longer.
    Rotated,
    /// Its right to read was taken away.
    Revoked,
    /// The node goes away.
    Drained,
    /// The grant is over.
    Expired,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rotated, Self::Revoked, Self::Drained, Self::Expired];

    /// A short name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Revoked => "revoked",
            Self::Drained => "drained",
            Self::Expired => "expired",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    End(EndReason),
    Abort,
}

/// A stream's own end, for whoever wants it ended.
#[derive(Default)]
struct EndSignal {
    wanted: AtomicBool,
    /// Nothing more may be said of what its channels have.
    revoked: AtomicBool,
    waker: AtomicWaker,
    cut: AbortSignal,
}

/// A connection's end, for a client that does not hear.
#[derive(Clone, Debug, Default)]
pub struct AbortSignal(Arc<Notify>);

impl AbortSignal {
    /// Waits until the connection shall be cut.
    pub async fn wanted(&self) {
        self.0.notified().await;
    }
}

impl StreamRegistry {
    /// At the most so many. Within a runtime.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let (earlier, empty, ended) = (Notify::new(), Notify::new(), Default::default());
        let shared = Arc::new(Shared { max, live: Mutex::default(), earlier, empty, ended });
        tokio::spawn(tend(Arc::downgrade(&shared)));
        Self(shared)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.live().streams.len()
    }

    /// How many the gateway ended for this reason.
    #[must_use]
    pub fn ended(&self, why: EndReason) -> u64 {
        self.0.ended[why as usize].load(Ordering::Relaxed)
    }

    /// Up to `most` streams behind this number, in the order in which they came, each with its number.
    pub fn list(&self, after: u64, most: usize, matches: impl Fn(&StreamInfo) -> bool) -> Vec<(u64, Arc<StreamInfo>)> {
        let live = self.0.live();
        let readers = live.streams.range(after.saturating_add(1)..);
        let readers = readers.filter_map(|(number, stream)| Some((*number, Arc::clone(stream.reader.as_ref()?))));
        readers.filter(|(_, reader)| matches(reader)).take(most).collect()
    }

    /// A place for one more, on this connection; `None` if all are taken.
    #[must_use]
    pub fn admit(&self, cut: AbortSignal) -> Option<StreamPermit> {
        let mut live = self.0.live();
        if live.streams.len() >= self.0.max {
            return None;
        }
        live.next += 1;
        let number = live.next;
        let end = Arc::new(EndSignal { cut, ..EndSignal::default() });
        let stream = Stream { end: Arc::clone(&end), reader: None, since: Instant::now(), ends: None };
        live.streams.insert(number, stream);
        Some(StreamPermit { streams: self.clone(), end, number, revocations: live.revocations })
    }

    /// Streams that an older version than this let in are asked to come back, spread over a time; those too that register from now on.
    /// How many there are now.
    pub fn rotate(&self, version: u64, within: Duration) -> usize {
        let mut live = self.0.live();
        live.rotation = Some((version, within));
        let now = Instant::now();
        let is_old = |stream: &Stream| {
            stream.ends.is_none_or(|(ends, _)| ends > now + within)
                && stream.reader.as_ref().is_some_and(|reader| reader.version < version)
        };
        let old = live.streams.iter().filter(|(_, stream)| is_old(stream));
        let old: Vec<(u64, Instant)> = old.map(|(number, stream)| (*number, stream.since)).collect();
        // Numbers are in the order in which streams came, so that those who are to be let alone are the last.
        let mut at = now;
        for (done, (number, since)) in old.iter().enumerate() {
            let alone = *since + AT_MOST_EVERY;
            at = at.max(alone.min(now + within / 2));
            live.end(*number, at, EndReason::Rotated);
            at += (now + within).saturating_duration_since(at) / u32::try_from(old.len() - done).unwrap_or(u32::MAX);
        }
        drop(live);
        self.0.earlier.notify_one();
        old.len()
    }

    /// Streams of these readers end now, and those too that are being decided about at this moment. How many there are now.
    pub fn revoke(&self, selector: &StreamSelector) -> usize {
        let mut live = self.0.live();
        live.revocations += 1;
        live.revoked.push_back(selector.clone());
        if live.revoked.len() > REMEMBERED {
            live.revoked.pop_front();
        }
        let is_meant = |stream: &Stream| stream.reader.as_ref().is_some_and(|reader| reader.is_meant(selector));
        let meant: Vec<u64> = live.streams.iter().filter(|(_, stream)| is_meant(stream)).map(|(n, _)| *n).collect();
        let now = Instant::now();
        meant.iter().for_each(|number| live.revoke(*number, now));
        drop(live);
        // At once, so that nothing goes to them behind this.
        self.0.do_due();
        self.0.earlier.notify_one();
        meant.len()
    }

    /// Asks every stream to tell its client to come back and to close, spread over a time, and waits until all are gone.
    pub async fn drain(&self, over: Duration) {
        {
            let mut live = self.0.live();
            live.draining = true;
            let all: Vec<u64> = live.streams.keys().copied().collect();
            let now = Instant::now();
            for (after, number) in evenly(over, all.len()).zip(all) {
                live.end(number, now + after, EndReason::Drained);
            }
        }
        self.0.earlier.notify_one();
        loop {
            let gone = self.0.empty.notified();
            if self.count() == 0 {
                return;
            }
            gone.await;
        }
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, RegisteredStream> {
        self.live.lock()
    }

    /// Does what is due; says when something is next.
    fn do_due(&self) -> Option<Instant> {
        let mut live = self.live();
        let now = Instant::now();
        loop {
            let first @ (at, number, step) = *live.due.first()?;
            if at > now {
                return Some(at);
            }
            live.due.remove(&first);
            let Some(end) = live.streams.get(&number).map(|stream| Arc::clone(&stream.end)) else { continue };
            match step {
                Step::End(why) => {
                    live.due.insert((now + LAST_WORDS, number, Step::Abort));
                    self.ended[why as usize].fetch_add(1, Ordering::Relaxed);
                    end.wanted.store(true, Ordering::Release);
                    end.waker.wake();
                }
                Step::Abort => end.cut.0.notify_one(),
            }
        }
    }
}

impl RegisteredStream {
    /// Plans a stream's end, unless it ends before that anyway.
    fn end(&mut self, number: u64, at: Instant, why: EndReason) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        if stream.ends.is_some_and(|(ends, _)| ends <= at) {
            return;
        }
        if let Some((ends, why)) = stream.ends.replace((at, why)) {
            self.due.remove(&(ends, number, Step::End(why)));
        }
        self.due.insert((at, number, Step::End(why)));
    }

    /// Ends a stream now. One that was asked to before, and did not hear, has no more time for that.
    fn revoke(&mut self, number: u64, now: Instant) {
        if let Some(stream) = self.streams.get(&number) {
            stream.end.revoked.store(true, Ordering::Release);
        }
        self.end(number, now, EndReason::Revoked);
        self.due.insert((now + LAST_WORDS_OF_REVOKED, number, Step::Abort));
    }

    /// Whether somebody's right was taken away since there were so many revocations.
    fn was_revoked(&self, reader: &StreamInfo, since: u64) -> bool {
        let new = usize::try_from(self.revocations - since).unwrap_or(usize::MAX);
        new > self.revoked.len() || self.revoked.iter().rev().take(new).any(|selector| reader.is_meant(selector))
    }
}

/// As many moments as that, spread over a time, the first of them now.
fn evenly(over: Duration, count: usize) -> impl Iterator<Item = Duration> {
    let part = over / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    (0..).map(move |i| part * i)
}

/// Ends streams when it is time, until there is nobody left who could have any.
async fn tend(streams: std::sync::Weak<Shared>) {
    loop {
        let Some(shared) = streams.upgrade() else { return };
        let next = shared.do_due();
        // Looked at now and then, so that this ends when the streams do.
        let next = next.unwrap_or_else(|| Instant::now() + LAST_WORDS).min(Instant::now() + LAST_WORDS);
        let _ = tokio::time::timeout_at(next, shared.earlier.notified()).await;
    }
}

/// A stream's place; dropping it frees the place.
pub struct StreamPermit {
    streams: StreamRegistry,
    end: Arc<EndSignal>,
    number: u64,
    /// Revocations before it was given.
    revocations: u64,
}

impl StreamPermit {
    /// Says who reads what here, and until when. From now on the stream is found by whoever rotates or revokes.
    pub fn register(&self, reader: StreamInfo, expires: Option<Instant>) {
        let mut live = self.streams.0.live();
        let late = live.rotation.filter(|(version, _)| reader.version < *version);
        let draining = live.draining;
        let revoked = live.was_revoked(&reader, self.revocations);
        if let Some(stream) = live.streams.get_mut(&self.number) {
            stream.reader = Some(Arc::new(reader));
        }
        let now = Instant::now();
        if revoked {
            live.revoke(self.number, now);
            drop(live);
            self.streams.0.do_due();
            self.streams.0.earlier.notify_one();
            return;
        }
        if let Some(at) = expires {
            live.end(self.number, at, EndReason::Expired);
        }
        if draining {
            live.end(self.number, now, EndReason::Drained);
        } else if let Some((_, within)) = late {
            live.end(self.number, now + within.mul_f64(rand::random_range(0.0..1.0)), EndReason::Rotated);
        } else if expires.is_none() {
            return;
        }
        drop(live);
        self.streams.0.earlier.notify_one();
    }

    /// Whether the stream shall end. The waker is called when that changes.
    pub fn shall_end(&self, waker: &Waker) -> bool {
        self.end.waker.register(waker);
        self.end.wanted.load(Ordering::Acquire)
    }

    /// Whether the right to read was taken away. Once that was told to whoever did it, nothing that came later may be said here.
    pub fn is_revoked(&self) -> bool {
        self.end.revoked.load(Ordering::Acquire)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut live = self.streams.0.live();
        let Some(stream) = live.streams.remove(&self.number) else { return };
        if let Some((ends, why)) = stream.ends {
            live.due.remove(&(ends, self.number, Step::End(why)));
        }
        if live.streams.is_empty() {
            self.streams.0.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
