//! Connections by their holder, to find the one that makes room: the oldest of the address with most of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// What each holder has, by ids that ascend with time. Trusted proxies have nothing here.
#[derive(Debug)]
pub struct Holders<T> {
    by_network: HashMap<IpAddr, BTreeMap<u64, T>>,
    /// By the number of their parts; of holders with as many, the one with the oldest part comes last.
    by_count: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

impl<T> Default for Holders<T> {
    fn default() -> Self {
        Self { by_network: HashMap::new(), by_count: BTreeSet::new() }
    }
}

impl<T> Holders<T> {
    pub fn insert(&mut self, holder: Option<IpAddr>, id: u64, part: T) {
        self.change(holder, |parts| parts.insert(id, part));
    }

    pub fn remove(&mut self, holder: Option<IpAddr>, id: u64) -> Option<T> {
        self.change(holder, |parts| parts.remove(&id))
    }

    /// Removes the oldest part of the holder with most of them.
    pub fn pop_of_largest(&mut self) -> Option<T> {
        let (_, Reverse(oldest), network) = *self.by_count.last()?;
        self.remove(Some(network), oldest)
    }

    fn change(&mut self, holder: Option<IpAddr>, change: impl FnOnce(&mut BTreeMap<u64, T>) -> Option<T>) -> Option<T> {
        let network = holder?;
        let rank = |parts: &BTreeMap<u64, T>| {
            parts.first_key_value().map(|(oldest, _)| (parts.len(), Reverse(*oldest), network))
        };
        let parts = self.by_network.entry(network).or_default();
        if let Some(rank) = rank(parts) {
            self.by_count.remove(&rank);
        }
        let changed = change(parts);
        match rank(parts) {
            Some(rank) => drop(self.by_count.insert(rank)),
            None => drop(self.by_network.remove(&network)),
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_part_of_the_largest_holder_comes_first() {
        let mut holders = Holders::default();
        let network = |last| Some(IpAddr::from([192, 0, 2, last]));
        for (id, last) in [(1, 1), (2, 2), (3, 2), (4, 2), (5, 1), (6, 3)] {
            holders.insert(network(last), id, id);
        }
        holders.insert(None, 7, 7);
        assert_eq!((holders.remove(network(3), 6), holders.remove(network(3), 6)), (Some(6), None));
        let order: Vec<u64> = std::iter::from_fn(|| holders.pop_of_largest()).collect();
        assert_eq!(order, [2, 1, 3, 4, 5]);
        assert!(holders.by_network.is_empty() && holders.by_count.is_empty());
    }
}
