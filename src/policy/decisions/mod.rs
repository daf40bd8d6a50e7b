//! What is told of decisions beside the request's path: the decision log, the recording, and the candidate that is asked about
//! some of them. Nothing here holds a decision up or changes it.

pub mod lines;
mod log;
pub mod mask;
mod named;
pub mod recording;
pub mod said;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::shadow::{Candidate, Shadow};
use super::trace::Trace;
use super::version::Basis;
use super::{Decision, Request};
use lines::Counts;
use log::DecisionLog;
use mask::{Field, Mask};
use recording::Recording;

/// What is written down, and where.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// A line for each decision.
    pub log: Option<Target>,
    /// What is masked in it.
    pub mask: Vec<Field>,
    /// Whole requests.
    pub record: Option<recording::Settings>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This program's own output.
    Stdout,
    /// A file, at the end of which they stand.
    File(PathBuf),
}

/// Nothing can be written there.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {target}: cannot be written to")]
pub struct CannotWrite {
    key: &'static str,
    target: String,
    source: std::io::Error,
}

/// Those who are told of decisions.
pub struct Beside {
    writers: OnceLock<Writers>,
    shadow: Shadow,
}

struct Writers {
    mask: Arc<Mask>,
    log: Option<DecisionLog>,
    recording: Option<Recording>,
}

/// What is wanted of a decision before it is made.
#[derive(Default)]
pub(super) struct Wants {
    record: bool,
    candidate: Option<Arc<Candidate>>,
}

impl Wants {
    /// Whether what the host answers is to be written down.
    pub fn trace(&self) -> bool {
        self.record || self.candidate.is_some()
    }
}

/// A decision that was made.
pub(super) struct Told<'a> {
    /// When, ms since 1970.
    pub time: u64,
    pub request: &'a Request,
    pub channels: &'a [String],
    pub decision: &'a Decision,
    /// What the host answered; none where no policy was asked.
    pub trace: Option<Trace>,
    /// What the policy had around it.
    pub basis: Option<&'a Arc<Basis>>,
}

impl Beside {
    /// Nobody yet; a candidate may have so many decisions at once.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { writers: OnceLock::new(), shadow: Shadow::new(places) }
    }

    /// Begins to write down what is told from now on. The first settings hold for the life of the process.
    pub fn write(&self, settings: Settings) -> Result<(), CannotWrite> {
        let mask = Arc::new(Mask::new(&settings.mask));
        let log = settings.log.map(|target| DecisionLog::open(target, Arc::clone(&mask))).transpose()?;
        let recording = settings.record.map(Recording::open).transpose()?;
        let _ = self.writers.set(Writers { mask, log, recording });
        Ok(())
    }

    /// The candidate, and who asks it.
    #[must_use]
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// How values are masked.
    #[must_use]
    pub fn mask(&self) -> Arc<Mask> {
        self.writers.get().map_or_else(Arc::default, |writers| Arc::clone(&writers.mask))
    }

    /// What became of the lines of the decision log, if there is one.
    #[must_use]
    pub fn logged(&self) -> Option<Counts> {
        Some(self.writers.get()?.log.as_ref()?.counts())
    }

    /// What became of the decisions that were to be recorded, if they are.
    #[must_use]
    pub fn recorded(&self) -> Option<Counts> {
        Some(self.writers.get()?.recording.as_ref()?.counts())
    }

    /// Waits until what was told by now is written, or for so long.
    pub fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        let Some(writers) = self.writers.get() else { return };
        if let Some(log) = &writers.log {
            log.flush(until);
        }
        if let Some(recording) = &writers.recording {
            recording.flush(until);
        }
    }

    pub(super) fn wants(&self) -> Wants {
        let recording = self.writers.get().and_then(|writers| writers.recording.as_ref());
        Wants { record: recording.is_some_and(Recording::wants), candidate: self.shadow.candidate() }
    }

    pub(super) fn tell(&self, wants: Wants, mut told: Told<'_>) {
        if let Some(writers) = self.writers.get() {
            if let Some(log) = &writers.log {
                log.push(&told);
            }
            if let Some(recording) = writers.recording.as_ref().filter(|_| wants.record) {
                let trace = if wants.candidate.is_some() { told.trace.clone() } else { told.trace.take() };
                recording.record(&told, trace);
            }
        }
        if let Some(candidate) = wants.candidate {
            self.shadow.consider(candidate, told);
        }
    }
}

/// ms since 1970 as people and other programs read them.
fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}
