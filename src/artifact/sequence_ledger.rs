//! Signature checks of one node: the trusted keys, and the greatest sequence that was active on the node, also before restarts.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::artifact::digest::Digest;
use crate::artifact::policy_store::NodeRecords;
use crate::artifact::signature::key::TrustedKeys;
use crate::artifact::signature::{Signature, SignatureError, Statement};

/// The name of the node's record. It is separate from the rollback history, without which a node can start.
const RECORD: &str = "sequence";

/// What a gateway requires of a policy's signature.
#[derive(Clone, Debug, Default)]
pub struct SignaturePolicy {
    /// The keys that may sign.
    pub trusted_keys: Arc<TrustedKeys>,
    /// The greatest sequence that was active.
    pub ledger: Arc<SequenceLedger>,
}

impl SignaturePolicy {
    /// Requires signatures of these keys. With keys, the ledger is stored in the node's records, if there are any.
    pub fn open(trusted_keys: &Arc<TrustedKeys>, records: Option<NodeRecords>) -> Result<Self, SignatureError> {
        let ledger = match records {
            Some(records) if trusted_keys.require_signatures() => SequenceLedger::open(records)?,
            _ => SequenceLedger::default(),
        };
        Ok(Self { trusted_keys: Arc::clone(trusted_keys), ledger: Arc::new(ledger) })
    }

    /// Checks that a policy may be activated. Returns the signed statement, if a signature is required.
    pub fn verify(
        &self,
        component: Digest,
        cases: Option<&str>,
        signature: Option<&Signature>,
    ) -> Result<Option<Statement>, SignatureError> {
        let statement = self.trusted_keys.verify(component, cases, signature)?;
        if let Some(statement) = &statement {
            self.ledger.check(statement)?;
        }
        Ok(statement)
    }
}

/// The statement with the greatest sequence that was active on this node. No policy with a smaller sequence is activated after it, and
/// no other policy with the same sequence.
#[derive(Debug, Default)]
pub struct SequenceLedger {
    records: Option<NodeRecords>,
    last: Mutex<Option<Statement>>,
}

impl SequenceLedger {
    /// Reads the ledger. One that cannot be read is an error, because without it older policies would be accepted.
    pub fn open(records: NodeRecords) -> Result<Self, SignatureError> {
        let last = records.read(RECORD).map_err(|error| SignatureError::Ledger(error.to_string()))?;
        Ok(Self { records: Some(records), last: Mutex::new(last) })
    }

    /// Checks that a policy may follow the last one: its sequence is greater, or it is the same policy.
    pub fn check(&self, statement: &Statement) -> Result<(), SignatureError> {
        check(self.last.lock().as_ref(), statement)
    }

    /// Records a policy that is about to be activated. When this returns `Ok`, the record is on disk; after an error the policy must not
    /// be activated.
    pub fn record(&self, statement: &Statement) -> Result<(), SignatureError> {
        let mut last = self.last.lock();
        check(last.as_ref(), statement)?;
        if *last == Some(*statement) {
            return Ok(());
        }
        if let Some(records) = &self.records {
            records.write(RECORD, statement).map_err(|error| SignatureError::Ledger(error.to_string()))?;
        }
        *last = Some(*statement);
        Ok(())
    }
}

fn check(last: Option<&Statement>, statement: &Statement) -> Result<(), SignatureError> {
    let Some(last) = last else { return Ok(()) };
    if statement.sequence < last.sequence {
        return Err(SignatureError::SequenceNotIncreasing { sequence: statement.sequence, recorded: last.sequence });
    }
    if statement.sequence == last.sequence && statement != last {
        return Err(SignatureError::SequenceReused(statement.sequence));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::policy_store::PolicyStore;

    #[test]
    fn sequences_only_increase_also_over_restarts() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || SequenceLedger::open(PolicyStore::new(dir.path()).node("own"));
        let statement = |sequence| Statement::of(b"policy", None, sequence);
        let ledger = open().expect("nothing yet");
        assert_eq!(*ledger.last.lock(), None);
        assert_eq!(ledger.check(&statement(1)), Ok(()));
        ledger.record(&statement(5)).expect("written");
        for ledger in [ledger, open().expect("read")] {
            assert_eq!(ledger.last.lock().map(|last| last.sequence), Some(5));
            assert_eq!(
                ledger.check(&statement(4)),
                Err(SignatureError::SequenceNotIncreasing { sequence: 4, recorded: 5 })
            );
            assert_eq!(
                ledger.record(&statement(4)),
                Err(SignatureError::SequenceNotIncreasing { sequence: 4, recorded: 5 })
            );
            assert_eq!(ledger.check(&Statement::of(b"other", None, 5)), Err(SignatureError::SequenceReused(5)));
            assert_eq!(ledger.check(&Statement::of(b"policy", Some(""), 5)), Err(SignatureError::SequenceReused(5)));
            // A restart activates the same policy again; a newer one may follow.
            assert_eq!(ledger.check(&statement(5)), Ok(()));
            assert_eq!(ledger.check(&statement(6)), Ok(()));
        }
        // A damaged ledger is not an empty one.
        std::fs::write(dir.path().join("nodes/own.sequence.json"), "{").expect("written");
        assert!(open().expect_err("broken").to_string().contains("sequence.json"));
    }

    #[test]
    fn sequence_that_cannot_be_written_is_not_recorded() {
        let dir = tempfile::tempdir().expect("a directory");
        let ledger = SequenceLedger::open(PolicyStore::new(dir.path()).node("own")).expect("nothing yet");
        std::fs::write(dir.path().join("nodes"), "a file in the way").expect("written");
        assert!(ledger.record(&Statement::of(b"policy", None, 1)).is_err());
        assert_eq!(*ledger.last.lock(), None);
    }
}
