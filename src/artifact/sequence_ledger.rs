//! The greatest sequence that was active on this node, kept over restarts.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::artifact::digest::Digest;
use crate::artifact::signature::{SignatureError, Statement};
use crate::util::files;

/// Bytes of the ledger file, which has some 200.
const MAX_FILE_BYTES: u64 = 4 << 10;

/// The policy with the greatest sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    pub sequence: u64,
    pub component: Digest,
    pub cases: Option<Digest>,
}

/// The ledger file cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}; this file records the greatest sequence number that was active, to refuse older policies")]
pub struct LedgerError {
    file: String,
    reason: String,
}

/// Prevents a rollback to an older signed policy. Without a file, it forgets its entry at a restart.
#[derive(Debug, Default)]
pub struct SequenceLedger {
    file: Option<PathBuf>,
    latest: Mutex<Option<LedgerEntry>>,
}

impl SequenceLedger {
    /// Opens a ledger file. A file that exists and cannot be read is an error, because an empty ledger would accept older policies.
    pub fn open(file: &Path) -> Result<Self, LedgerError> {
        let failed = |reason: String| LedgerError { file: file.display().to_string(), reason };
        let text =
            files::read_private(file, MAX_FILE_BYTES).map_err(|error| failed(format!("cannot be read: {error}")))?;
        let parse = |text: Vec<u8>| serde_json::from_slice(&text);
        let latest = text.map(parse).transpose().map_err(|error| failed(format!("is damaged: {error}")))?;
        Ok(Self { file: Some(file.into()), latest: Mutex::new(latest) })
    }

    #[cfg(test)]
    pub fn sequence(&self) -> Option<u64> {
        self.latest.lock().map(|entry| entry.sequence)
    }

    /// Whether a policy may become active: its sequence is greater than the recorded one, or it is the recorded policy itself.
    pub fn check(&self, statement: &Statement) -> Result<(), SignatureError> {
        check(self.latest.lock().as_ref(), statement)
    }

    /// Records a policy before it becomes active. If that fails, the policy must not become active.
    pub fn record(&self, statement: &Statement) -> Result<(), SignatureError> {
        let mut latest = self.latest.lock();
        check(latest.as_ref(), statement)?;
        let Statement { component, cases, sequence } = *statement;
        let entry = LedgerEntry { sequence, component, cases };
        if *latest == Some(entry) {
            return Ok(());
        }
        if let Some(file) = &self.file {
            let failed = |error: String| LedgerError {
                file: file.display().to_string(),
                reason: format!("cannot be written: {error}"),
            };
            let text = serde_json::to_vec(&entry).map_err(|error| failed(error.to_string()))?;
            files::write_private(file, &text).map_err(|error| failed(error.to_string()))?;
        }
        *latest = Some(entry);
        Ok(())
    }
}

fn check(latest: Option<&LedgerEntry>, statement: &Statement) -> Result<(), SignatureError> {
    let Some(latest) = latest else { return Ok(()) };
    let Statement { component, cases, sequence } = *statement;
    if sequence < latest.sequence {
        return Err(SignatureError::SequenceNotIncreasing { sequence, recorded: latest.sequence });
    }
    if sequence == latest.sequence && (component, cases) != (latest.component, latest.cases) {
        return Err(SignatureError::SequenceReused(sequence));
    }
    Ok(())
}
