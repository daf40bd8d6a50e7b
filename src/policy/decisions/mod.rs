//! What is told of decisions beside the request's path: the decision log, the recording, and the candidate that is asked about
//! some of them. Nothing here holds a decision up or changes it.

pub mod lines;
mod log;
pub mod mask;
mod named;
pub mod recording;
pub mod said;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwap;

use super::shadow::{Candidate, Shadow};
use super::trace::Trace;
use super::version::Basis;
use super::{Decision, Request};
use lines::{Counts, Tally};
use log::DecisionLog;
use mask::{Field, Mask};
use recording::Recording;

/// What is written down, and where.
#[derive(Clone, Debug, Default, PartialEq)]
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
    writers: ArcSwap<Writers>,
    mask: Arc<Mask>,
    /// Of all logs and all recordings since the start.
    logged: Arc<Tally>,
    recorded: Arc<Tally>,
    shadow: Shadow,
}

/// Where decisions are written down. It is open, so that they can be.
#[derive(Default)]
pub struct Writers {
    settings: Settings,
    log: Option<Arc<DecisionLog>>,
    recording: Option<Arc<Recording>>,
}

/// What is wanted of a decision before it is made.
#[derive(Default)]
pub(super) struct Wants {
    record: Option<Arc<Recording>>,
    candidate: Option<Arc<Candidate>>,
}

impl Wants {
    /// Whether what the host answers is to be written down.
    pub fn trace(&self) -> bool {
        self.record.is_some() || self.candidate.is_some()
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
        let (writers, mask, logged, recorded) = Default::default();
        Self { writers, mask, logged, recorded, shadow: Shadow::new(places) }
    }

    /// Writes down from now on what these settings say, if it can be written there.
    pub fn write(&self, settings: Settings) -> Result<(), CannotWrite> {
        self.take(self.open(settings)?);
        Ok(())
    }

    /// Opens what is to be written to, unless it is open already. Nothing changes before it is [taken](Self::take).
    pub fn open(&self, settings: Settings) -> Result<Writers, CannotWrite> {
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

    /// The candidate, and who asks it.
    #[must_use]
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// How values are masked.
    #[must_use]
    pub fn mask(&self) -> Arc<Mask> {
        Arc::clone(&self.mask)
    }

    /// What became of the lines of the decision log.
    #[must_use]
    pub fn logged(&self) -> Counts {
        self.logged.counts()
    }

    /// What became of the decisions that were to be recorded.
    #[must_use]
    pub fn recorded(&self) -> Counts {
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

    pub(super) fn wants(&self) -> Wants {
        let record = self.writers.load().recording.as_ref().filter(|recording| recording.wants()).map(Arc::clone);
        Wants { record, candidate: self.shadow.candidate() }
    }

    pub(super) fn tell(&self, wants: Wants, mut told: Told<'_>) {
        let writers = self.writers.load();
        if let Some(log) = &writers.log {
            log.push(&told);
        }
        // One that has ended meanwhile records nothing more.
        let goes_on =
            |recording: &Arc<Recording>| writers.recording.as_ref().is_some_and(|now| Arc::ptr_eq(now, recording));
        if let Some(recording) = wants.record.filter(goes_on) {
            let trace = if wants.candidate.is_some() { told.trace.clone() } else { told.trace.take() };
            recording.record(&told, trace);
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
