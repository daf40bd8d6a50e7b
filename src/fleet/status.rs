//! The status of the fleet: the active policy, the history, and the status of every node.

use serde::{Deserialize, Serialize};

use crate::artifact::signature::key::TrustedKeys;
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
}

/// The greatest distance between a sequence that is proven and one that is only claimed, if the claim is to count. So a forged claim
/// cannot use up the sequences.
pub const MAX_UNPROVEN_STEP: u64 = 1_000;

/// A sequence that nothing proves: of a node, or of a record without a verified signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceClaim {
    /// Who claims it, for people.
    pub source: String,
    pub sequence: u64,
}

/// The sequence of the next push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextSequence {
    pub sequence: u64,
    /// The greatest claim that does not count, because it is too far above everything that is proven.
    pub ignored: Option<SequenceClaim>,
}

impl NextSequence {
    /// One more than the greatest of a proven sequence and the claims near it.
    pub fn after(proven: u64, claims: impl IntoIterator<Item = SequenceClaim>) -> Self {
        let limit = proven.saturating_add(MAX_UNPROVEN_STEP);
        let (near, far): (Vec<_>, Vec<_>) = claims.into_iter().partition(|claim| claim.sequence <= limit);
        let greatest = near.iter().map(|claim| claim.sequence).fold(proven, u64::max);
        let ignored = far.into_iter().max_by_key(|claim| claim.sequence);
        Self { sequence: greatest.saturating_add(1), ignored }
    }
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
        Ok(Self { current, history, nodes })
    }

    /// The sequence of the next push. It follows the records that these keys signed; what else records and nodes claim counts only near
    /// that. Without keys, for an unsigned policy, it follows the records as far as they follow each other.
    pub fn next_sequence(&self, keys: &TrustedKeys) -> NextSequence {
        let records = || self.current.iter().chain(&self.history);
        let proven = if keys.require_signatures() {
            records().filter_map(|record| record.prove(keys).ok()).map(|proof| proof.statement().sequence).max()
        } else {
            let mut sequences: Vec<u64> = records().map(|record| record.sequence).collect();
            sequences.sort_unstable();
            sequences.into_iter().reduce(|last, next| if next - last <= MAX_UNPROVEN_STEP { next } else { last })
        };
        let claim = |source, sequence| SequenceClaim { source, sequence };
        let recorded =
            records().map(|record| claim(format!("the record {}", record.push_id.as_str()), record.sequence));
        let reported =
            self.nodes.iter().filter_map(|node| Some(claim(format!("the node {}", node.name), node.sequence?)));
        NextSequence::after(proven.unwrap_or(0), recorded.chain(reported))
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
    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::artifact::digest::Digest;
    use crate::artifact::signature::{MAX_SEQUENCE, Statement};
    use crate::fleet::node_status::fixtures::test_status;
    use crate::fleet::record::fixtures::test_record;

    #[test]
    fn rollback_without_a_target_continues_before_the_target_of_the_last_one() {
        let record = |sequence, component: &str| test_record(sequence, component.as_bytes());
        let history = vec![record(4, "b"), record(3, "b"), record(2, "a"), record(1, "c")];
        let status = FleetStatus { current: history.first().cloned(), history, nodes: Vec::new() };
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
            let status = FleetStatus { current: history.first().cloned(), history, nodes: Vec::new() };
            assert_eq!(status.choose(None).map(|record| record.sequence), expect, "{status:?}");
        }
        let nothing = FleetStatus { current: None, history: Vec::new(), nodes: Vec::new() };
        assert_eq!(nothing.choose(None), Err(NoFleetPolicy::NoPrevious));
    }

    #[test]
    fn forged_sequences_do_not_use_up_the_sequences() {
        let [own, other] = [1, 2].map(|n| SigningKey::from_bytes(&[n; 32]));
        let keys = TrustedKeys::default().with(own.verifying_key());
        let signed = |sequence, key: &SigningKey| {
            let unsigned = test_record(sequence, b"policy");
            let signature = Statement::of(b"policy", None, sequence).sign(key);
            ActiveRecord { signature: Some(signature), ..unsigned }
        };
        let node = |sequence| NodeStatus { sequence: Some(sequence), ..test_status("a") };
        let next = |history: &[ActiveRecord], nodes: &[NodeStatus], keys: &TrustedKeys| {
            let (history, nodes) = (history.to_vec(), nodes.to_vec());
            let status = FleetStatus { current: history.first().cloned(), history, nodes };
            let NextSequence { sequence, ignored } = status.next_sequence(keys);
            (sequence, ignored.map(|claim| claim.sequence))
        };
        const HUGE: u64 = MAX_SEQUENCE - 1;
        let history = [signed(7, &own), signed(3, &own)];
        assert_eq!(next(&history, &[], &keys), (8, None));
        // A node may have activated a policy whose record the store lost.
        assert_eq!(next(&history, &[node(9)], &keys), (10, None));
        assert_eq!(next(&[], &[node(9)], &keys), (10, None));
        assert_eq!(next(&history, &[node(1_007)], &keys), (1_008, None));
        assert_eq!(next(&history, &[node(1_008)], &keys), (8, Some(1_008)));
        assert_eq!(next(&history, &[node(HUGE), node(8)], &keys), (9, Some(HUGE)));
        // Records that this key did not sign, or under another sequence, are claims too.
        let renamed = ActiveRecord { sequence: HUGE, ..signed(7, &own) };
        for forged in [signed(HUGE, &other), test_record(HUGE, b"policy"), renamed] {
            assert_eq!(next(&[forged, signed(7, &own)], &[], &keys), (8, Some(HUGE)));
        }
        assert_eq!(next(&[signed(HUGE, &own)], &[], &keys), (HUGE + 1, None));

        // Without signatures the records have to follow each other.
        let none = TrustedKeys::default();
        let unsigned = [5_002, 5_001, 4_999].map(|sequence| test_record(sequence, b"policy"));
        assert_eq!(next(&unsigned, &[], &none), (5_003, None));
        let forged = [&[test_record(HUGE, b"policy")], &unsigned[..]].concat();
        assert_eq!(next(&forged, &[node(HUGE + 1)], &none), (5_003, Some(HUGE + 1)));
        assert_eq!(next(&[], &[], &none), (1, None));
    }
}
