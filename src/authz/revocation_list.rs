//! Active revocations, which override the policy. They are checked after every decision, also after a cached one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::policy::Grant;
use crate::policy::stream_selector::StreamSelector;
use crate::util::clock::RemoteClock;

/// Revokes the access of a subject, to a channel or of all streams, until a point in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Names the revocation, so that it can be removed.
    pub id: Box<str>,
    #[serde(flatten)]
    pub selector: StreamSelector,
    /// By the store's clock, in milliseconds since the Unix epoch.
    pub until: u64,
}

/// The active revocations.
#[derive(Default)]
pub struct RevocationList {
    /// The number of entries, so that decisions do not take the lock while there is none.
    count: AtomicUsize,
    index: RwLock<Index>,
    /// The store's clock, by which revocations end. Nodes whose own clocks differ apply them alike.
    clock: Arc<RemoteClock>,
}

#[derive(Default)]
struct Index {
    all: HashMap<Box<str>, Arc<Revocation>>,
    by_subject: HashMap<Box<str>, Vec<Arc<Revocation>>>,
    /// Revocations of a channel for every subject.
    by_channel: HashMap<Box<str>, Vec<Arc<Revocation>>>,
    /// Revocations of everything.
    unrestricted: Vec<Arc<Revocation>>,
    /// No entry expires before this time, so there is nothing to remove until then.
    next_expiry: u64,
}

impl RevocationList {
    /// More cannot be requested.
    pub const MAX_REVOCATIONS: usize = 10_000;
    /// Larger than the maximum, because concurrent requests may each find the last free entry.
    const CAPACITY: usize = Self::MAX_REVOCATIONS + 1_000;

    /// Whether a revocation overrides this grant. `requested` are the channels of the request.
    pub fn revokes(&self, grant: &Grant, requested: &[String]) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let (subject, channels) = (grant.subject.as_deref(), grant.channels.as_deref().unwrap_or(requested));
        let (index, now) = (self.index.read(), self.clock.now_ms());
        let of_subject = subject.and_then(|subject| index.by_subject.get(subject)).into_iter().flatten();
        let of_channels = channels.iter().filter_map(|channel| index.by_channel.get(&**channel)).flatten();
        let mut relevant = of_subject.chain(of_channels).chain(&index.unrestricted);
        relevant.any(|revocation| revocation.until > now && revocation.selector.matches(subject, channels.iter()))
    }

    /// The clock by which revocations end.
    pub const fn clock(&self) -> &Arc<RemoteClock> {
        &self.clock
    }

    /// Adds a revocation, or replaces the one with the same id. False if the list is full.
    #[must_use]
    pub fn add(&self, revocation: Revocation) -> bool {
        self.change(|index| {
            index.remove(&revocation.id);
            let has_room = index.all.len() < Self::CAPACITY;
            if has_room && revocation.until > self.clock.now_ms() {
                index.add(revocation);
            }
            has_room
        })
    }

    /// Removes a revocation. False if there is none with this id.
    pub fn remove(&self, id: &str) -> bool {
        self.change(|index| index.remove(id))
    }

    /// Replaces all revocations.
    pub fn replace(&self, revocations: Vec<Revocation>) {
        self.change(|index| {
            *index = Index::default();
            revocations.into_iter().take(Self::CAPACITY).for_each(|revocation| index.add(revocation));
        });
    }

    /// Whether there is no revocation, not even one that has ended.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// The revocations that have not expired.
    pub fn list(&self) -> Vec<Arc<Revocation>> {
        let now = self.clock.now_ms();
        self.index.read().all.values().filter(|revocation| revocation.until > now).cloned().collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        let mut index = self.index.write();
        index.remove_expired(self.clock.now_ms());
        let result = change(&mut index);
        self.count.store(index.all.len(), Ordering::Release);
        result
    }
}

impl Index {
    fn entries_of(&mut self, selector: &StreamSelector) -> &mut Vec<Arc<Revocation>> {
        match selector {
            StreamSelector { subject: Some(subject), .. } => self.by_subject.entry(subject.clone()).or_default(),
            StreamSelector { channel: Some(channel), .. } => self.by_channel.entry(channel.clone()).or_default(),
            StreamSelector { .. } => &mut self.unrestricted,
        }
    }

    fn remove_expired(&mut self, now: u64) {
        if now < self.next_expiry {
            return;
        }
        let expired = self.all.values().filter(|revocation| revocation.until <= now);
        for id in expired.map(|revocation| revocation.id.clone()).collect::<Vec<_>>() {
            self.remove(&id);
        }
        self.next_expiry = self.all.values().map(|revocation| revocation.until).min().unwrap_or(u64::MAX);
    }

