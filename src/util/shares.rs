//! Fair shares of a bounded resource: as long as there is enough, a holder may take any amount; when the resource is scarce,
//! those who hold the most are refused first.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// With less than this part of the limit left (a fifth), a holder gets no more than an equal share.
const RESERVED_PART: usize = 5;

/// A resource with a limit, and how much of it each holder has. `K` names a holder. Clones share the resource.
#[derive(Debug)]
pub struct Shares<K>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    limit: usize,
    /// Holders that have nothing and count for the equal shares.
    newcomers: usize,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    total: usize,
    /// Without entries of 0.
    by_holder: HashMap<K, usize>,
}

/// What one holder took. Dropping it gives it back.
#[derive(Debug)]
pub struct Share<K: Hash + Eq> {
    resource: Arc<Inner<K>>,
    holder: Option<K>,
    amount: usize,
}

/// Why a share was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Less than this amount is left.
    Exhausted,
    /// The resource is scarce, and the holder has its equal share.
    ShareExceeded,
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub fn new(limit: usize) -> Self {
        Self::build(limit, 0)
    }

    /// A resource that one holder alone cannot use up: when it is scarce, one more holder counts than there are.
    pub fn leaving_room(limit: usize) -> Self {
        Self::build(limit, 1)
    }

    fn build(limit: usize, newcomers: usize) -> Self {
        let held = Mutex::new(Held { total: 0, by_holder: HashMap::new() });
        Self(Arc::new(Inner { limit, newcomers, held }))
    }

    /// Takes an amount for a holder. `None` is a holder that only the limit bounds, such as a trusted proxy.
    pub fn take(&self, holder: Option<K>, amount: usize) -> Result<Share<K>, Refusal> {
        let Inner { limit, newcomers, held } = &*self.0;
        let held = &mut *held.lock();
        let total = held.total.saturating_add(amount);
        if total > *limit {
            return Err(Refusal::Exhausted);
        }
        if let Some(holder) = &holder {
            let holders = held.by_holder.len() + newcomers;
            match held.by_holder.get_mut(holder) {
                Some(own) => {
                    let is_scarce = total > limit - limit / RESERVED_PART;
                    if is_scarce && own.saturating_add(amount) > limit / holders {
                        return Err(Refusal::ShareExceeded);
                    }
                    *own += amount;
                }
                None if amount > 0 => drop(held.by_holder.insert(holder.clone(), amount)),
                None => {}
            }
        }
        held.total = total;
        Ok(Share { resource: Arc::clone(&self.0), holder, amount })
    }

    /// Whether a holder has more than an equal share.
    pub fn exceeds_equal_share(&self, holder: &K) -> bool {
        let held = self.0.held.lock();
        held.by_holder.get(holder).is_some_and(|own| *own > self.0.limit / held.by_holder.len())
    }

    /// What all holders have together.
    pub fn total(&self) -> usize {
        self.0.held.lock().total
    }

    /// Of these holders, the one that has the most.
    pub fn largest<'a>(&self, holders: impl IntoIterator<Item = &'a K>) -> Option<&'a K> {
        let held = self.0.held.lock();
        holders.into_iter().max_by_key(|holder| held.by_holder.get(holder).copied().unwrap_or_default())
    }
}

impl<K: Hash + Eq + Clone> Share<K> {
    pub fn holder(&self) -> Option<&K> {
        self.holder.as_ref()
    }

    /// Another holder has it from now on, whatever that holder has already.
    pub fn transfer(&mut self, holder: Option<K>) {
        let mut held = self.resource.held.lock();
        held.give_back(self.holder.as_ref(), self.amount);
        if let Some(holder) = holder.as_ref().filter(|_| self.amount > 0) {
            *held.by_holder.entry(holder.clone()).or_default() += self.amount;
        }
        self.holder = holder;
    }
}

impl<K: Hash + Eq> Held<K> {
    fn give_back(&mut self, holder: Option<&K>, amount: usize) {
        let Some(holder) = holder else { return };
        if let Some(own) = self.by_holder.get_mut(holder) {
            *own -= amount;
            if *own == 0 {
                self.by_holder.remove(holder);
            }
        }
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.resource.held.lock();
        held.total -= self.amount;
        held.give_back(self.holder.as_ref(), self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_may_take_everything() {
        let shares = Shares::new(100);
        let all: Vec<_> = (0..100).map(|_| shares.take(Some("a"), 1).expect("left")).collect();
        assert_eq!(shares.take(Some("a"), 1).err(), Some(Refusal::Exhausted));
        assert_eq!(shares.take(None, 1).err(), Some(Refusal::Exhausted));
        drop(all);
        assert_eq!((shares.total(), shares.0.held.lock().by_holder.len()), (0, 0));
    }

    #[test]
    fn no_holder_takes_the_room_of_a_newcomer() {
        let shares = Shares::leaving_room(100);
        let take_all = |holder| std::iter::from_fn(|| shares.take(Some(holder), 1).ok()).collect::<Vec<_>>();
        let first = take_all("a");
        assert_eq!(first.len(), 80);
        assert_eq!(shares.take(Some("a"), 1).err(), Some(Refusal::ShareExceeded));
        assert_eq!(take_all("b").len(), 20);
        let _proxy = shares.take(None, 20).expect("shares do not apply");
    }

    #[test]
    fn scarce_resource_is_refused_to_those_who_hold_most() {
        let shares = Shares::new(100);
        let _small = shares.take(Some("b"), 1).expect("left");
        let large = shares.take(Some("a"), 79).expect("not scarce");
        assert_eq!(shares.take(Some("a"), 1).err(), Some(Refusal::ShareExceeded));
        let _more = shares.take(Some("b"), 10).expect("b has less than its share");
        let _first = shares.take(Some("c"), 5).expect("the first of a new holder");
        let _proxy = shares.take(None, 5).expect("shares do not apply");
        assert_eq!(shares.take(Some("c"), 1).err(), Some(Refusal::Exhausted));
        assert_eq!(shares.largest(&["c", "a", "b"]), Some(&"a"));
        assert_eq!(["a", "b", "none"].map(|holder| shares.exceeds_equal_share(&holder)), [true, false, false]);
        drop(large);
        let _again = shares.take(Some("a"), 60).expect("not scarce any more");
    }
}
