//! Which node is the master of each slot.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use redis::Value;

use crate::store::slot::SLOTS;

/// Maximum nodes of a map. Redis recommends at most 1,000.
pub(super) const MAX_NODES: usize = 4_096;

/// Where a node listens, as the nodes of the cluster name it or as the store's URL does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeAddress {
    pub host: Arc<str>,
    pub port: u16,
}

impl NodeAddress {
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Parses the address in a redirection, `host:port`. Without a host the node is on the same host as the one that replied.
    pub fn parse(text: &str, replied: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        Some(match host {
            "" | "?" => Self { host: Arc::clone(&replied.host), port },
            host => Self::new(host, port),
        })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The master of each slot, and all nodes that were named with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotMap {
    /// An index into `masters` for each slot; [`UNKNOWN`] if no master is known. Empty before the first reply of a node.
    slots: Vec<u16>,
    masters: Vec<NodeAddress>,
    /// Masters and replicas, with their ids.
    nodes: BTreeMap<NodeAddress, String>,
}

const UNKNOWN: u16 = u16::MAX;

impl SlotMap {
    /// Parses the reply to `CLUSTER SLOTS` of a node: `[first, last, [host, port, id, …], replica…]` for each range. `None` if it is not one.
    pub fn parse(reply: &Value, replied: &NodeAddress) -> Option<Self> {
        let mut map = Self::default();
        let Value::Array(ranges) = reply else { return None };
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), nodes @ ..] = &range[..] else { return None };
            let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
            if last >= SLOTS {
                return None;
            }
            for (at, node) in nodes.iter().enumerate() {
                let (address, id) = parse_node(node, replied)?;
                // A replica that has just joined may not have an address yet.
                let Some(address) = address else { continue };
                if map.nodes.len() < MAX_NODES {
                    map.nodes.insert(address.clone(), id);
                }
                if at == 0 {
                    map.set_masters(first..=last, &address);
                }
            }
        }
        Some(map)
    }

    pub fn master(&self, slot: u16) -> Option<&NodeAddress> {
        self.masters.get(usize::from(*self.slots.get(usize::from(slot))?))
    }

    pub fn set_master(&mut self, slot: u16, address: &NodeAddress) {
        self.set_masters(slot..=slot, address);
    }

    fn set_masters(&mut self, slots: RangeInclusive<u16>, address: &NodeAddress) {
        let index = match self.masters.iter().position(|known| known == address) {
            Some(index) => index,
            None if self.masters.len() >= MAX_NODES => return,
            None => {
                self.masters.push(address.clone());
                self.masters.len() - 1
            }
        };
        if self.slots.is_empty() {
            self.slots = vec![UNKNOWN; usize::from(SLOTS)];
        }
        let Ok(index) = u16::try_from(index) else { return };
        for slot in slots {
            if let Some(entry) = self.slots.get_mut(usize::from(slot)) {
                *entry = index;
            }
        }
    }

    /// A slot for which this map has no master keeps the one of an older map: that node knows best whether it still serves the slot.
    pub fn keep_masters_of(&mut self, older: &Self) {
        for slot in 0..SLOTS {
            if let (None, Some(master)) = (self.master(slot), older.master(slot)) {
                self.set_master(slot, master);
            }
        }
    }

    /// The slots that had another master in an older map.
    pub fn changes_since(&self, older: &Self) -> Vec<RangeInclusive<u16>> {
        ranges((0..SLOTS).filter(|slot| older.master(*slot).is_some_and(|before| self.master(*slot) != Some(before))))
    }

    pub fn slots_of(&self, address: &NodeAddress) -> Vec<RangeInclusive<u16>> {
        ranges((0..SLOTS).filter(|slot| self.master(*slot) == Some(address)))
    }

    /// The masters of at least one slot.
    pub fn masters(&self) -> Vec<NodeAddress> {
        let mut masters: Vec<_> = self.masters.iter().filter(|master| self.contains_master(master)).cloned().collect();
        masters.sort();
        masters
    }

    fn contains_master(&self, address: &NodeAddress) -> bool {
        let index = self.masters.iter().position(|known| known == address).and_then(|index| u16::try_from(index).ok());
        index.is_some_and(|index| self.slots.contains(&index))
    }

    /// The ids of all nodes that the cluster named.
    pub fn nodes(&self) -> &BTreeMap<NodeAddress, String> {
        &self.nodes
    }

    pub fn contains(&self, address: &NodeAddress) -> bool {
        self.nodes.contains_key(address) || self.contains_master(address)
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The number of slots without a known master.
    pub fn slots_without_master(&self) -> usize {
        (0..SLOTS).filter(|slot| self.master(*slot).is_none()).count()
    }
}

/// Parses a node of `CLUSTER SLOTS`. Its endpoint is null if it has the same host as the node that replied, and `?` or empty if it is unknown.
fn parse_node(node: &Value, replied: &NodeAddress) -> Option<(Option<NodeAddress>, String)> {
    let Value::Array(node) = node else { return None };
    let [host, Value::Int(port), rest @ ..] = &node[..] else { return None };
    let host = match host {
        Value::Nil => Some(&*replied.host),
        host => text(host).map(|host| if matches!(host, "" | "?") { &*replied.host } else { host }),
    }?;
    let id = rest.first().and_then(text).unwrap_or_default().to_owned();
    let port = u16::try_from(*port).ok()?;
    Some(((port > 0).then(|| NodeAddress::new(host, port)), id))
}