    fn add(&mut self, revocation: Revocation) {
        self.next_expiry = self.next_expiry.min(revocation.until);
        let revocation = Arc::new(revocation);
        self.entries_of(&revocation.selector).push(Arc::clone(&revocation));
        self.all.insert(revocation.id.clone(), revocation);
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(revocation) = self.all.remove(id) else { return false };
        let entries = self.entries_of(&revocation.selector);
        entries.retain(|other| other.id != revocation.id);
        if entries.is_empty() {
            match &revocation.selector {
                StreamSelector { subject: Some(subject), .. } => self.by_subject.remove(subject),
                StreamSelector { channel: Some(channel), .. } => self.by_channel.remove(channel),
                StreamSelector { .. } => None,
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(subject: Option<&str>, channel: Option<&str>) -> StreamSelector {
        StreamSelector { subject: subject.map(Into::into), channel: channel.map(Into::into) }
    }

    fn revocation(id: &str, selector: StreamSelector, until: u64) -> Revocation {
        Revocation { id: id.into(), selector, until }
    }

    #[test]
    fn revocation_applies_to_the_grants_that_its_selector_matches() {
        let grant = |subject: Option<&str>| Grant { subject: subject.map(Into::into), ..Grant::default() };
        let check = |selector: StreamSelector, subject: Option<&str>, channels: &[&str], expect: bool| {
            assert_eq!(selector.matches(subject, channels.iter()), expect, "{selector:?} {subject:?} {channels:?}");
            let revocations = RevocationList::default();
            let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
            assert!(!revocations.revokes(&grant(subject), &channels));
            assert!(revocations.add(revocation("1", selector.clone(), u64::MAX)));
            assert_eq!(
                revocations.revokes(&grant(subject), &channels),
                expect,
                "{selector:?} {subject:?} {channels:?}"
            );
            assert!(revocations.remove("1") && !revocations.remove("1"));
            assert!(!revocations.revokes(&grant(subject), &channels));
        };
        let (alice, red) = (Some("alice"), Some("red"));
        for (selector, subject, channels, expect) in [
            (selector(None, None), None, &["c"][..], true),
            (selector(None, None), alice, &[], true),
            (selector(alice, None), alice, &["c"], true),
            (selector(alice, None), Some("alic"), &["c"], false),
            (selector(alice, None), None, &["alice"], false),
            (selector(None, red), None, &["blue", "red"], true),
            (selector(None, red), alice, &["re"], false),
            (selector(alice, red), alice, &["red"], true),
            (selector(alice, red), alice, &["blue"], false),
            (selector(alice, red), Some("bob"), &["red"], false),
            (selector(Some(""), None), None, &["c"], false),
        ] {
            check(selector, subject, channels, expect);
        }
        // Channels that the policy did not grant do not count.
        let revocations = RevocationList::default();
        assert!(revocations.add(revocation("1", selector(None, red), u64::MAX)));
        let narrow = Grant { channels: Some(vec!["blue".into()]), ..Grant::default() };
        assert!(!revocations.revokes(&narrow, &["blue".into(), "red".into()]));
    }

    #[test]
    fn full_list_refuses_new_revocations_and_keeps_the_old_ones() {
        let revocations = RevocationList::default();
        for n in 0..RevocationList::CAPACITY {
            assert!(revocations.add(revocation(&n.to_string(), selector(Some(&n.to_string()), None), u64::MAX)));
        }
        assert!(!revocations.add(revocation("more", selector(Some("more"), None), u64::MAX)));
        assert!(
            revocations.add(revocation("7", selector(Some("7"), None), u64::MAX - 1)),
            "an existing one can be replaced"
        );
        assert_eq!(revocations.list().len(), RevocationList::CAPACITY);
        assert!(revocations.remove("8") && revocations.add(revocation("more", selector(Some("more"), None), u64::MAX)));
    }

    #[test]
    fn expired_revocations_are_removed() {
        let revocations = RevocationList::default();
        let now = revocations.clock().now_ms();
        assert!(revocations.add(revocation("over", selector(None, None), now)));
        revocations.replace(vec![
            revocation("old", selector(None, None), now),
            revocation("new", selector(Some("a"), None), u64::MAX),
        ]);
        assert!(!revocations.revokes(&Grant::default(), &[]), "it has expired");
        assert_eq!(revocations.list().len(), 1);
        assert!(revocations.add(revocation("other", selector(Some("b"), None), u64::MAX)));
        assert_eq!(revocations.index.read().all.len(), 2);
        // Entries that expire later are removed as well, in any order.
        let soon = revocations.clock().now_ms() + 20;
        assert!(revocations.add(revocation("soon", selector(Some("c"), None), soon)));
        assert!(revocations.add(revocation("other", selector(Some("b"), None), soon + 1)));
        while revocations.clock().now_ms() <= soon + 1 {
            std::thread::yield_now();
        }
        assert!(revocations.remove("new") && revocations.index.read().all.is_empty());
    }
}
