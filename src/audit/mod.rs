//! What is told of decisions beside the request's path: the decision log, the recording, and the candidate that is asked about
//! some of them. Nothing here holds a decision up or changes it.

pub(crate) mod decision_log;
pub mod mask;
pub mod recording;
pub(crate) mod reopening_file;
pub(crate) mod summary;
pub mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::audit::decision_log::DecisionLog;
use crate::audit::mask::{FieldMask, MaskedField};
use crate::audit::recording::Recording;
use crate::audit::writer::{LineCounters, LineCounts};
use crate::authz::observer::{DecisionEvent, DecisionObserver, Observation};

/// What is written down, and where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditConfig {
    /// A line for each decision.
    pub log: Option<LogTarget>,
    /// What is masked in it.
    pub mask: Vec<MaskedField>,
    /// Whole requests.
    pub record: Option<recording::RecordingConfig>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// This program's own output.
    Stdout,
    /// A file, at the end of which they stand.
    File(PathBuf),
}

/// Nothing can be written there.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {target}: cannot be written to")]
pub struct OpenError {
    key: &'static str,
    target: String,
    source: std::io::Error,
}

/// The decision log and the recording.
#[derive(Default)]
pub struct Audit {
    writers: Arc<ArcSwap<Writers>>,
    mask: Arc<FieldMask>,
    /// Lines of all logs since the start.
    logged: Arc<LineCounters>,
    /// Entries of all recordings since the start.
    recorded: Arc<LineCounters>,
}

/// Where decisions are written down. It is open, so that they can be.
#[derive(Default)]
pub struct Writers {
    settings: AuditConfig,
    log: Option<Arc<DecisionLog>>,
    recording: Option<Arc<Recording>>,
}

impl Audit {
    /// Writes down from now on what these settings say, if it can be written there.
    pub fn write(&self, settings: AuditConfig) -> Result<(), OpenError> {
        self.take(self.open(settings)?);
        Ok(())
    }

    /// Opens what is to be written to, unless it is open already. Nothing changes before it is [taken](Self::take).
    pub fn open(&self, settings: AuditConfig) -> Result<Writers, OpenError> {
        let now = self.writers.load();
        let log = match &settings.log {
            same if *same == now.settings.log => now.log.clone(),
            None => None,
            Some(target) => {
                Some(Arc::new(DecisionLog::open(target, Arc::clone(&self.mask), Arc::clone(&self.logged))?))
            }
        };
        let recording = match &settings.record {
            same if *same == now.settings.record => now.recording.clone(),
            None => None,
            Some(recording) => Some(Arc::new(Recording::open(recording, Arc::clone(&self.recorded))?)),
        };
        Ok(Writers { settings, log, recording })
    }

    /// Writes there from now on. What was told before goes where it was to go.
    pub fn take(&self, writers: Writers) {
        self.mask.set(&writers.settings.mask);
        self.writers.store(Arc::new(writers));
    }

    /// How values are masked.
    #[must_use]
    pub fn mask(&self) -> Arc<FieldMask> {
        Arc::clone(&self.mask)
    }

    /// What became of the lines of the decision log.
    #[must_use]
    pub fn logged(&self) -> LineCounts {
        self.logged.counts()
    }

    /// What became of the decisions that were to be recorded.
    #[must_use]
    pub fn recorded(&self) -> LineCounts {
        self.recorded.counts()
    }

    /// Waits until what was told by now is written, or for so long.
    pub fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let writers = self.writers.load();
        if let Some(log) = &writers.log {
            log.flush(until);
        }
        if let Some(recording) = &writers.recording {
            recording.flush(until);
        }
    }
}

impl DecisionObserver for Audit {
    fn begin(&self) -> Option<Observation> {
        let recording = self.writers.load().recording.as_ref().filter(|recording| recording.wants()).map(Arc::clone)?;
        let writers = Arc::clone(&self.writers);
        Some(Box::new(move |event| {
            // A recording that was replaced during the decision takes no more entries.
            if writers.load().recording.as_ref().is_some_and(|now| Arc::ptr_eq(now, &recording)) {
                recording.record(event);
            }
        }))
    }

    fn decided(&self, event: &DecisionEvent<'_>) {
        if let Some(log) = &self.writers.load().log {
            log.push(event);
        }
    }
}

/// ms since 1970 as people and other programs read them.
fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
