//! The decision log and the recording. Both observe decisions; they neither delay nor change them.

pub(crate) mod decision_log;
pub mod mask;
pub mod recording;
pub(crate) mod reopening_file;
pub(crate) mod summary;
pub mod writer;

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::Serializer;

use crate::audit::decision_log::DecisionLog;
use crate::audit::mask::{FieldMask, MaskedField};
use crate::audit::recording::Recording;
use crate::audit::writer::{LineCounters, LineCounts};
use crate::authz::observer::{DecisionEvent, DecisionObserver, Observation};

/// The configuration of the decision log and the recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuditConfig {
    /// The decision log.
    pub log: Option<LogTarget>,
    /// Fields that the decision log masks.
    pub masked_fields: Vec<MaskedField>,
    pub recording: Option<recording::RecordingConfig>,
}

/// Where the decision log is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stdout,
    /// Lines are appended to this file.
    File(PathBuf),
}

/// A log or a recording that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot open {target} for writing")]
pub struct OpenError {
    key: &'static str,
    target: String,
    source: std::io::Error,
}

/// The decision log and the recording.
#[derive(Default)]
pub struct Audit {
    writers: Arc<ArcSwap<AuditWriters>>,
    mask: Arc<FieldMask>,
    /// Lines of the decision log since the start of the process.
    log_counters: Arc<LineCounters>,
    /// Lines of the recording since the start of the process.
    recording_counters: Arc<LineCounters>,
}

/// The open files of a configuration.
#[derive(Default)]
pub struct AuditWriters {
    config: AuditConfig,
    log: Option<Arc<DecisionLog>>,
    recording: Option<Arc<Recording>>,
}

impl Audit {
    /// Opens and installs the writers of a configuration.
    pub fn configure(&self, config: AuditConfig) -> Result<(), OpenError> {
        self.install(self.open(config)?);
        Ok(())
    }

    /// Opens the files of a configuration, except those that are open already. They are not used before [`install`](Self::install).
    pub fn open(&self, config: AuditConfig) -> Result<AuditWriters, OpenError> {
        let current = self.writers.load();
        let log = match &config.log {
            log if *log == current.config.log => current.log.clone(),
            None => None,
            Some(target) => Some(Arc::new(DecisionLog::open(target, &self.mask, &self.log_counters)?)),
        };
        let recording = match &config.recording {
            recording if *recording == current.config.recording => current.recording.clone(),
            None => None,
            Some(recording) => Some(Arc::new(Recording::open(recording, &self.recording_counters)?)),
        };
        Ok(AuditWriters { config, log, recording })
    }

    /// Replaces the writers. Lines that are queued still go to the previous ones.
    pub fn install(&self, writers: AuditWriters) {
        self.mask.set(&writers.config.masked_fields);
        self.writers.store(Arc::new(writers));
    }

    pub fn mask(&self) -> Arc<FieldMask> {
        Arc::clone(&self.mask)
    }

    pub fn log_counts(&self) -> LineCounts {
        self.log_counters.counts()
    }

    pub fn recording_counts(&self) -> LineCounts {
        self.recording_counters.counts()
    }

    /// Waits until all queued lines are written, at most for `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let writers = self.writers.load();
        if let Some(log) = &writers.log {
            log.lines.flush(deadline);
        }
        if let Some(recording) = &writers.recording {
            recording.lines.flush(deadline);
        }
    }
}

impl DecisionObserver for Audit {
    fn begin(&self) -> Option<Observation> {
        let recording =
            self.writers.load().recording.as_ref().filter(|recording| recording.samples()).map(Arc::clone)?;
        let writers = Arc::clone(&self.writers);
        Some(Box::new(move |event| {
            // A recording that was replaced during the decision takes no more entries.
            if writers.load().recording.as_ref().is_some_and(|current| Arc::ptr_eq(current, &recording)) {
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

/// Formats milliseconds since the Unix epoch.
fn rfc3339(ms: u64) -> impl Display {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms))
}

fn serialize_rfc3339<S: Serializer>(ms: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&rfc3339(*ms))
}
