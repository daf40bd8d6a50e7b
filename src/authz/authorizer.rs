//! Authorizes requests with the active policy and reports the decisions.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, watch};

use crate::authz::active::{ActivePolicy, RetiredGeneration, Swap};
use crate::authz::cache::CacheSelector;
use crate::authz::evaluate::{EvaluationOutput, Evaluator};
use crate::authz::generation::{Activation, PolicyGeneration};
use crate::authz::in_flight::InFlightGuard;
use crate::authz::observer::{DecisionEvent, DecisionObserver, Observation};
use crate::authz::revocation_list::RevocationList;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::policy::{Decision, Failure, Grant, Limits, Outcome, Rejection, Request};
use crate::telemetry::metrics::Metrics;
use crate::util::client_key::ClientKey;
use crate::util::clock::now_ms;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::host::{PolicyContext, PolicyEnv};
use crate::wasm::host_trace::HostTrace;

/// Decisions that a watcher may lag before it misses some.
const MAX_WATCHER_LAG: usize = 256;

/// Decides which requests may read which channels.
pub struct Authorizer {
    /// Compiles policies; `None` if every request is allowed.
    compiler: Option<Compiler>,
    active: ActivePolicy,
    revocations: RevocationList,
    /// The context of the active policy; before the first activation, the context of the first policy.
    context: ArcSwap<PolicyContext>,
    evaluator: Evaluator,
    watchers: broadcast::Sender<Arc<ObservedDecision>>,
    observers: Vec<Arc<dyn DecisionObserver>>,
    metrics: Arc<Metrics>,
}

/// A decision that took effect, as [`Authorizer::watch`] delivers it.
#[derive(Debug)]
pub struct ObservedDecision {
    /// In milliseconds since the Unix epoch.
    pub time: u64,
    pub request_id: String,
    /// The channels that the request asked for.
    pub channels: Vec<String>,
    pub decision: Decision,
}

impl Authorizer {
    /// Rejects every request until the first policy is active.
    pub fn new(compiler: impl Into<Compiler>, env: PolicyEnv, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { compiler: Some(compiler.into()), ..Self::allow_all(env, limits, metrics) }
    }

