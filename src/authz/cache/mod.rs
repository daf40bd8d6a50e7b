//! Answers that a policy allowed to be given again, for as long as it said and the operator lets it.
//!
//! It belongs to one version of what is in force: with that it goes. What an answer depends on is known only when it is there, so
//! there are two steps, as in a cache of HTTP: the request leads to the few ways in which answers to its like vary, each way to a key.

pub(crate) mod key;

use crate::policy::cache_directive::CacheDirective;
use crate::policy::cache_directive::Vary;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant as SystemInstant};

use http::HeaderMap;
use moka::Expiry;
use moka::sync::Cache as Bounded;
use tokio::time::Instant;

use crate::policy::{Grant, Outcome, Rejection, Request};

/// Ways in which the answers to one kind of request vary. A policy has one or two; each costs a look.
const MAX_WAYS: usize = 4;
/// What an entry takes beside its own bytes: its places in the map and in the queues of what goes next.
const OVERHEAD: usize = 512;
/// What a header takes beside its own bytes.
const HEADER: usize = 128;
/// One answer fills at most this part of the cache.
const PART: usize = 16;

/// What shall no longer be given again.
#[derive(Clone, Copy, Debug)]
pub enum Forget<'a> {
    /// Anything.
    All,
    /// Grants to this subject.
    Subject(&'a str),
    /// What was asked about this channel.
    Channel(&'a str),
}

/// An answer that is kept.
#[derive(Debug)]
pub struct CachedDecision {
    outcome: Outcome,
    reason: Option<String>,
    channels: Box<[String]>,
    until: Instant,
}

/// The answers of one version.
pub struct DecisionCache {
    /// None where nothing is kept.
    entries: Option<Bounded<Key, Entry>>,
    capacity: usize,
    max_age: Duration,
    /// Whether anything was ever kept: policies that keep nothing shall not pay for those that do.
    used: AtomicBool,
    /// How often something was to be forgotten.
    forgotten: AtomicU64,
    /// Held while something is kept or forgotten.
    changing: Mutex<()>,
}

/// All that an entry depends on, in full.
type Key = Box<[u8]>;

#[derive(Clone)]
enum Entry {
    /// The ways in which answers vary, the latest first.
    Ways(Arc<[Vary]>),
    Answer(Arc<CachedDecision>),
}

/// When the cache can let go of an entry by itself. Whether it still holds is asked of [`CachedDecision::until`].
struct EntryExpiry(Duration);

impl EntryExpiry {
    fn of(&self, entry: &Entry) -> Duration {
        match entry {
            Entry::Ways(_) => self.0,
            Entry::Answer(kept) => kept.until.saturating_duration_since(Instant::now()),
        }
    }
}

impl Expiry<Key, Entry> for EntryExpiry {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: SystemInstant) -> Option<Duration> {
        Some(self.of(entry))
    }

    fn expire_after_update(&self, _: &Key, entry: &Entry, _: SystemInstant, _: Option<Duration>) -> Option<Duration> {
        Some(self.of(entry))
    }
}

/// Seen before an answer was asked for; what was forgotten since then must not come back by it.
#[derive(Clone, Copy, Debug)]
pub struct CacheEpoch(u64);

