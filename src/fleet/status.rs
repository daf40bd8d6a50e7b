//! The fleet as it stands: what is in force, what was, and every node's word.

use serde::{Deserialize, Serialize};

use crate::artifact::signature::MAX_SEQUENCE;
use crate::fleet::node_status::{NodeStatus, nodes};
use crate::fleet::record::{ActiveRecord, current, history};
use crate::store::StoreError;
use crate::store::fleet::FleetStore;

/// The fleet, to one who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// What was pushed and flipped last.
    pub current: Option<ActiveRecord>,
    /// What was in force, the latest first.
    pub history: Vec<ActiveRecord>,
    /// Those that live.
    pub nodes: Vec<NodeStatus>,
    /// A number that is greater than all of these know.
    pub next_sequence: u64,
}

/// Digits of a digest that name it.
const FEWEST: usize = 6;

/// There is nothing to go back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFleetPolicy {
    /// Not before what is in force.
    #[error("nothing else was in force before")]
    Before,
    /// By too little of a name.
    #[error(
        "{0:?} is too little of a digest: {FEWEST} digits at least, or a number, as `tidegate policy list` shows them"
    )]
    TooShort(String),
    /// Not by that name.
    #[error("{0} was not in force, as far as is remembered: `tidegate policy list` shows what was")]
    Named(String),
}

impl FleetStatus {
    /// Asks the store.
    pub async fn of(store: &dyn FleetStore) -> Result<Self, StoreError> {
        let (current, history, nodes) = (current(store).await?, history(store).await?, nodes(store).await?);
        let pushed = current.iter().chain(&history).map(|pointer| pointer.sequence);
        let known = pushed.chain(nodes.iter().filter_map(|node| node.sequence));
        let known = known.filter(|number| *number <= MAX_SEQUENCE).max().unwrap_or(0);
        Ok(Self { current, history, nodes, next_sequence: known.saturating_add(1) })
    }

    /// What is meant by a number or the beginning of a digest; without either, the latest before what is in force, which is
    /// before what came back where that is a way back. So going back twice is two back, and not where one came from.
    pub fn choose(&self, to: Option<&str>) -> Result<&ActiveRecord, NoFleetPolicy> {
        let Some(text) = to else {
            let now = self.current.as_ref().map(|now| (now.component, now.cases));
            let other = |pointer: &&ActiveRecord| now != Some((pointer.component, pointer.cases));
            return self.behind().iter().find(other).ok_or(NoFleetPolicy::Before);
        };
        let number = text.parse::<u64>().ok();
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let by_number = self.history.iter().find(|pointer| Some(pointer.sequence) == number);
        let named = |pointer: &&ActiveRecord| digits.len() >= FEWEST && pointer.component.hex().starts_with(digits);
        let found = by_number.or_else(|| self.history.iter().find(named));
        found.ok_or_else(|| match number {
            None if digits.len() < FEWEST => NoFleetPolicy::TooShort(text.to_owned()),
            _ => NoFleetPolicy::Named(text.to_owned()),
        })
    }

    /// What was in force up to what is in force now, as far as is remembered; each way back leads to where it went.
    fn behind(&self) -> &[ActiveRecord] {
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