    /// Allows every request, without a policy.
    pub fn allow_all(env: PolicyEnv, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            compiler: None,
            active: ActivePolicy::new(limits.prewarmed_instances),
            revocations: RevocationList::default(),
            evaluator: Evaluator::new(&limits),
            observers: Vec::new(),
            metrics,
            context: ArcSwap::from_pointee(PolicyContext { env: Arc::new(env), limits }),
            watchers: broadcast::channel(MAX_WATCHER_LAG).0,
        }
    }

    /// Reports every decision to these observers, in this order.
    pub fn with_observers(mut self, observers: Vec<Arc<dyn DecisionObserver>>) -> Self {
        self.observers = observers;
        self
    }

    /// Activates a policy in the current context.
    pub fn activate(&self, policy: Policy) -> Swap {
        self.activate_with(Activation { policy, context: self.context(), origin: PolicyOrigin::default(), cases: None })
    }

    /// Activates a policy together with its context.
    pub fn activate_with(&self, activation: Activation) -> Swap {
        self.context.store(Arc::clone(&activation.context));
        self.active.swap(activation)
    }

    pub fn compiler(&self) -> Option<&Compiler> {
        self.compiler.as_ref()
    }

    /// Sets the context for the first policy. Has no effect once a policy is active.
    pub fn set_initial_context(&self, context: Arc<PolicyContext>) {
        if self.active().is_none() {
            self.context.store(context);
        }
    }

    pub fn context(&self) -> Arc<PolicyContext> {
        self.context.load_full()
    }

    pub fn active(&self) -> Option<Arc<PolicyInfo>> {
        self.active.load().map(|generation| Arc::clone(&generation.info))
    }

    /// Retired generations with decisions in progress.
    pub fn retired(&self) -> Vec<RetiredGeneration> {
        self.active.retired()
    }

    /// Responses of all generations that are being written. Those of retired generations delay [`Swap::drained`].
    pub fn in_flight(&self) -> usize {
        self.active.in_flight()
    }

    /// Whether requests can be allowed.
    pub fn is_ready(&self) -> bool {
        self.compiler.is_none() || self.active.load().is_some()
    }

    /// Evaluations in progress, without those that wait for a permit or for keys.
    pub fn evaluating(&self) -> usize {
        self.evaluator.permits_in_use()
    }

    /// Approximate bytes of cached decisions.
    pub fn cached_bytes(&self) -> u64 {
        self.active.load().map_or(0, |generation| generation.cache.bytes())
    }

    /// Decisions that wait for the keys of a token profile.
    pub fn waiting_for_keys(&self) -> usize {
        self.evaluator.waiting_for_keys()
    }

    /// Every decision from now on. A receiver that lags misses the oldest ones.
    pub fn watch(&self) -> broadcast::Receiver<Arc<ObservedDecision>> {
        self.watchers.subscribe()
    }

    /// The generation of the active policy; 0 before the first activation.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.active.generations()
    }

    /// Removes matching decisions from the cache. Decisions that are being evaluated are not cached either, whether they match or not.
    pub fn invalidate(&self, selector: CacheSelector<'_>) {
        if let Some(generation) = self.active.load() {
            generation.cache.invalidate(selector);
        }
    }

    pub fn revocations(&self) -> &RevocationList {
        &self.revocations
    }

    /// Saves the checkpoint of the active policy, if it has one.
    pub async fn save_checkpoint(&self) -> Result<(), Failure> {
        let generation = self.active.load().ok_or(Failure::NoPolicy)?;
        generation.save_checkpoint().await
    }

    /// Prewarms one instance of the active policy, in addition to `limits.prewarmed_instances`.
    pub async fn prewarm_one(&self) -> Result<(), Failure> {
        let generation = self.active.load().ok_or(Failure::NoPolicy)?;
        generation.prewarm_one().await
    }

    /// Evaluates a request without effect: nothing is reported, and revocations are not applied. For test cases and benchmarks.
    pub async fn evaluate(&self, request: &Request, channels: &[String]) -> Decision {
        self.evaluate_by(self.active.load(), &Arc::new(request.clone()), channels, &Arc::default()).await.decision
    }

    /// Decides a request of a client that is about to be answered.
    ///
    /// If the active policy changes during the evaluation, the result is discarded and the request is evaluated once more. The second
    /// evaluation holds an in-flight guard, which delays [`Swap::drained`], so that frequent activations cannot starve a request. The
    /// caller keeps the returned guard until the head of the response is written.
    pub async fn authorize(
        &self,
        request: &Arc<Request>,
        channels: &[String],
        client: &Arc<ClientKey>,
    ) -> (Decision, Option<InFlightGuard>) {
        let generation = self.active.load();
        let number = generation.as_ref().map_or(0, |generation| generation.info.generation);
        let mut generations = self.active.generations();
        let evaluation = tokio::select! {
            biased;
            evaluation = self.evaluate_by(generation.clone(), request, channels, client) => Some(evaluation),
            _ = generations.wait_for(|active| *active > number) => None,
        };
        let guard = generation.as_ref().map(|generation| self.active.guard_if_active(generation));
        let (evaluation, guard) = match (evaluation, guard) {
            (Some(evaluation), Some(Some(guard))) => (evaluation, Some(guard)),
            (Some(evaluation), None) if self.active.load().is_none() => (evaluation, None),
            _ => {
                let (generation, guard) = self.active.load_guarded().unzip();
                (self.evaluate_by(generation, request, channels, client).await, guard)
            }
        };
        self.metrics.decided(evaluation.decision.duration, evaluation.decision.cached);
        (self.report(request, channels, evaluation), guard)
    }

    async fn evaluate_by(
        &self,
        generation: Option<Arc<PolicyGeneration>>,
        request: &Arc<Request>,
        channels: &[String],
        client: &Arc<ClientKey>,
    ) -> Evaluation {
        let start = Instant::now();
        let cached =
            generation.as_ref().and_then(|generation| generation.cache.get(request, channels, generation.clock()));
        let is_cached = cached.is_some();
        let observations: Vec<Observation> = self.observers.iter().filter_map(|observer| observer.begin()).collect();
        let output = match (&generation, cached) {
            _ if self.compiler.is_none() => Outcome::Allowed(Grant::default()).into(),
            (None, _) => Outcome::Failed(Failure::NoPolicy).into(),
            (_, Some(cached)) => {
                let (outcome, reason) = cached.answer();
                EvaluationOutput { outcome, reason, trace: None }
            }
            (Some(generation), None) => {
                let output =
                    self.evaluator.evaluate(generation, request, channels, client, !observations.is_empty()).await;
                output.unwrap_or_else(|failure| Outcome::Failed(failure).into())
            }
        };
        let EvaluationOutput { outcome, reason, trace } = output;
        let by = generation.as_ref().map(|generation| Arc::clone(&generation.info));
        let decision =
            Decision { outcome, reason, cached: is_cached, revoked: false, duration: start.elapsed(), policy: by };
        Evaluation { decision, observations, trace, generation }
    }

    /// Applies revocations to a decision that takes effect, and reports it. Discarded evaluations are not reported.
    fn report(&self, request: &Request, channels: &[String], evaluation: Evaluation) -> Decision {
        let Evaluation { mut decision, observations, trace, generation } = evaluation;
        let time = now_ms();
        decision.revoked =
            matches!(&decision.outcome, Outcome::Allowed(grant) if self.revocations.revokes(grant, channels));
        let context = generation.as_ref().map(|generation| &generation.context);
        // Observers get the policy's own decision, because recordings and shadow policies compare with that.
        let trace = trace.map(Arc::new);
        let event = DecisionEvent { time, request, channels, decision: &decision, trace, context };
        for observer in &self.observers {
            observer.decided(&event);
        }
        for observe in observations {
            observe(&event);
        }
        if decision.revoked {
            decision.outcome = Outcome::Rejected(Rejection::revoked());
        }
        log(&request.id, channels, &decision);
        if self.watchers.receiver_count() > 0 {
            let (channels, request_id) = (channels.to_vec(), request.id.clone());
            let observed = ObservedDecision { time, request_id, channels, decision: decision.clone() };
            // Fails if the last watcher was dropped meanwhile.
            let _ = self.watchers.send(Arc::new(observed));
        }
        decision
    }
}

