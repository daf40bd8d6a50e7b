//! The shadow policy: evaluated on a share of requests after the active policy decided, off the request's path and without effect. Its
//! decisions are compared with those of the active policy, and counted.
//!
//! Host calls get the answers that the active policy got; a call that the active policy did not make has no answer. So the store is not
//! read twice, and no outbound request is sent.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::audit::mask::{FieldMask, MaskedField};
use crate::audit::summary::DecisionSummary;
use crate::authz::observer::{DecisionEvent, DecisionObserver, Observation};
use crate::policy::decision_view::DecisionView;
use crate::policy::info::PolicyOrigin;
use crate::policy::{Decision, Request};
use crate::shadow::counts::ShadowCounts;
use crate::shadow::decision_change::DecisionChange;
use crate::shadow::replay::ReplayEvaluator;
use crate::shadow::sample::is_sampled;
use crate::util::clock::now_ms;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyContext;
use crate::wasm::host_trace::RecordedCalls;
use crate::wasm::low_priority_pool;

/// Disagreements in the report; newer ones replace the oldest.
const MAX_DISAGREEMENTS: usize = 64;
/// The lowest scheduling priority: shadow decisions only use CPU time that nothing else needs.
const NICENESS: i32 = 19;

/// One thread for all shadow decisions, created when first needed. A shadow policy can slow down only shadow decisions.
static RUNTIME: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| low_priority_pool::runtime("policy-shadow", NICENESS).worker_threads(1).build());

/// Evaluates at most one shadow policy.
pub struct ShadowEvaluator {
    current: ArcSwapOption<ShadowPolicy>,
    /// One permit per instance, for all shadow policies together: a replaced one may still have decisions in progress.
    permits: Arc<Semaphore>,
}

impl ShadowEvaluator {
    /// Has no shadow policy yet.
    pub fn new(max_concurrency: usize) -> Self {
        Self { current: ArcSwapOption::empty(), permits: Arc::new(Semaphore::new(max_concurrency)) }
    }

    pub fn current(&self) -> Option<Arc<ShadowPolicy>> {
        self.current.load_full()
    }

    pub fn replace(&self, policy: Option<Arc<ShadowPolicy>>) {
        self.current.store(policy);
    }
}

impl DecisionObserver for ShadowEvaluator {
    fn begin(&self) -> Option<Observation> {
        let (policy, permits) = (self.current()?, Arc::clone(&self.permits));
        Some(Box::new(move |event| policy.observe(event, &permits)))
    }
}

/// On which requests a shadow policy is evaluated.
#[derive(Clone, Copy, Debug)]
pub struct ShadowSampling {
    /// The share of clients, from 0 to 1.
    pub share: f64,
    /// Concurrent decisions; further ones are dropped.
    pub concurrency: usize,
}

pub struct ShadowPolicy {
    evaluator: ReplayEvaluator,
    origin: PolicyOrigin,
    since: u64,
    sampling: ShadowSampling,
    mask: Arc<FieldMask>,
    permits: Arc<Semaphore>,
    results: Mutex<ShadowResults>,
}

#[derive(Default)]
struct ShadowResults {
    counts: ShadowCounts,
    /// The latest last.
    disagreements: VecDeque<Disagreement>,
}

/// A shadow decision that differs from the active policy's decision.
#[derive(Clone, Debug, Serialize)]
pub struct Disagreement {
    /// In milliseconds since the Unix epoch.
    pub time: u64,
    /// As in the logs.
    pub request_id: String,
    /// The generation of the policy that decided.
    pub generation: Option<u64>,
    /// The channels that the request asked for.
    pub channels: Vec<String>,
    pub change: DecisionChange,
    /// The fields of the decisions that differ.
    pub changed_fields: Vec<&'static str>,
    /// The active policy's decision.
    pub active: DecisionSummary,
    /// The shadow policy's decision.
    pub shadow: DecisionSummary,
}

/// The state of a shadow policy, for operators.
#[derive(Clone, Debug, Serialize)]
pub struct ShadowReport {
    /// `sha256:…` of the component.
    pub digest: String,
    #[serde(flatten)]
    pub origin: PolicyOrigin,
    /// When its evaluation began, in milliseconds since the Unix epoch.
    pub since: u64,
    /// The share of clients, from 0 to 1.
    pub share: f64,
    pub counts: ShadowCounts,
    /// The latest first, at most [`MAX_DISAGREEMENTS`].
    pub disagreements: Vec<Disagreement>,
}

