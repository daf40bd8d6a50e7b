//! The slots of a Redis Cluster: every key is in one of them, and every slot on one master.

use std::ops::RangeInclusive;

use crc16::{State, XMODEM};

/// The number of slots of every cluster.
pub const SLOTS: u16 = 16_384;

/// The slot of a key: of the text between its first `{` and the next `}`, unless that is empty or missing; else of the whole key.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let end = rest.iter().position(|byte| *byte == b'}').filter(|end| *end > 0)?;
        rest.get(..end)
    });
    State::<XMODEM>::calculate(tag.unwrap_or(key)) % SLOTS
}

/// A part of the keys of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyScope {
    All,
    /// The keys in these slots.
    Slots(Vec<RangeInclusive<u16>>),
}

impl KeyScope {
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Slots(ranges) => {
                let slot = slot_of(key.as_bytes());
                ranges.iter().any(|range| range.contains(&slot))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // What `CLUSTER KEYSLOT` of Redis 7.0.15 replies.
        let check = |key: &str, slot| assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        check("foo", 12_182);
        check("123456789", 12_739);
        check("", 0);
        check("{user1000}.following", 3_443);
        check("user1000", 3_443);
        check("foo{}{bar}", 8_363);
        check("foo{{bar}}zap", 4_015);
        check("foo{bar}{zap}", 5_061);
        check("bar", 5_061);
    }

    #[test]
    fn scope_contains_the_keys_of_its_slots() {
        let scope = KeyScope::Slots(vec![0..=10, 5_061..=5_061]);
        assert!(scope.contains("bar") && scope.contains("a{bar}") && !scope.contains("foo"));
        assert!(KeyScope::All.contains("foo") && !KeyScope::Slots(Vec::new()).contains("bar"));
    }
}
