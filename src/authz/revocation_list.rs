//! Who is kept out for a while, whatever the policy says: asked behind every decision, those that were kept too.

use crate::policy::stream_selector::StreamSelector;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
    pub whom: StreamSelector,
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
        near.any(|denial| denial.until > now && denial.whom.matches(subject, channels.iter()))
    }

    /// Adds one, or changes the one of this name. False if there is no room; then nothing is changed.
    #[must_use]
    pub fn add(&self, denial: Revocation) -> bool {
        self.change(|list| {
            list.remove(&denial.id);
            let room = list.all.len() < Self::ROOM;
            if room && denial.until > now_ms() {
                list.add(denial);
            }
            room
        })
    }

    /// Lifts one. False if there is none of this name.
    pub fn lift(&self, id: &str) -> bool {
        self.change(|list| list.remove(id))
    }

    /// Puts these in the place of all that there are.
    pub fn replace(&self, denials: Vec<Revocation>) {
        self.change(|list| {
            *list = Index::default();
            denials.into_iter().take(Self::ROOM).for_each(|denial| list.add(denial));
        });
    }

    /// Those that hold.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Revocation>> {
        let now = now_ms();
        self.read().all.values().filter(|denial| denial.until > now).cloned().collect()
    }

    fn change<T>(&self, with: impl FnOnce(&mut Index) -> T) -> T {
        let mut list = self.write();
        list.drop_what_is_over(now_ms());
        let done = with(&mut list);
        self.count.store(list.all.len(), Ordering::Release);
        done
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.list.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn place(&mut self, whom: &StreamSelector) -> &mut Vec<Arc<Revocation>> {
        match whom {
            StreamSelector { subject: Some(subject), .. } => self.by_subject.entry(subject.clone()).or_default(),
            StreamSelector { channel: Some(channel), .. } => self.by_channel.entry(channel.clone()).or_default(),
            StreamSelector { .. } => &mut self.everybody,
        }
    }

    fn drop_what_is_over(&mut self, now: u64) {
        if now < self.none_over_before {
            return;
        }
        let over: Vec<Box<str>> =
            self.all.values().filter(|denial| denial.until <= now).map(|denial| denial.id.clone()).collect();
        over.iter().for_each(|id| {
            self.remove(id);
        });
        self.none_over_before = self.all.values().map(|denial| denial.until).min().unwrap_or(u64::MAX);
    }

    fn add(&mut self, denial: Revocation) {
        self.none_over_before = self.none_over_before.min(denial.until);
        let denial = Arc::new(denial);
        self.place(&denial.whom).push(Arc::clone(&denial));
        self.all.insert(denial.id.clone(), denial);
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(denial) = self.all.remove(id) else { return false };
        let place = self.place(&denial.whom);
        place.retain(|other| other.id != denial.id);
        if place.is_empty() {
            match &denial.whom {
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

    fn whom(subject: Option<&str>, channel: Option<&str>) -> StreamSelector {
        StreamSelector { subject: subject.map(Into::into), channel: channel.map(Into::into) }
    }

    fn denial(id: &str, whom: StreamSelector, until: u64) -> Revocation {
        Revocation { id: id.into(), whom, until }
    }

    #[test]
    fn who_is_meant() {
        let grant = |subject: Option<&str>| Grant { subject: subject.map(Into::into), ..Grant::default() };
        let check = |meant: StreamSelector, subject: Option<&str>, channels: &[&str], expect: bool| {
            assert_eq!(meant.matches(subject, channels.iter()), expect, "{meant:?} {subject:?} {channels:?}");
            let denied = RevocationList::default();
            let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
            assert!(!denied.denies(&grant(subject), &channels));
            assert!(denied.add(denial("1", meant.clone(), u64::MAX)));
            assert_eq!(denied.denies(&grant(subject), &channels), expect, "{meant:?} {subject:?} {channels:?}");
            assert!(denied.lift("1") && !denied.lift("1"));
            assert!(!denied.denies(&grant(subject), &channels));
        };
        let (alice, red) = (Some("alice"), Some("red"));
        for (meant, subject, channels, expect) in [
            (whom(None, None), None, &["c"][..], true),
            (whom(None, None), alice, &[], true),
            (whom(alice, None), alice, &["c"], true),
            (whom(alice, None), Some("alic"), &["c"], false),
            (whom(alice, None), None, &["alice"], false),
            (whom(None, red), None, &["blue", "red"], true),
            (whom(None, red), alice, &["re"], false),
            (whom(alice, red), alice, &["red"], true),
            (whom(alice, red), alice, &["blue"], false),
            (whom(alice, red), Some("bob"), &["red"], false),
            (whom(Some(""), None), None, &["c"], false),
        ] {
            check(meant, subject, channels, expect);
        }
        // What the policy did not grant is not read.
        let denied = RevocationList::default();
        assert!(denied.add(denial("1", whom(None, red), u64::MAX)));
        let narrow = Grant { channels: Some(vec!["blue".into()]), ..Grant::default() };
        assert!(!denied.denies(&narrow, &["blue".into(), "red".into()]));
    }

    #[test]
    fn there_is_a_bound_and_nothing_is_forgotten_for_it() {
        let denied = RevocationList::default();
        for n in 0..RevocationList::ROOM {
            assert!(denied.add(denial(&n.to_string(), whom(Some(&n.to_string()), None), u64::MAX)));
        }
        assert!(!denied.add(denial("more", whom(Some("more"), None), u64::MAX)));
        assert!(denied.add(denial("7", whom(Some("7"), None), u64::MAX - 1)), "one of them may be changed");
        assert_eq!(denied.list().len(), RevocationList::ROOM);
        assert!(denied.lift("8") && denied.add(denial("more", whom(Some("more"), None), u64::MAX)));
    }

    #[test]
    fn what_is_over_makes_room() {
        let denied = RevocationList::default();
        let now = now_ms();
        assert!(denied.add(denial("over", whom(None, None), now)));
        denied.replace(vec![denial("old", whom(None, None), now), denial("new", whom(Some("a"), None), u64::MAX)]);
        assert!(!denied.denies(&Grant::default(), &[]), "its time is over");
        assert_eq!(denied.list().len(), 1);
        assert!(denied.add(denial("other", whom(Some("b"), None), u64::MAX)));
        assert_eq!(denied.read().all.len(), 2);
        // And so does what is over later, whether it was the first or not.
        let soon = now_ms() + 20;
        assert!(denied.add(denial("soon", whom(Some("c"), None), soon)));
        assert!(denied.add(denial("other", whom(Some("b"), None), soon + 1)));
        while now_ms() <= soon + 1 {
            std::thread::yield_now();
        }
        assert!(denied.lift("new") && denied.read().all.is_empty());
    }
}
