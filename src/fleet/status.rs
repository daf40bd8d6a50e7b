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
    /// The active record.
    pub current: Option<ActiveRecord>,
    /// The policies that were active, the latest first.
    pub history: Vec<ActiveRecord>,
    /// The live nodes.
    pub nodes: Vec<NodeStatus>,
    /// The sequence of the next push: greater than every sequence of the records and the nodes.
    pub next_sequence: u64,
}

/// Shortest beginning of a digest that selects a policy, in hexadecimal digits.
const MIN_DIGEST_DIGITS: usize = 6;

/// There is no policy to roll back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFleetPolicy {
    #[error("no other policy was active before")]
    NoPrevious,
    #[error(
        "{0:?} is too short for a digest: give at least {MIN_DIGEST_DIGITS} digits, or a sequence, as `tidegate policy list` shows them"
    )]
    TooShort(String),
    #[error("{0} is not in the history: `tidegate policy list` shows it")]
    Unknown(String),
}

impl FleetStatus {
    /// Reads the status from the store.
    pub async fn of(store: &dyn FleetStore) -> Result<Self, StoreError> {
        let (current, history, nodes) = (active(store).await?, history(store).await?, live_nodes(store).await?);
        let pushed = current.iter().chain(&history).map(|record| record.sequence);
        let known = pushed.chain(nodes.iter().filter_map(|node| node.sequence));
        let known = known.filter(|number| *number <= MAX_SEQUENCE).max().unwrap_or(0);
        Ok(Self { current, history, nodes, next_sequence: known.saturating_add(1) })
    }

    /// The policy of a sequence or of the beginning of a digest. Without either, the one before the active policy; if that is the result
    /// of a rollback, the one before its target: two rollbacks go two policies back.
    pub fn choose(&self, to: Option<&str>) -> Result<&ActiveRecord, NoFleetPolicy> {
        let Some(text) = to else {
            let active = self.current.as_ref().map(ActiveRecord::blobs);
            let is_other = |record: &&ActiveRecord| active != Some(record.blobs());
            return self.active_before().iter().find(is_other).ok_or(NoFleetPolicy::NoPrevious);
        };
        let sequence = text.parse::<u64>().ok();
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let is_digest = digits.len() >= MIN_DIGEST_DIGITS;
        let of_sequence = self.history.iter().find(|record| Some(record.sequence) == sequence);
        let of_digest = |record: &&ActiveRecord| is_digest && record.component.hex().starts_with(digits);
        of_sequence.or_else(|| self.history.iter().find(of_digest)).ok_or_else(|| match sequence {
            None if !is_digest => NoFleetPolicy::TooShort(text.to_owned()),
            _ => NoFleetPolicy::Unknown(text.to_owned()),
        })
    }

    /// The history up to the active policy. A rollback continues at its target.
    fn active_before(&self) -> &[ActiveRecord] {
        let mut rest = &*self.history;
        while let Some(rollback_of) = rest.first().and_then(|first| first.rollback_of)
            && let Some(before) = rest.iter().skip(1).position(|record| record.sequence == rollback_of)
        {
            rest = rest.get(before + 1..).unwrap_or_default();
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::digest::Digest;
    use crate::fleet::record::fixtures::test_record;

    #[test]
    fn rollback_without_a_target_continues_before_the_target_of_the_last_one() {
        let record = |sequence, component: &str| test_record(sequence, component.as_bytes());
        let history = vec![record(4, "b"), record(3, "b"), record(2, "a"), record(1, "c")];
        let status = FleetStatus { current: history.first().cloned(), history, nodes: Vec::new(), next_sequence: 5 };
        let chosen = |to: Option<&str>| status.choose(to).map(|record| record.sequence);
        assert_eq!(chosen(None), Ok(2), "the same policy again is not the previous one");
        assert_eq!(chosen(Some("1")), Ok(1));
        let c = Digest::of(b"c");
        assert_eq!(chosen(Some(&c.to_string())), Ok(1));
        assert_eq!(chosen(Some(&c.hex()[..6])), Ok(1));
        for unknown in ["9", "0123456", "sha256:012345"] {
            assert_eq!(chosen(Some(unknown)), Err(NoFleetPolicy::Unknown(unknown.into())));
        }
        for short in ["a1b2c", "", "sha256:"] {
            assert_eq!(chosen(Some(short)), Err(NoFleetPolicy::TooShort(short.into())));
        }
        let rollback =
            |sequence, component: &str, to| ActiveRecord { rollback_of: Some(to), ..record(sequence, component) };
        for (history, expect) in [
            (vec![rollback(5, "b", 3), record(4, "c"), record(3, "b"), record(2, "a")], Ok(2)),
            // Two rollbacks, and then a third.
            (
                vec![rollback(6, "a", 2), rollback(5, "b", 3), record(4, "c"), record(3, "b"), record(2, "a")],
                Err(NoFleetPolicy::NoPrevious),
            ),
            (vec![record(6, "d"), rollback(5, "b", 3), record(4, "c"), record(3, "b")], Ok(5)),
            // A rollback to the result of a rollback.
            (
                vec![
                    rollback(7, "b", 5),
                    record(6, "d"),
                    rollback(5, "b", 3),
                    record(4, "c"),
                    record(3, "b"),
                    record(2, "a"),
                ],
                Ok(2),
            ),
            // The target is not in the history any more, or never was.
            (vec![rollback(5, "b", 1), record(4, "c")], Ok(4)),
            (vec![rollback(5, "b", 5), record(4, "c")], Ok(4)),
        ] {
            let status =
                FleetStatus { current: history.first().cloned(), history, nodes: Vec::new(), next_sequence: 9 };
            assert_eq!(status.choose(None).map(|record| record.sequence), expect, "{status:?}");
        }
        let nothing = FleetStatus { current: None, history: Vec::new(), nodes: Vec::new(), next_sequence: 1 };
        assert_eq!(nothing.choose(None), Err(NoFleetPolicy::NoPrevious));
    }
}