impl DecisionCache {
    /// One that holds so many bytes, none of it for longer than this.
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        // Its hasher is keyed at random, and it compares whole keys: no client can make its request look like another's.
        let entries = (capacity > 0).then(|| {
            Bounded::builder()
                .max_capacity(capacity as u64)
                .weigher(|key: &Key, entry: &Entry| {
                    u32::try_from(OVERHEAD + key.len() + entry.size()).unwrap_or(u32::MAX)
                })
                .expire_after(EntryExpiry(max_age))
                .build()
        });
        let (used, forgotten) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { entries, capacity, max_age, used, forgotten, changing: Mutex::default() }
    }

    /// Bytes that it holds, about.
    pub fn bytes(&self) -> u64 {
        self.entries.as_ref().map_or(0, Bounded::weighted_size)
    }

    /// What was forgotten by now.
    pub fn seen(&self) -> CacheEpoch {
        CacheEpoch(self.forgotten.load(Ordering::Acquire))
    }

    /// The answer to such a request, if there is one that holds. `now` is the policy's clock.
    pub fn get(&self, request: &Request, channels: &[String], now: u64) -> Option<Arc<CachedDecision>> {
        let entries = self.entries.as_ref().filter(|_| self.used.load(Ordering::Relaxed))?;
        let mut key = key::ways(&key::base(request, channels));
        let Some(Entry::Ways(ways)) = entries.get(&*key) else { return None };
        key.pop();
        ways.iter().find_map(|vary| match entries.get(&*key::full(&key, vary, request)) {
            Some(Entry::Answer(kept)) => Some(kept).filter(|kept| kept.holds(now)),
            _ => None,
        })
    }

    /// Keeps an answer as far as that is allowed. It was asked for at `asked`, when `seen` was so.
    #[expect(clippy::too_many_arguments, reason = "each is a part of one decision")]
    pub fn keep(
        &self,
        keep: &CacheDirective,
        request: &Request,
        channels: &[String],
        outcome: &Outcome,
        reason: Option<&str>,
        asked: Instant,
        seen: CacheEpoch,
    ) {
        let Some(entries) = &self.entries else { return };
        let headers = match outcome {
            Outcome::Allowed(grant) => &grant.headers,
            Outcome::Rejected(rejection) => &rejection.headers,
            Outcome::Failed(_) => return,
        };
        let Some(until) = asked.checked_add(keep.max_age.min(self.max_age)).filter(|until| *until > Instant::now())
        else {
            return;
        };
        // It is one client's alone.
        if headers.contains_key(http::header::SET_COOKIE) {
            return;
        }
        let (outcome, reason) = (outcome.clone(), reason.map(str::to_owned));
        let answer = Entry::Answer(Arc::new(CachedDecision { outcome, reason, channels: channels.into(), until }));
        let base = key::base(request, channels);
        let full = key::full(&base, &keep.vary, request);
        if OVERHEAD + full.len() + answer.size() > self.capacity / PART {
            return;
        }
        let key = key::ways(&base);
        let _changing = self.changing.lock();
        if self.forgotten.load(Ordering::Acquire) != seen.0 {
            return;
        }
        let known = match entries.get(&*key) {
            Some(Entry::Ways(ways)) => ways,
            _ => Arc::default(),
        };
        let others = known.iter().filter(|vary| **vary != keep.vary).take(MAX_WAYS - 1);
        let ways = std::iter::once(&keep.vary).chain(others).cloned().collect();
        entries.insert(key.into(), Entry::Ways(ways));
        entries.insert(full.into(), answer);
        self.used.store(true, Ordering::Relaxed);
        // Else what is too much goes only when some more has come.
        entries.run_pending_tasks();
    }

    /// Forgets what matches, and what is being decided at this moment, for nobody knows yet whether that would.
    pub fn forget(&self, what: Forget<'_>) {
        let Some(entries) = &self.entries else { return };
        let _changing = self.changing.lock();
        self.forgotten.fetch_add(1, Ordering::AcqRel);
        for (key, entry) in entries {
            if matches!(&entry, Entry::Answer(kept) if kept.matches(what)) {
                entries.invalidate(&**key);
            }
        }
    }
}

impl CachedDecision {
    /// The answer, and why it was so.
    pub fn answer(&self) -> (Outcome, Option<String>) {
        (self.outcome.clone(), self.reason.clone())
    }

    fn holds(&self, now: u64) -> bool {
        let granted = match &self.outcome {
            Outcome::Allowed(grant) => grant.expires_at.is_none_or(|at| at > now),
            _ => true,
        };
        granted && self.until > Instant::now()
    }

    fn matches(&self, what: Forget<'_>) -> bool {
        match (what, &self.outcome) {
            (Forget::All, _) => true,
            (Forget::Subject(subject), Outcome::Allowed(grant)) => grant.subject.as_deref() == Some(subject),
            (Forget::Subject(_), _) => false,
            (Forget::Channel(channel), _) => self.channels.iter().any(|name| name == channel),
        }
    }
}

impl Entry {
    /// The bytes that it takes, about.
    fn size(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(|text| size_of::<String>() + text.len()).sum::<usize>();
        match self {
            Self::Ways(ways) => ways.iter().map(|vary| size_of::<Vary>() + vary.size()).sum(),
            Self::Answer(kept) => {
                let outcome = match &kept.outcome {
                    Outcome::Allowed(Grant { subject, channels, headers, .. }) => {
                        subject.as_ref().map_or(0, String::len)
                            + channels.as_ref().map_or(0, |channels| texts(channels))
                            + headers_size(headers)
                    }
                    Outcome::Rejected(Rejection { headers, body, .. }) => headers_size(headers) + body.len(),
                    Outcome::Failed(_) => 0,
                };
                size_of::<CachedDecision>()
                    + outcome
                    + kept.reason.as_ref().map_or(0, String::len)
                    + texts(&kept.channels)
            }
        }
    }
}

fn headers_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| HEADER + name.as_str().len() + value.len()).sum()
}

/// The key of an answer that depends on this.
#[cfg(any(test, fuzzing))]
pub fn key(request: &Request, channels: &[String], vary: &Vary) -> Vec<u8> {
    key::full(&key::base(request, channels), vary, request)
}

#[cfg(test)]
mod tests;