/// A decision that is not reported yet.
struct Evaluation {
    decision: Decision,
    observations: Vec<Observation>,
    trace: Option<HostTrace>,
    generation: Option<Arc<PolicyGeneration>>,
}

/// Writes one log line per decision. Channel names and the reason are quoted, because clients and policies choose them.
fn log(request: &str, channels: &[String], decision: &Decision) {
    let Decision { outcome, reason, cached, .. } = decision;
    let (policy, duration_us) = (decision.policy_digest(), decision.duration_us());
    let reason = reason.as_deref().unwrap_or_default();
    match outcome {
        Outcome::Allowed(grant) => {
            let subject = grant.subject.as_deref().unwrap_or_default();
            tracing::info!(request, policy, ?channels, subject, ?reason, cached, duration_us, "allowed");
        }
        Outcome::Rejected(_) if decision.revoked => {
            tracing::info!(request, policy, ?channels, cached, duration_us, "revoked");
        }
        Outcome::Rejected(rejection) => {
            let status = rejection.status.as_u16();
            tracing::info!(request, policy, ?channels, status, ?reason, cached, duration_us, "rejected");
        }
        Outcome::Failed(failure) => {
            tracing::error!(request, policy, ?channels, kind = failure.kind(), error = %failure, duration_us, "decision failed: the client is not admitted");
        }
    }
}
