//! Who is kept out for a while, whatever the policy says: asked behind every decision, those that were kept too.

use crate::policy::stream_selector::StreamSelector;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::policy::Grant;
use crate::util::clock::now_ms;

/// Somebody is kept out until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Its name, to lift it by.
    pub id: Box<str>,
    /// Who.
    #[serde(flatten)]
    pub selector: StreamSelector,
    /// Until when, ms since 1970.
    pub until: u64,
}

/// All that are kept out.
#[derive(Default)]
pub struct RevocationList {
    /// How many there are: decisions shall not pay for a list that is empty.
    count: AtomicUsize,
    list: RwLock<Index>,
}

#[derive(Default)]
struct Index {
    all: HashMap<Box<str>, Arc<Revocation>>,
    by_subject: HashMap<Box<str>, Vec<Arc<Revocation>>>,
    /// Those that name a channel alone.
    by_channel: HashMap<Box<str>, Vec<Arc<Revocation>>>,
    everybody: Vec<Arc<Revocation>>,
    /// Nothing is over before that, so that nobody has to look.
    none_over_before: u64,
}

impl RevocationList {
    /// Nobody may ask for more.
    pub const MOST: usize = 10_000;
    /// There is room for those too that were asked for at one moment, when each saw a place.
    const ROOM: usize = Self::MOST + 1_000;

    /// Whether a grant of these channels is void for now.
    pub fn denies(&self, grant: &Grant, asked: &[String]) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let (subject, channels) = (grant.subject.as_deref(), grant.channels.as_deref().unwrap_or(asked));
        let (list, now) = (self.read(), now_ms());
        let of_subject = subject.and_then(|subject| list.by_subject.get(subject)).into_iter().flatten();
        let of_channels = channels.iter().filter_map(|channel| list.by_channel.get(&**channel)).flatten();
        let mut near = of_subject.chain(of_channels).chain(&list.everybody);
        near.any(|revocation| revocation.until > now && revocation.selector.matches(subject, channels.iter()))
    }

    /// Adds one, or changes the one of this name. False if there is no room; then nothing is changed.
    #[must_use]
    pub fn add(&self, revocation: Revocation) -> bool {
        self.change(|list| {
            list.remove(&revocation.id);
            let room = list.all.len() < Self::ROOM;
            if room && revocation.until > now_ms() {
                list.add(revocation);
            }
            room
        })
    }

    /// Lifts one. False if there is none of this name.
    pub fn lift(&self, id: &str) -> bool {
        self.change(|list| list.remove(id))
    }

    /// Puts these in the place of all that there are.
    pub fn replace(&self, revocations: Vec<Revocation>) {
        self.change(|list| {
            *list = Index::default();
            revocations.into_iter().take(Self::ROOM).for_each(|revocation| list.add(revocation));
        });
    }

    /// Those that hold.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Revocation>> {
        let now = now_ms();
        self.read().all.values().filter(|revocation| revocation.until > now).cloned().collect()
    }

    fn change<T>(&self, with: impl FnOnce(&mut Index) -> T) -> T {
        let mut list = self.write();
        list.drop_what_is_over(now_ms());
        let done = with(&mut list);
        self.count.store(list.all.len(), Ordering::Release);
        done
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.list.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.list.write()
    }
}

impl Index {
    fn place(&mut self, selector: &StreamSelector) -> &mut Vec<Arc<Revocation>> {
        match selector {
            StreamSelector { subject: Some(subject), .. } => self.by_subject.entry(subject.clone()).or_default(),
            StreamSelector { channel: Some(channel), .. } => self.by_channel.entry(channel.clone()).or_default(),
            StreamSelector { .. } => &mut self.everybody,
        }
    }

    fn drop_what_is_over(&mut self, now: u64) {
        if now < self.none_over_before {
            return;
        }
        let over: Vec<Box<str>> = self
            .all
            .values()
            .filter(|revocation| revocation.until <= now)
            .map(|revocation| revocation.id.clone())
            .collect();
        over.iter().for_each(|id| {
            self.remove(id);
        });
        self.none_over_before = self.all.values().map(|revocation| revocation.until).min().unwrap_or(u64::MAX);
    }

    fn add(&mut self, revocation: Revocation) {
        self.none_over_before = self.none_over_before.min(revocation.until);
        let revocation = Arc::new(revocation);
        self.place(&revocation.selector).push(Arc::clone(&revocation));
        self.all.insert(revocation.id.clone(), revocation);
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(revocation) = self.all.remove(id) else { return false };
        let place = self.place(&revocation.selector);
        place.retain(|other| other.id != revocation.id);
        if place.is_empty() {
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
    fn who_is_meant() {
        let grant = |subject: Option<&str>| Grant { subject: subject.map(Into::into), ..Grant::default() };
        let check = |meant: StreamSelector, subject: Option<&str>, channels: &[&str], expect: bool| {
            assert_eq!(meant.matches(subject, channels.iter()), expect, "{meant:?} {subject:?} {channels:?}");
            let denied = RevocationList::default();
            let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
            assert!(!denied.denies(&grant(subject), &channels));
            assert!(denied.add(revocation("1", meant.clone(), u64::MAX)));
            assert_eq!(denied.denies(&grant(subject), &channels), expect, "{meant:?} {subject:?} {channels:?}");
            assert!(denied.lift("1") && !denied.lift("1"));
            assert!(!denied.denies(&grant(subject), &channels));
        };
        let (alice, red) = (Some("alice"), Some("red"));
        for (meant, subject, channels, expect) in [
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
            check(meant, subject, channels, expect);
        }
        // What the policy did not grant is not read.
        let denied = RevocationList::default();
        assert!(denied.add(revocation("1", selector(None, red), u64::MAX)));
        let narrow = Grant { channels: Some(vec!["blue".into()]), ..Grant::default() };
        assert!(!denied.denies(&narrow, &["blue".into(), "red".into()]));
    }

    #[test]
    fn there_is_a_bound_and_nothing_is_forgotten_for_it() {
        let denied = RevocationList::default();
        for n in 0..RevocationList::ROOM {
            assert!(denied.add(revocation(&n.to_string(), selector(Some(&n.to_string()), None), u64::MAX)));
        }
        assert!(!denied.add(revocation("more", selector(Some("more"), None), u64::MAX)));
        assert!(denied.add(revocation("7", selector(Some("7"), None), u64::MAX - 1)), "one of them may be changed");
        assert_eq!(denied.list().len(), RevocationList::ROOM);
        assert!(denied.lift("8") && denied.add(revocation("more", selector(Some("more"), None), u64::MAX)));
    }

    #[test]
    fn what_is_over_makes_room() {
        let denied = RevocationList::default();
        let now = now_ms();
        assert!(denied.add(revocation("over", selector(None, None), now)));
        denied.replace(vec![
            revocation("old", selector(None, None), now),
            revocation("new", selector(Some("a"), None), u64::MAX),
        ]);
        assert!(!denied.denies(&Grant::default(), &[]), "its time is over");
        assert_eq!(denied.list().len(), 1);
        assert!(denied.add(revocation("other", selector(Some("b"), None), u64::MAX)));
        assert_eq!(denied.read().all.len(), 2);
        // And so does what is over later, whether it was the first or not.
        let soon = now_ms() + 20;
        assert!(denied.add(revocation("soon", selector(Some("c"), None), soon)));
        assert!(denied.add(revocation("other", selector(Some("b"), None), soon + 1)));
        while now_ms() <= soon + 1 {
            std::thread::yield_now();
        }
        assert!(denied.lift("new") && denied.read().all.is_empty());
    }
}
