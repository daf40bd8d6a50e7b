//! Decisions that a policy allowed to be cached, for as long as the policy and the operator permit.
//!
//! A cache belongs to one policy generation. A lookup takes two steps, as in an HTTP cache, because only a decision says which headers
//! it depends on: the request leads to the known [`Vary`] values of such decisions, and each of those to the key of a decision.

pub(crate) mod key;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as SystemInstant};

use moka::Expiry;
use moka::sync::Cache as Bounded;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::policy::cache_directive::{CacheDirective, Vary};
use crate::policy::{Outcome, Request, strings_size};

/// Maximum [`Vary`] values for one kind of request. Policies use one or two, and each costs a lookup.
const MAX_VARY_VALUES: usize = 4;
/// Approximate bytes that an entry takes in the map and in the eviction queues, in addition to its own.
const ENTRY_OVERHEAD_BYTES: usize = 512;
/// One decision takes at most the cache's capacity divided by this.
const MAX_ENTRY_DIVISOR: usize = 16;

/// Which cached decisions to invalidate.
#[derive(Clone, Copy, Debug)]
pub enum CacheSelector<'a> {
    All,
    /// Grants to this subject.
    Subject(&'a str),
    /// Decisions about requests for this channel.
    Channel(&'a str),
}

#[derive(Debug)]
pub struct CachedDecision {
    outcome: Outcome,
    reason: Option<String>,
    /// The channels that the request asked for.
    channels: Box<[String]>,
    expires: Instant,
}

/// The cached decisions of one policy generation.
pub struct DecisionCache {
    /// `None` if the capacity is 0.
    entries: Option<Bounded<CacheKey, Entry>>,
    /// In bytes.
    capacity: usize,
    max_age: Duration,
    /// Counts the invalidations.
    epoch: AtomicU64,
    /// Locked while decisions are inserted or invalidated, so that neither misses the other.
    update: Mutex<()>,
}

/// Everything that an entry depends on, in full.
type CacheKey = Box<[u8]>;

#[derive(Clone)]
enum Entry {
    /// The latest first.
    VaryValues(Arc<[Vary]>),
    Decision(Arc<CachedDecision>),
}

/// When the cache may evict an entry. [`CachedDecision::is_valid`] checks the time again.
struct EntryExpiry(Duration);

impl EntryExpiry {
    fn of(&self, entry: &Entry) -> Duration {
        match entry {
            Entry::VaryValues(_) => self.0,
            Entry::Decision(decision) => decision.expires.saturating_duration_since(Instant::now()),
        }
    }
}

impl Expiry<CacheKey, Entry> for EntryExpiry {
    fn expire_after_create(&self, _: &CacheKey, entry: &Entry, _: SystemInstant) -> Option<Duration> {
        Some(self.of(entry))
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &Entry,
        _: SystemInstant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.of(entry))
    }
}

