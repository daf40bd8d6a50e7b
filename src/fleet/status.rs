//! The status of the fleet: the active policy, the history, and the status of every node.

use serde::{Deserialize, Serialize};

use crate::artifact::signature::MAX_SEQUENCE;
use crate::fleet::node_status::{NodeStatus, live_nodes};
use crate::fleet::record::{ActiveRecord, active, history};
use crate::store::StoreError;
use crate::store::fleet::FleetStore;

/// The status of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// The active policy.
    pub current: Option<ActiveRecord>,
    /// The policies that were active, the latest first.
    pub history: Vec<ActiveRecord>,
    /// The live nodes.
    pub nodes: Vec<NodeStatus>,
    /// The sequence of the next push: greater than all above.
    pub next_sequence: u64,
}

/// Digits of a digest that are enough to name it.
const MIN_DIGEST_DIGITS: usize = 6;

/// There is no policy to roll back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFleetPolicy {
    /// No other policy was active before.
    #[error("no other policy was active before")]
    Before,
    /// The digest is too short.
    #[error(
        "{0:?} is too short for a digest: give at least {MIN_DIGEST_DIGITS} digits, or a sequence, as `tidegate policy list` shows them"
    )]
    TooShort(String),
    /// No policy of the history has that name.
    #[error("{0} is not in the history: `tidegate policy list` shows it")]
    Named(String),
}

impl FleetStatus {
    /// Reads the status from the store.
    pub async fn of(store: &dyn FleetStore) -> Result<Self, StoreError> {
        let (current, history, nodes) = (active(store).await?, history(store).await?, live_nodes(store).await?);
        let pushed = current.iter().chain(&history).map(|pointer| pointer.sequence);
        let known = pushed.chain(nodes.iter().filter_map(|node| node.sequence));
        let known = known.filter(|number| *number <= MAX_SEQUENCE).max().unwrap_or(0);
        Ok(Self { current, history, nodes, next_sequence: known.saturating_add(1) })
    }

    /// The policy of a sequence or of the beginning of a digest. Without either, the one before the active policy; if that is the result
    /// of a rollback, the one before its target: two rollbacks go two policies back.
    pub fn choose(&self, to: Option<&str>) -> Result<&ActiveRecord, NoFleetPolicy> {
        let Some(text) = to else {
            let now = self.current.as_ref().map(|now| (now.component, now.cases));
            let other = |pointer: &&ActiveRecord| now != Some((pointer.component, pointer.cases));
            return self.active_before().iter().find(other).ok_or(NoFleetPolicy::Before);
        };
        let number = text.parse::<u64>().ok();
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let by_number = self.history.iter().find(|pointer| Some(pointer.sequence) == number);
        let named =
            |pointer: &&ActiveRecord| digits.len() >= MIN_DIGEST_DIGITS && pointer.component.hex().starts_with(digits);
        let found = by_number.or_else(|| self.history.iter().find(named));
        found.ok_or_else(|| match number {
            None if digits.len() < MIN_DIGEST_DIGITS => NoFleetPolicy::TooShort(text.to_owned()),
            _ => NoFleetPolicy::Named(text.to_owned()),
        })
    }

    /// The history up to the active policy. A rollback continues at its target.
    fn active_before(&self) -> &[ActiveRecord] {
        let mut rest = &*self.history;
        while let Some(rollback_of) = rest.first().and_then(|first| first.rollback_of)
            && let Some(place) =
                rest.iter().position(|pointer| pointer.sequence == rollback_of).filter(|place| *place > 0)
        {
            rest = rest.get(place..).unwrap_or_default();
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::digest::Digest;
    use crate::fleet::record::PushId;

    #[test]
    fn what_is_meant_by_going_back() {
        let pointer = |sequence, component: &str| ActiveRecord {
            sequence,
            component: Digest::of(component.as_bytes()),
            cases: None,
            signature: None,
            pushed_at: 0,
            push_id: PushId::new(),
            rollback_of: None,
        };
        let history = vec![pointer(4, "b"), pointer(3, "b"), pointer(2, "a"), pointer(1, "c")];
        let view = FleetStatus { current: history.first().cloned(), history, nodes: Vec::new(), next_sequence: 5 };
        let chosen = |to: Option<&str>| view.choose(to).map(|pointer| pointer.sequence);
        assert_eq!(chosen(None), Ok(2), "the same again is not back");
        assert_eq!(chosen(Some("1")), Ok(1));
        let c = Digest::of(b"c");
        assert_eq!(chosen(Some(&c.to_string())), Ok(1));
        assert_eq!(chosen(Some(&c.hex()[..6])), Ok(1));
        for unknown in ["9", "0123456", "sha256:012345"] {
            assert_eq!(chosen(Some(unknown)), Err(NoFleetPolicy::Named(unknown.into())));
        }
        for short in ["a1b2c", "", "sha256:"] {
            assert_eq!(chosen(Some(short)), Err(NoFleetPolicy::TooShort(short.into())));
        }
        let back =
            |sequence, component: &str, to| ActiveRecord { rollback_of: Some(to), ..pointer(sequence, component) };
        for (history, expect) in [
            (vec![back(5, "b", 3), pointer(4, "c"), pointer(3, "b"), pointer(2, "a")], Ok(2)),
            // Twice back, and then once more.
            (
                vec![back(6, "a", 2), back(5, "b", 3), pointer(4, "c"), pointer(3, "b"), pointer(2, "a")],
                Err(NoFleetPolicy::Before),
            ),
            (vec![pointer(6, "d"), back(5, "b", 3), pointer(4, "c"), pointer(3, "b")], Ok(5)),
            // A way back to a way back.
            (
                vec![
                    back(7, "b", 5),
                    pointer(6, "d"),
                    back(5, "b", 3),
                    pointer(4, "c"),
                    pointer(3, "b"),
                    pointer(2, "a"),
                ],
                Ok(2),
            ),
            // What it went to is forgotten, or was never there.
            (vec![back(5, "b", 1), pointer(4, "c")], Ok(4)),
            (vec![back(5, "b", 5), pointer(4, "c")], Ok(4)),
        ] {
            let view = FleetStatus { current: history.first().cloned(), history, nodes: Vec::new(), next_sequence: 9 };
            assert_eq!(view.choose(None).map(|pointer| pointer.sequence), expect, "{view:?}");
        }
        let nothing = FleetStatus { current: None, history: Vec::new(), nodes: Vec::new(), next_sequence: 1 };
        assert_eq!(nothing.choose(None), Err(NoFleetPolicy::Before));
    }
}
