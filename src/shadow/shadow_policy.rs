//! A candidate: a policy that is asked beside the one in force, about a share of requests, after their answers and off their path.
//! What it says has no effect but in the counts.
//!
//! It meets the world as the policy in force met it: what that looked up is answered again, and what it did not cannot be answered.
//! So nothing is asked of the store twice, and nothing goes out.

use crate::shadow::counts::ShadowCounts;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use crate::audit::mask::{FieldMask, MaskedField};
use crate::audit::summary::DecisionSummary;
use crate::authz::observer::{DecisionEvent, DecisionObserver, Observation};
use crate::policy::info::PolicyOrigin;
use crate::policy::{Decision, Request};
use crate::shadow::counts::ShadowCounters;
use crate::shadow::decision_change::{DecisionChange, differences};
use crate::shadow::replay::ReplayEvaluator;
use crate::util::clock::now_ms;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyContext;
use crate::wasm::host_trace::RecordedCalls;

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
pub struct ShadowEvaluator {
    candidate: ArcSwapOption<ShadowPolicy>,
    /// Places in the pool of instances, of all candidates together: those before may not be done.
    places: Arc<Semaphore>,
}

impl ShadowEvaluator {
    /// Nobody yet; so many decisions at once later, whoever is asked.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { candidate: ArcSwapOption::empty(), places: Arc::new(Semaphore::new(places)) }
    }

    /// The candidate, if there is one.
    #[must_use]
    pub fn candidate(&self) -> Option<Arc<ShadowPolicy>> {
        self.candidate.load_full()
    }

    /// Asks this one from now on, in place of any other; none to ask nobody. Returns who was asked before.
    pub fn ask(&self, candidate: Option<Arc<ShadowPolicy>>) -> Option<Arc<ShadowPolicy>> {
        self.candidate.swap(candidate)
    }
}

impl DecisionObserver for ShadowEvaluator {
    fn begin(&self) -> Option<Observation> {
        let (candidate, places) = (self.candidate()?, Arc::clone(&self.places));
        Some(Box::new(move |event| candidate.consider(event, &places)))
    }
}

/// About what a candidate is asked.
#[derive(Clone, Copy, Debug)]
pub struct ShadowSampling {
    /// The share of clients, from 0 to 1.
    pub share: f64,
    /// Decisions at once; what comes meanwhile is not asked.
    pub concurrency: usize,
}

/// A policy that is asked without effect.
pub struct ShadowPolicy {
    rehearsal: ReplayEvaluator,
    origin: PolicyOrigin,
    since: u64,
    share: ShadowSampling,
    mask: Arc<FieldMask>,
    slots: Arc<Semaphore>,
    counts: ShadowCounters,
    disagreements: Mutex<VecDeque<Disagreement>>,
}

/// What was decided otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Disagreement {
    /// When, ms since 1970.
    pub time: u64,
    /// As in the logs.
    pub request_id: String,
    /// The version that decided.
    pub version: Option<u64>,
    /// What was asked for.
    pub channels: Vec<String>,
    /// The kind.
    pub flip: DecisionChange,
    /// The parts of the answers that differ.
    pub differs: Vec<&'static str>,
    /// What the policy in force answered.
    pub active: DecisionSummary,
    /// What the candidate would have answered.
    pub candidate: DecisionSummary,
}

/// A candidate, as it is told of.
#[derive(Clone, Debug, Serialize)]
pub struct ShadowReport {
    /// `sha256:…` of the component.
    pub digest: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: PolicyOrigin,
    /// Asked since, ms since 1970.
    pub since: u64,
    /// The share of clients.
    pub share: f64,
    /// What came of it.
    pub counts: ShadowCounts,
    /// Some of what was decided otherwise, the latest first.
    pub disagreements: Vec<Disagreement>,
}

impl ShadowPolicy {
    /// A candidate from now on; `mask` is for what is told of it.
    #[must_use]
    pub fn new(
        policy: Policy,
        origin: PolicyOrigin,
        share: ShadowSampling,
        log_rate: u32,
        mask: Arc<FieldMask>,
    ) -> Self {
        Self {
            rehearsal: ReplayEvaluator::new(policy, log_rate),
            origin,
            since: now_ms(),
            share,
            mask,
            slots: Arc::new(Semaphore::new(share.concurrency)),
            counts: ShadowCounters::default(),
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
    pub fn counts(&self) -> ShadowCounts {
        self.counts.now()
    }

    /// Whether it is asked nothing at this moment.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.available_permits() == self.share.concurrency
    }

    /// All that is told of it.
    #[must_use]
    pub fn report(&self) -> ShadowReport {
        let disagreements = self.disagreements.lock();
        ShadowReport {
            digest: self.policy().digest().to_string(),
            origin: self.origin.clone(),
            since: self.since,
            share: self.share.share,
            counts: self.counts(),
            disagreements: disagreements.iter().rev().cloned().collect(),
        }
    }

    /// Asks it about a decision that was made, if that is of its share and there is a place.
    fn consider(self: Arc<Self>, event: &DecisionEvent<'_>, places: &Arc<Semaphore>) {
        if !crate::shadow::sample::is_chosen(
            self.policy().digest(),
            self.share.share,
            event.request,
            &event.decision.outcome,
        ) {
            return;
        }
        if event.decision.cached {
            self.counts.cached();
            return;
        }
        // Without a trace no policy was asked.
        let (Some(trace), Some(context)) = (&event.trace, event.context) else { return };
        let (slot, place) = (Arc::clone(&self.slots).try_acquire_owned(), Arc::clone(places).try_acquire_owned());
        let (Ok(slot), Ok(place), Ok(lane)) = (slot, place, LANE.as_ref()) else {
            self.counts.dropped();
            return;
        };
        let real = ActiveDecision {
            time: event.time,
            request: event.request.clone(),
            channels: event.channels.to_vec(),
            decision: event.decision.clone(),
        };
        let (recorded, context) = (Arc::new(RecordedCalls::from(&**trace)), Arc::clone(context));
        lane.spawn(async move {
            self.compare(real, &recorded, &context).await;
            drop((slot, place));
        });
    }

    async fn compare(&self, real: ActiveDecision, recorded: &Arc<RecordedCalls>, context: &PolicyContext) {
        let ActiveDecision { time, request, channels, decision } = real;
        let asked = self.rehearsal.ask(&context.env, &context.limits, recorded, &request, &channels).await;
        if recorded.unanswered().count > 0 || recorded.blocked_request() {
            self.counts.incomparable();
            return;
        }
        let differs = differences(&decision, &asked, &channels);
        let flip = DecisionChange::between(&decision.outcome, &asked.outcome, !differs.is_empty());
        self.counts.compared(flip);
        let Some(flip) = flip else { return };
        let disagreement = Disagreement {
            time,
            request_id: request.id,
            version: decision.policy.as_ref().map(|info| info.number),
            channels: self.mask.all(MaskedField::Channels, &channels),
            flip,
            differs,
            active: DecisionSummary::new(&decision).masked(&self.mask),
            candidate: DecisionSummary::new(&asked).masked(&self.mask),
        };
        let mut kept = self.disagreements.lock();
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(disagreement);
    }
}

/// What was asked and decided in earnest.
struct ActiveDecision {
    time: u64,
    request: Request,
    channels: Vec<String>,
    decision: Decision,
}
