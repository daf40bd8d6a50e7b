//! Asks the policy in force.

use crate::telemetry::metrics::Metrics;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, watch};

use crate::authz::active::{ActivePolicy, RetiredGeneration, Swap};
use crate::authz::cache::Forget;
use crate::authz::evaluate::{EvaluationOutput, Evaluator};
use crate::authz::generation::{Activation, PolicyGeneration};
use crate::authz::in_flight::InFlightGuard;
use crate::authz::observer::{DecisionEvent, DecisionObserver, Observation};
use crate::authz::revocation_list::RevocationList;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::policy::{Decision, Failure, Limits, Outcome, Rejection, Request};
use crate::util::clock::now_ms;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyContext;
use crate::wasm::host::PolicyEnv;
use crate::wasm::host_trace::HostTrace;

/// Decisions that a slow watcher may be behind.
const WATCHED: usize = 256;
/// The door.
pub struct Authorizer {
    /// Where policies are compiled; none where everybody is let in.
    compiler: Option<Compiler>,
    active: ActivePolicy,
    denied: RevocationList,
    /// What the policy in force, or the first one, has around it.
    context: ArcSwap<PolicyContext>,
    places: Evaluator,
    watchers: broadcast::Sender<Arc<ObservedDecision>>,
    observers: Vec<Arc<dyn DecisionObserver>>,
    metrics: Arc<Metrics>,
}

/// A decision as its watchers see it.
#[derive(Debug)]
pub struct ObservedDecision {
    /// When, ms since 1970.
    pub time: u64,
    /// The request's id.
    pub request_id: String,
    /// The channels that were asked for.
    pub channels: Vec<String>,
    /// What came of it.
    pub decision: Decision,
}

impl Authorizer {
    /// A door that lets nobody in until a policy is in force.
    #[must_use]
    pub fn new(compiler: impl Into<Compiler>, env: PolicyEnv, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { compiler: Some(compiler.into()), ..Self::open_to_all(env, limits, metrics) }
    }