impl DecisionCache {
    /// `capacity` is in bytes; 0 disables the cache.
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        // Moka's hasher has a random key, and the cache compares whole keys: no client can make its request match another's.
        let entries = (capacity > 0).then(|| {
            Bounded::builder()
                .max_capacity(capacity as u64)
                .weigher(|key: &CacheKey, entry: &Entry| {
                    u32::try_from(ENTRY_OVERHEAD_BYTES + key.len() + entry.size()).unwrap_or(u32::MAX)
                })
                .expire_after(EntryExpiry(max_age))
                .build()
        });
        Self { entries, capacity, max_age, epoch: AtomicU64::new(0), update: Mutex::default() }
    }

    /// Approximate bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.entries.as_ref().map_or(0, Bounded::weighted_size)
    }

    /// The number of invalidations so far.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The valid cached decision for such a request. `now` is the policy's clock.
    pub fn get(&self, request: &Request, channels: &[String], now: u64) -> Option<Arc<CachedDecision>> {
        // Policies that cache nothing do not pay for the keys.
        let entries = self.entries.as_ref().filter(|entries| entries.entry_count() > 0)?;
        let base = key::base(request, channels);
        let Some(Entry::VaryValues(values)) = entries.get(&*key::vary_values(&base)) else { return None };
        values.iter().find_map(|vary| match entries.get(&*key::decision(&base, vary, request)?) {
            Some(Entry::Decision(decision)) => Some(decision).filter(|decision| decision.is_valid(now)),
            _ => None,
        })
    }

    /// Caches a decision, as far as that is allowed. Its evaluation began at `start` and in `epoch`; after an invalidation since then it
    /// is not cached.
    #[expect(clippy::too_many_arguments, reason = "each is a part of one decision")]
    pub fn insert(
        &self,
        directive: &CacheDirective,
        request: &Request,
        channels: &[String],
        outcome: &Outcome,
        reason: Option<&str>,
        start: Instant,
        epoch: u64,
    ) {
        let Some(entries) = &self.entries else { return };
        let headers = match outcome {
            Outcome::Allowed(grant) => &grant.headers,
            Outcome::Rejected(rejection) => &rejection.headers,
            Outcome::Failed(_) => return,
        };
        let age = directive.max_age.min(self.max_age);
        let Some(expires) = start.checked_add(age).filter(|expires| *expires > Instant::now()) else { return };
        // A cookie is for one client only.
        if headers.contains_key(http::header::SET_COOKIE) {
            return;
        }
        let (outcome, reason) = (outcome.clone(), reason.map(str::to_owned));
        let entry = Entry::Decision(Arc::new(CachedDecision { outcome, reason, channels: channels.into(), expires }));
        let base = key::base(request, channels);
        let Some(decision_key) = key::decision(&base, &directive.vary, request) else { return };
        if ENTRY_OVERHEAD_BYTES + decision_key.len() + entry.size() > self.capacity / MAX_ENTRY_DIVISOR {
            return;
        }
        let vary_key = key::vary_values(&base);
        let _update = self.update.lock();
        if self.epoch() != epoch {
            return;
        }
        let known = match entries.get(&*vary_key) {
            Some(Entry::VaryValues(values)) => values,
            _ => Arc::default(),
        };
        let others = known.iter().filter(|vary| **vary != directive.vary).take(MAX_VARY_VALUES - 1);
        let values = std::iter::once(&directive.vary).chain(others).cloned().collect();
        entries.insert(vary_key.into(), Entry::VaryValues(values));
        entries.insert(decision_key.into(), entry);
        // Without this, moka counts and evicts only after some more insertions, and the cache exceeds its capacity until then.
        entries.run_pending_tasks();
    }

    /// Removes matching decisions. Decisions that are being evaluated are not cached, because they might match.
    pub fn invalidate(&self, selector: CacheSelector<'_>) {
        let Some(entries) = &self.entries else { return };
        let _update = self.update.lock();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for (key, entry) in entries {
            if matches!(&entry, Entry::Decision(decision) if decision.matches(selector)) {
                entries.invalidate(&**key);
            }
        }
    }
}

impl CachedDecision {
    /// The outcome and its reason.
    pub fn answer(&self) -> (Outcome, Option<String>) {
        (self.outcome.clone(), self.reason.clone())
    }

    fn is_valid(&self, now: u64) -> bool {
        let grant_expired =
            matches!(&self.outcome, Outcome::Allowed(grant) if grant.expires_at.is_some_and(|at| at <= now));
        !grant_expired && self.expires > Instant::now()
    }

    fn matches(&self, selector: CacheSelector<'_>) -> bool {
        match (selector, &self.outcome) {
            (CacheSelector::All, _) => true,
            (CacheSelector::Subject(subject), Outcome::Allowed(grant)) => grant.subject.as_deref() == Some(subject),
            (CacheSelector::Subject(_), _) => false,
            (CacheSelector::Channel(channel), _) => self.channels.iter().any(|name| name == channel),
        }
    }
}

impl Entry {
    /// Approximate bytes.
    fn size(&self) -> usize {
        match self {
            Self::VaryValues(values) => values.iter().map(|vary| size_of::<Vary>() + vary.size()).sum(),
            Self::Decision(decision) => {
                let CachedDecision { outcome, reason, channels, .. } = &**decision;
                let reason = reason.as_ref().map_or(0, String::len);
                size_of::<CachedDecision>() + outcome.size() + reason + strings_size(channels)
            }
        }
    }
}

#[cfg(test)]
mod tests;