impl ShadowPolicy {
    /// `log_rate` is the maximum of log lines per second; `mask` applies to the report.
    pub fn new(
        policy: Policy,
        origin: PolicyOrigin,
        sampling: ShadowSampling,
        log_rate: u32,
        mask: Arc<FieldMask>,
    ) -> Self {
        Self {
            evaluator: ReplayEvaluator::new(policy, log_rate),
            origin,
            since: now_ms(),
            sampling,
            mask,
            permits: Arc::new(Semaphore::new(sampling.concurrency)),
            results: Mutex::default(),
        }
    }

    pub fn policy(&self) -> &Policy {
        &self.evaluator.policy
    }

    /// When its evaluation began, in milliseconds since the Unix epoch.
    pub const fn since(&self) -> u64 {
        self.since
    }

    pub fn counts(&self) -> ShadowCounts {
        self.results.lock().counts
    }

    /// Whether no shadow decision is in progress.
    pub fn is_idle(&self) -> bool {
        self.permits.available_permits() == self.sampling.concurrency
    }

    pub fn report(&self) -> ShadowReport {
        let ShadowResults { counts, disagreements } = &*self.results.lock();
        ShadowReport {
            digest: self.policy().digest().to_string(),
            origin: self.origin.clone(),
            since: self.since,
            share: self.sampling.share,
            counts: *counts,
            disagreements: disagreements.iter().rev().cloned().collect(),
        }
    }

    /// Starts a shadow decision, if the client belongs to the sample and there are permits.
    fn observe(self: Arc<Self>, event: &DecisionEvent<'_>, pool_permits: &Arc<Semaphore>) {
        if !is_sampled(self.policy().digest(), self.sampling.share, event.request, &event.decision.outcome) {
            return;
        }
        if event.decision.cached {
            self.results.lock().counts.cached += 1;
            return;
        }
        // Without a trace no policy was evaluated, so there is nothing to compare.
        let (Some(trace), Some(context)) = (&event.trace, event.context) else { return };
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let pool_permit = Arc::clone(pool_permits).try_acquire_owned();
        let (Ok(permit), Ok(pool_permit), Ok(runtime)) = (permit, pool_permit, RUNTIME.as_ref()) else {
            self.results.lock().counts.dropped += 1;
            return;
        };
        let (time, request, channels) = (event.time, event.request.clone(), event.channels.to_vec());
        let (active, context) = (event.decision.clone(), Arc::clone(context));
        let recorded = Arc::new(RecordedCalls::from(&**trace));
        runtime.spawn(async move {
            let PolicyContext { env, limits } = &*context;
            let shadow = self.evaluator.evaluate(env, limits, &recorded, &request, &channels).await;
            if recorded.unanswered().count > 0 || recorded.blocked_request() {
                self.results.lock().counts.incomparable += 1;
            } else {
                self.compare(time, request, &channels, &active, &shadow);
            }
            drop((permit, pool_permit));
        });
    }

    fn compare(&self, time: u64, request: Request, channels: &[String], active: &Decision, shadow: &Decision) {
        let change =
            DecisionChange::between(&DecisionView::new(active, channels), &DecisionView::new(shadow, channels));
        let disagreement = change.map(|(change, changed_fields)| Disagreement {
            time,
            request_id: request.id,
            generation: active.policy.as_ref().map(|info| info.generation),
            channels: self.mask.mask_all(MaskedField::Channels, channels),
            change,
            changed_fields,
            active: DecisionSummary::new(active).masked(&self.mask),
            shadow: DecisionSummary::new(shadow).masked(&self.mask),
        });
        let ShadowResults { counts, disagreements } = &mut *self.results.lock();
        *counts.compared(disagreement.as_ref().map(|disagreement| disagreement.change)) += 1;
        if disagreement.is_some() && disagreements.len() == MAX_DISAGREEMENTS {
            disagreements.pop_front();
        }
        disagreements.extend(disagreement);
    }
}