    /// A door that lets everybody in, without a policy.
    #[must_use]
    pub fn open_to_all(env: PolicyEnv, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            compiler: None,
            active: ActivePolicy::default(),
            denied: RevocationList::default(),
            places: Evaluator::new(&limits),
            observers: Vec::new(),
            metrics,
            context: ArcSwap::from_pointee(PolicyContext { env: Arc::new(env), limits }),
            watchers: broadcast::channel(WATCHED).0,
        }
    }

    /// Reports every decision to these observers, in this order.
    #[must_use]
    pub fn observed_by(mut self, observers: Vec<Arc<dyn DecisionObserver>>) -> Self {
        self.observers = observers;
        self
    }

    /// Puts a policy in force with what is around it now.
    pub fn activate(&self, policy: Policy) -> Swap {
        self.swap(Activation { policy, context: self.context(), origin: PolicyOrigin::default(), cases: None })
    }

    /// Puts all that decisions depend on in force, at one moment.
    pub fn swap(&self, next: Activation) -> Swap {
        self.context.store(Arc::clone(&next.context));
        self.active.swap(next)
    }

    /// Where policies are compiled; none where everybody is let in.
    #[must_use]
    pub fn compiler(&self) -> Option<&Compiler> {
        self.compiler.as_ref()
    }

    /// What the first policy will have around it, as long as there is none.
    pub fn surround(&self, context: Arc<PolicyContext>) {
        if self.active().is_none() {
            self.context.store(context);
        }
    }

    /// What the policy in force has around it.
    #[must_use]
    pub fn context(&self) -> Arc<PolicyContext> {
        self.context.load_full()
    }

    /// The policy in force.
    #[must_use]
    pub fn active(&self) -> Option<Arc<PolicyInfo>> {
        self.active.load().map(|version| Arc::clone(&version.info))
    }

    /// Versions that are in force no longer and still decide about somebody.
    #[must_use]
    pub fn old(&self) -> Vec<RetiredGeneration> {
        self.active.old()
    }

    /// Answers that are on their way out, of all versions: those that hold up the acknowledgement of a swap.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.active.pins()
    }

    /// Whether anybody can be let in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.compiler.is_none() || self.active.load().is_some()
    }

    /// How many decisions are being made, those not counted that wait for an instance.
    #[must_use]
    pub fn deciding(&self) -> usize {
        self.places.taken()
    }

    /// Bytes of answers that may be given again, about.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.active.load().map_or(0, |version| version.cache.bytes())
    }

    /// How many decisions wait for the keys of a token profile.
    #[must_use]
    pub fn waiting_for_keys(&self) -> usize {
        self.places.awaiting()
    }

    /// Every decision from now on, for those who keep up.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<ObservedDecision>> {
        self.watchers.subscribe()
    }

    /// How often a policy was put in force. Whoever knows the number of now is told of the next one.
    #[must_use]
    pub fn swaps(&self) -> watch::Receiver<u64> {
        self.active.numbers()
    }

    /// No kept answer that matches is given again, nor kept if it is being decided at this moment.
    pub fn forget(&self, what: Forget<'_>) {
        if let Some(version) = self.active.load() {
            version.cache.forget(what);
        }
    }

    /// Who is kept out for now, whatever the policy says.
    #[must_use]
    pub fn denied(&self) -> &RevocationList {
        &self.denied
    }

    /// Makes an instance ahead for the next decision, beside those that the limits ask for.
    pub async fn prepare_one(&self) -> Result<(), Failure> {
        let version = self.active.load().ok_or(Failure::NoPolicy)?;
        version.prepare_one().await
    }

    /// May this client read this set of channels? Nobody is told of the decision: it is that of a case or of a measurement.
    pub async fn decide(&self, request: &Request, channels: &[String]) -> Decision {
        self.decide_by(self.active.load(), request, channels).await.decision
    }

    /// The same for an answer that goes out. If another version takes force meanwhile, the decision is dropped and made anew; that
    /// time the acknowledgement of the next swap waits for it, so that swaps can starve nobody. The pin is to be held until the
    /// answer's head is written.
    pub async fn admit(&self, request: &Request, channels: &[String]) -> (Decision, Option<InFlightGuard>) {
        let version = self.active.load();
        let number = version.as_ref().map_or(0, |version| version.info.generation);
        let mut numbers = self.active.numbers();
        let made = tokio::select! {
            biased;
            made = self.decide_by(version.clone(), request, channels) => Some(made),
            _ = numbers.wait_for(|now| *now > number) => None,
        };
        let still = version.as_ref().map(|version| self.active.pin(version));
        let (made, pin) = match (made, still) {
            (Some(made), Some(Some(pin))) => (made, Some(pin)),
            (Some(made), None) if self.active.load().is_none() => (made, None),
            _ => {
                let (version, pin) = self.active.pinned().unzip();
                (self.decide_by(version, request, channels).await, pin)
            }
        };
        self.metrics.decided(made.decision.took, made.decision.cached);
        (self.tell(request, channels, made), pin)
    }

    async fn decide_by(
        &self,
        version: Option<Arc<PolicyGeneration>>,
        request: &Request,
        channels: &[String],
    ) -> Evaluated {
        let start = Instant::now();
        let kept = version.as_ref().and_then(|version| version.cache.get(request, channels, version.clock()));
        let cached = kept.is_some();
        let observations: Vec<Observation> = self.observers.iter().filter_map(|observer| observer.begin()).collect();
        let mut heard = EvaluationOutput { traced: !observations.is_empty(), reason: None, trace: None };
        let outcome = match (&version, kept) {
            _ if self.compiler.is_none() => Outcome::Allowed(crate::policy::Grant::default()),
            (None, _) => Outcome::Failed(Failure::NoPolicy),
            (_, Some(kept)) => {
                let (outcome, why) = kept.answer();
                heard.reason = why;
                outcome
            }
            (Some(version), None) => match self.places.ask(version, request, channels, &mut heard).await {
                Ok(outcome) => outcome,
                Err(failure) => Outcome::Failed(failure),
            },
        };
        let by = version.as_ref().map(|version| Arc::clone(&version.info));
        let EvaluationOutput { reason, trace, .. } = heard;
        let decision = Decision { outcome, reason, cached, revoked: false, took: start.elapsed(), by };
        Evaluated { decision, observations, trace, version }
    }

    /// Tells of a decision that has its effect: one that was overtaken and made once more has none.
    fn tell(&self, request: &Request, channels: &[String], made: Evaluated) -> Decision {
        let Evaluated { mut decision, observations, trace, version } = made;
        let time = now_ms();
        decision.revoked = matches!(&decision.outcome, Outcome::Allowed(grant) if self.denied.denies(grant, channels));
        let context = version.as_ref().map(|version| &version.context);
        // Observers get the policy's own decision, because a recording and a shadow policy repeat the question.
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
            let watched = ObservedDecision { time, request_id, channels, decision: decision.clone() };
            // Nobody may be watching any more by now.
            let _ = self.watchers.send(Arc::new(watched));
        }
        decision
    }
}

/// A decision that was made, before anybody is told.
struct Evaluated {
    decision: Decision,
    observations: Vec<Observation>,
    trace: Option<HostTrace>,
    version: Option<Arc<PolicyGeneration>>,
}

/// One line a decision. Names of channels and the reason are quoted, for they are a stranger's.
fn log(request: &str, channels: &[String], decision: &Decision) {
    let Decision { outcome, reason, cached, took, .. } = decision;
    let (policy, us, reason) = (decision.policy(), took.as_micros(), reason.as_deref().unwrap_or_default());
    match outcome {
        Outcome::Allowed(grant) => {
            let subject = grant.subject.as_deref().unwrap_or_default();
            tracing::info!(request, policy, ?channels, subject, ?reason, cached, us, "allowed");
        }
        Outcome::Rejected(_) if decision.revoked => {
            tracing::info!(request, policy, ?channels, cached, us, "revoked");
        }
        Outcome::Rejected(rejection) => {
            tracing::info!(
                request,
                policy,
                ?channels,
                status = rejection.status.as_u16(),
                ?reason,
                cached,
                us,
                "rejected"
            );
        }
        Outcome::Failed(failure) => {
            tracing::error!(request, policy, ?channels, kind = failure.kind(), error = %failure, us, "not decided: the client stays out");
        }
    }
}
