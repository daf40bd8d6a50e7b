//! The greatest sequence number that was in force here, over restarts.

use std::path::{Path, PathBuf};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::artifact::digest::Digest;
use crate::artifact::signature::{SignatureError, Statement};
use crate::util::files;

/// Bytes of the file; it has some 200.
const MAX_SIZE: u64 = 4 << 10;

/// What was in force under the greatest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The number.
    pub sequence: u64,
    /// The component.
    pub component: Digest,
    /// Its cases.
    pub cases: Option<Digest>,
}

/// What is kept of it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}; it says how far sequence numbers went, so that no older policy comes back")]
pub struct LedgerError {
    file: String,
    what: String,
}

/// Remembers it, in this process and in a file if there is one.
#[derive(Debug, Default)]
pub struct SequenceLedger {
    file: Option<PathBuf>,
    mark: Mutex<Option<LedgerEntry>>,
}

impl SequenceLedger {
    /// In this file. One that is there and cannot be read is an error: to forget it would let older policies in.
    pub fn in_file(file: &Path) -> Result<Self, LedgerError> {
        let failed = |what: String| LedgerError { file: file.display().to_string(), what };
        let text = files::read_private(file, MAX_SIZE).map_err(|error| failed(format!("cannot be read: {error}")))?;
        let parse = |text: Vec<u8>| serde_json::from_slice(&text);
        let mark =
            text.map(parse).transpose().map_err(|error| failed(format!("is not what was written there: {error}")))?;
        Ok(Self { file: Some(file.into()), mark: Mutex::new(mark) })
    }

    fn mark(&self) -> MutexGuard<'_, Option<LedgerEntry>> {
        self.mark.lock()
    }

    /// The greatest number that was in force.
    #[must_use]
    pub fn sequence(&self) -> Option<u64> {
        self.mark().map(|mark| mark.sequence)
    }

    /// Whether a policy may take force behind what was in force: a greater number, or the very same policy again.
    pub fn check(&self, statement: &Statement) -> Result<(), SignatureError> {
        check(self.mark().as_ref(), statement)
    }

    /// A policy takes force. It is remembered before that, or it does not.
    pub fn raise(&self, statement: &Statement) -> Result<(), SignatureError> {
        let mut mark = self.mark();
        check(mark.as_ref(), statement)?;
        let Statement { component, cases, sequence } = *statement;
        let new = LedgerEntry { sequence, component, cases };
        if *mark == Some(new) {
            return Ok(());
        }
        if let Some(file) = &self.file {
            let failed = |what: String| LedgerError {
                file: file.display().to_string(),
                what: format!("cannot be written: {what}"),
            };
            let text = serde_json::to_vec(&new).map_err(|error| failed(error.to_string()))?;
            files::write_private(file, &text).map_err(|error| failed(error.to_string()))?;
        }
        *mark = Some(new);
        Ok(())
    }
}

fn check(mark: Option<&LedgerEntry>, statement: &Statement) -> Result<(), SignatureError> {
    let Some(mark) = mark else { return Ok(()) };
    let Statement { component, cases, sequence } = *statement;
    if sequence < mark.sequence {
        return Err(SignatureError::Backwards { sequence, seen: mark.sequence });
    }
    if sequence == mark.sequence && (component, cases) != (mark.component, mark.cases) {
        return Err(SignatureError::Reused(sequence));
    }
    Ok(())
}