/// A text of a reply.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// Joins ascending slots to ranges.
fn ranges(slots: impl Iterator<Item = u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some(range) if range.end() + 1 == slot => *range = *range.start()..=slot,
            _ => ranges.push(slot..=slot),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Value, port: i64, id: &str) -> Value {
        Value::Array(vec![host, Value::Int(port), Value::BulkString(id.into()), Value::Array(Vec::new())])
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    fn at(port: u16) -> NodeAddress {
        NodeAddress::new("10.0.0.1", port)
    }

    fn map(ranges: &[(u16, u16, u16)]) -> SlotMap {
        let mut map = SlotMap::default();
        for (first, last, port) in ranges {
            map.set_masters(*first..=*last, &at(*port));
        }
        map
    }

    #[test]
    fn reply_of_a_node_names_masters_and_replicas() {
        let reply = Value::Array(vec![
            range(0, 99, vec![node(bulk("10.0.0.1"), 1, "a"), node(bulk("10.0.0.1"), 4, "d")]),
            range(100, 199, vec![node(Value::Nil, 2, "b")]),
            range(200, 16_383, vec![node(bulk("?"), 3, "c"), node(bulk("10.0.0.1"), 0, "e")]),
        ]);
        let parsed = SlotMap::parse(&reply, &NodeAddress::new("10.9.9.9", 7)).expect("a map");
        let other = |port| NodeAddress::new("10.9.9.9", port);
        assert_eq!(parsed.masters(), [at(1), other(2), other(3)]);
        assert_eq!(
            [parsed.master(99), parsed.master(100), parsed.master(16_383)],
            [Some(&at(1)), Some(&other(2)), Some(&other(3))]
        );
        assert_eq!(parsed.nodes().values().collect::<Vec<_>>(), ["a", "d", "b", "c"]);
        assert!(parsed.contains(&at(4)) && !parsed.contains(&at(2)));
        assert_eq!(parsed.slots_without_master(), 0);
    }

    #[test]
    fn reply_that_is_no_map_is_refused() {
        let whole = |nodes| Value::Array(vec![range(0, 16_383, nodes)]);
        for reply in [
            Value::Okay,
            Value::Array(vec![Value::Okay]),
            Value::Array(vec![range(0, 16_384, Vec::new())]),
            Value::Array(vec![range(-1, 5, Vec::new())]),
            whole(vec![Value::Nil]),
            whole(vec![node(Value::Int(5), 1, "a")]),
            whole(vec![node(bulk("10.0.0.1"), 65_536, "a")]),
        ] {
            assert_eq!(SlotMap::parse(&reply, &at(1)), None, "{reply:?}");
        }
        let empty = SlotMap::parse(&Value::Array(Vec::new()), &at(1)).expect("a cluster without slots");
        assert!(empty.is_empty() && empty.slots_without_master() == 16_384);
    }

    #[test]
    fn only_slots_with_another_master_count_as_changed() {
        let older = map(&[(0, 99, 1), (100, 199, 2)]);
        let mut newer = map(&[(0, 49, 1), (50, 99, 3), (100, 120, 4), (300, 400, 5)]);
        newer.keep_masters_of(&older);
        assert_eq!(newer.changes_since(&older), [50..=120]);
        assert_eq!(newer.master(150), Some(&at(2)), "a slot that the reply lacks keeps its master");
        assert!(newer.changes_since(&SlotMap::default()).is_empty());
        assert_eq!(newer.slots_of(&at(2)), [121..=199]);
    }

    #[test]
    fn number_of_masters_is_bounded() {
        let mut map = map(&[(0, 99, 1)]);
        for number in 0..2 * MAX_NODES {
            map.set_master(5, &NodeAddress::new(&format!("h{number}"), 1));
        }
        assert_eq!((map.masters.len(), map.master(6)), (MAX_NODES, Some(&at(1))));
    }

    #[test]
    fn address_of_a_redirection_may_lack_its_host() {
        let check = |text: &str, expect: Option<(&str, u16)>| {
            let parsed = NodeAddress::parse(text, &NodeAddress::new("here", 1));
            assert_eq!(parsed, expect.map(|(host, port)| NodeAddress::new(host, port)), "{text}");
        };
        check("10.0.0.1:6381", Some(("10.0.0.1", 6381)));
        check("::1:6381", Some(("::1", 6381)));
        check("redis.example:6381", Some(("redis.example", 6381)));
        check(":6381", Some(("here", 6381)));
        check("?:6381", Some(("here", 6381)));
        check("10.0.0.1", None);
        check("10.0.0.1:0", None);
        check("10.0.0.1:99999", None);
        assert_eq!(NodeAddress::new("::1", 6381).to_string(), "[::1]:6381");
    }
}
