//! A candidate: a policy that is asked beside the one in force, about a share of requests, after their answers and off their path.
//! What it says has no effect but in the counts.
//!
//! It meets the world as the policy in force met it: what that looked up is answered again, and what it did not cannot be answered.
//! So nothing is asked of the store twice, and nothing goes out.

mod counts;
mod sample;

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use super::component::Policy;
use super::decisions::Told;
use super::decisions::mask::{Field, Mask};
use super::decisions::said::Said;
use super::flip::{Flip, differences};
use super::rehearsal::Rehearsal;
use super::trace::Recorded;
use super::version::Basis;
use super::{Decision, Origin, Request};
use crate::stream::now_ms;
use counts::Counted;
pub use counts::Counts;

/// Disagreements that are kept, the latest.
const KEPT: usize = 64;
/// Behind everything else: a thread of this niceness gets what the others leave.
const NICENESS: i32 = 19;

/// One thread for all that candidates do, made when first needed: whatever they do to it, they do to each other.
static LANE: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("policy-shadow")
        .enable_time()
        .on_thread_start(|| {
            // Where that is forbidden it runs as all others do.
            let _ = rustix::process::nice(NICENESS);
        })
        .build()
});

/// Who is asked beside the policy in force: at most one.
pub struct Shadow {
    candidate: ArcSwapOption<Candidate>,
    /// Places in the pool of instances, of all candidates together: those before may not be done.
    places: Arc<Semaphore>,
}

impl Shadow {
    /// Nobody yet; so many decisions at once later, whoever is asked.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { candidate: ArcSwapOption::empty(), places: Arc::new(Semaphore::new(places)) }
    }

    /// Asks a candidate about a decision that was made.
    pub(super) fn consider(&self, candidate: Arc<Candidate>, told: Told<'_>) {
        candidate.consider(told, &self.places);
    }

    /// The candidate, if there is one.
    #[must_use]
    pub fn candidate(&self) -> Option<Arc<Candidate>> {
        self.candidate.load_full()
    }

    /// Asks this one from now on, in place of any other; none to ask nobody. Returns who was asked before.
    pub fn ask(&self, candidate: Option<Arc<Candidate>>) -> Option<Arc<Candidate>> {
        self.candidate.swap(candidate)
    }
}

/// About what a candidate is asked.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The share of clients, from 0 to 1.
    pub share: f64,
    /// Decisions at once; what comes meanwhile is not asked.
    pub concurrency: usize,
}

/// A policy that is asked without effect.
pub struct Candidate {
    rehearsal: Rehearsal,
    origin: Origin,
    since: u64,
    share: Share,
    mask: Arc<Mask>,
    slots: Arc<Semaphore>,
    counts: Counted,
    disagreements: Mutex<VecDeque<Disagreement>>,
}

/// What was decided otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Disagreement {
    /// When, ms since 1970.
    pub time: u64,
    /// As in the logs.
    pub request_id: String,
    /// The generation of the policy that decided.
    pub generation: Option<u64>,
    /// What was asked for.
    pub channels: Vec<String>,
    /// The kind.
    pub change: Flip,
    /// The fields of the answer that differ.
    pub changed_fields: Vec<&'static str>,
    /// The active policy's decision.
    pub active: Said,
    /// The shadow policy's decision.
    pub shadow: Said,
}

/// A candidate, as it is told of.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `sha256:…` of the component.
    pub digest: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// Asked since, ms since 1970.
    pub since: u64,
    /// The share of clients.
    pub share: f64,
    /// What came of it.
    pub counts: Counts,
    /// Some of what was decided otherwise, the latest first.
    pub disagreements: Vec<Disagreement>,
}

impl Candidate {
    /// A candidate from now on; `mask` is for what is told of it.
    #[must_use]
    pub fn new(policy: Policy, origin: Origin, share: Share, log_rate: u32, mask: Arc<Mask>) -> Self {
        Self {
            rehearsal: Rehearsal::new(policy, log_rate),
            origin,
            since: now_ms(),
            share,
            mask,
            slots: Arc::new(Semaphore::new(share.concurrency)),
            counts: Counted::default(),
            disagreements: Mutex::default(),
        }
    }

    /// What is asked.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        self.rehearsal.policy()
    }

    /// Asked since, ms since 1970.
    #[must_use]
    pub const fn since(&self) -> u64 {
        self.since
    }

    /// What came of it by now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.now()
    }

    /// Whether it is asked nothing at this moment.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.available_permits() == self.share.concurrency
    }

    /// All that is told of it.
    #[must_use]
    pub fn report(&self) -> Report {
        let disagreements = self.disagreements.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            digest: self.policy().digest().to_string(),
            origin: self.origin.clone(),
            since: self.since,
            share: self.share.share,
            counts: self.counts(),
            disagreements: disagreements.iter().rev().cloned().collect(),
        }
    }

    /// Asks it about a decision that was made, if that is of its share and there is a place.
    fn consider(self: Arc<Self>, told: Told<'_>, places: &Arc<Semaphore>) {
        if !sample::is_chosen(self.policy().digest(), self.share.share, told.request, &told.decision.outcome) {
            return;
        }
        if told.decision.cached {
            self.counts.cached();
            return;
        }
        // Without a trace no policy was asked.
        let (Some(trace), Some(basis)) = (told.trace, told.basis) else { return };
        let (slot, place) = (Arc::clone(&self.slots).try_acquire_owned(), Arc::clone(places).try_acquire_owned());
        let (Ok(slot), Ok(place), Ok(lane)) = (slot, place, LANE.as_ref()) else {
            self.counts.dropped();
            return;
        };
        let real = Real {
            time: told.time,
            request: told.request.clone(),
            channels: told.channels.to_vec(),
            decision: told.decision.clone(),
        };
        let (recorded, basis) = (Arc::new(Recorded::from(trace)), Arc::clone(basis));
        lane.spawn(async move {
            self.compare(real, &recorded, &basis).await;
            drop((slot, place));
        });
    }

    async fn compare(&self, real: Real, recorded: &Arc<Recorded>, basis: &Basis) {
        let Real { time, request, channels, decision } = real;
        let asked = self.rehearsal.ask(&basis.surroundings, &basis.limits, recorded, &request, &channels).await;
        if recorded.missed().count > 0 || recorded.wanted_network() {
            self.counts.incomparable();
            return;
        }
        let differs = differences(&decision, &asked, &channels);
        let flip = Flip::between(&decision.outcome, &asked.outcome, !differs.is_empty());
        self.counts.compared(flip);
        let Some(flip) = flip else { return };
        let disagreement = Disagreement {
            time,
            request_id: request.id,
            generation: decision.by.as_ref().map(|about| about.generation),
            channels: self.mask.all(Field::Channels, &channels),
            change: flip,
            changed_fields: differs,
            active: Said::new(&decision).masked(&self.mask),
            shadow: Said::new(&asked).masked(&self.mask),
        };
        let mut kept = self.disagreements.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(disagreement);
    }
}

/// What was asked and decided in earnest.
struct Real {
    time: u64,
    request: Request,
    channels: Vec<String>,
    decision: Decision,
}
