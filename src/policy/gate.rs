//! Asks the policy in force.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, watch};

use super::cache::Forget;
use super::compile::Compiler;
use super::component::Policy;
use super::decisions::{Beside, Told, Wants};
use super::denied::Denied;
use super::host::Surroundings;
use super::in_force::{InForce, Old, Pin, Swap};
use super::places::{Heard, Places};
use super::trace::Trace;
use super::version::{About, Basis, Next, Origin, Papers, Version};
use super::{Decision, Failure, Limits, Outcome, Rejection, Request};
use crate::stream::now_ms;
use crate::telemetry::metrics;

/// Decisions that a slow watcher may be behind.
const WATCHED: usize = 256;
/// The door.
pub struct Gate {
    /// Where policies are compiled; none where everybody is let in.
    compiler: Option<Compiler>,
    in_force: InForce,
    denied: Denied,
    /// What the policy in force, or the first one, has around it.
    basis: ArcSwap<Basis>,
    places: Places,
    watchers: broadcast::Sender<Arc<Watched>>,
    beside: Beside,
}

/// A decision as its watchers see it.
#[derive(Debug)]
pub struct Watched {
    /// When, ms since 1970.
    pub time: u64,
    /// The request's id.
    pub request_id: String,
    /// The channels that were asked for.
    pub channels: Vec<String>,
    /// What came of it.
    pub decision: Decision,
}

impl Gate {
    /// A door that lets nobody in until a policy is in force.
    #[must_use]
    pub fn new(compiler: impl Into<Compiler>, surroundings: Surroundings, limits: Limits) -> Self {
        Self { compiler: Some(compiler.into()), ..Self::open_to_all(surroundings, limits) }
    }

    /// A door that lets everybody in, without a policy.
    #[must_use]
    pub fn open_to_all(surroundings: Surroundings, limits: Limits) -> Self {
        Self {
            compiler: None,
            in_force: InForce::default(),
            denied: Denied::default(),
            places: Places::new(&limits),
            beside: Beside::new(limits.shadow),
            basis: ArcSwap::from_pointee(Basis { surroundings: Arc::new(surroundings), limits }),
            watchers: broadcast::channel(WATCHED).0,
        }
    }

    /// Puts a policy in force with what is around it now.
    pub fn put_in_force(&self, policy: Policy) -> Swap {
        self.swap(Next { policy, basis: self.basis(), origin: Origin::default(), papers: Papers::default() })
    }

    /// Puts all that decisions depend on in force, at one moment.
    pub fn swap(&self, next: Next) -> Swap {
        self.basis.store(Arc::clone(&next.basis));
        self.in_force.swap(next)
    }

    /// Where policies are compiled; none where everybody is let in.
    #[must_use]
    pub fn compiler(&self) -> Option<&Compiler> {
        self.compiler.as_ref()
    }

    /// What the first policy will have around it, as long as there is none.
    pub fn surround(&self, basis: Arc<Basis>) {
        if self.in_force().is_none() {
            self.basis.store(basis);
        }
    }

    /// What the policy in force has around it.
    #[must_use]
    pub fn basis(&self) -> Arc<Basis> {
        self.basis.load_full()
    }

    /// The policy in force.
    #[must_use]
    pub fn in_force(&self) -> Option<Arc<About>> {
        self.in_force.load().map(|version| Arc::clone(&version.about))
    }

    /// Versions that are in force no longer and still decide about somebody.
    #[must_use]
    pub fn old(&self) -> Vec<Old> {
        self.in_force.old()
    }

    /// Answers that are on their way out, of all versions: those that hold up the acknowledgement of a swap.
    #[must_use]
    pub fn pinned(&self) -> usize {
        self.in_force.pins()
    }

    /// Whether anybody can be let in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.compiler.is_none() || self.in_force.load().is_some()
    }

    /// How many decisions are being made, those not counted that wait for an instance.
    #[must_use]
    pub fn deciding(&self) -> usize {
        self.places.taken()
    }

    /// Bytes of answers that may be given again, about.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.in_force.load().map_or(0, |version| version.cache.bytes())
    }

    /// How many decisions wait for the keys of a token profile.
    #[must_use]
    pub fn waiting_for_keys(&self) -> usize {
        self.places.awaiting()
    }

    /// Every decision from now on, for those who keep up.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<Watched>> {
        self.watchers.subscribe()
    }

    /// Who is told of every decision, whatever it costs them: the decision log, the recording, a candidate.
    #[must_use]
    pub fn beside(&self) -> &Beside {
        &self.beside
    }

    /// How often a policy was put in force. Whoever knows the number of now is told of the next one.
    #[must_use]
    pub fn swaps(&self) -> watch::Receiver<u64> {
        self.in_force.numbers()
    }

    /// No kept answer that matches is given again, nor kept if it is being decided at this moment.
    pub fn forget(&self, what: Forget<'_>) {
        if let Some(version) = self.in_force.load() {
            version.cache.forget(what);
        }
    }

    /// Who is kept out for now, whatever the policy says.
    #[must_use]
    pub fn denied(&self) -> &Denied {
        &self.denied
    }

    /// Makes an instance ahead for the next decision, beside those that the limits ask for.
    pub async fn prepare_one(&self) -> Result<(), Failure> {
        let version = self.in_force.load().ok_or(Failure::NoPolicy)?;
        version.prepare_one().await
    }

    /// May this client read this set of channels? Nobody is told of the decision: it is that of a case or of a measurement.
    pub async fn decide(&self, request: &Request, channels: &[String]) -> Decision {
        self.decide_by(self.in_force.load(), request, channels).await.decision
    }

    /// The same for an answer that goes out. If another version takes force meanwhile, the decision is dropped and made anew; that
    /// time the acknowledgement of the next swap waits for it, so that swaps can starve nobody. The pin is to be held until the
    /// answer's head is written.
    pub async fn admit(&self, request: &Request, channels: &[String]) -> (Decision, Option<Pin>) {
        let version = self.in_force.load();
        let number = version.as_ref().map_or(0, |version| version.about.generation);
        let mut numbers = self.in_force.numbers();
        let made = tokio::select! {
            biased;
            made = self.decide_by(version.clone(), request, channels) => Some(made),
            _ = numbers.wait_for(|now| *now > number) => None,
        };
        let still = version.as_ref().map(|version| self.in_force.pin(version));
        let (made, pin) = match (made, still) {
            (Some(made), Some(Some(pin))) => (made, Some(pin)),
            (Some(made), None) if self.in_force.load().is_none() => (made, None),
            _ => {
                let (version, pin) = self.in_force.pinned().unzip();
                (self.decide_by(version, request, channels).await, pin)
            }
        };
        metrics().decided(made.decision.took, made.decision.cached);
        (self.tell(request, channels, made), pin)
    }

    async fn decide_by(&self, version: Option<Arc<Version>>, request: &Request, channels: &[String]) -> Made {
        let start = Instant::now();
        let kept = version.as_ref().and_then(|version| version.cache.get(request, channels, version.clock()));
        let cached = kept.is_some();
        let wants = self.beside.wants();
        let mut heard = Heard { traced: wants.trace(), reason: None, trace: None };
        let outcome = match (&version, kept) {
            _ if self.compiler.is_none() => Outcome::Allowed(super::Grant::default()),
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
        let by = version.as_ref().map(|version| Arc::clone(&version.about));
        let Heard { reason, trace, .. } = heard;
        let decision = Decision { outcome, reason, cached, revoked: false, took: start.elapsed(), by };
        Made { decision, wants, trace, version }
    }

    /// Tells of a decision that has its effect: one that was overtaken and made once more has none.
    fn tell(&self, request: &Request, channels: &[String], made: Made) -> Decision {
        let Made { mut decision, wants, trace, version } = made;
        let time = now_ms();
        decision.revoked = matches!(&decision.outcome, Outcome::Allowed(grant) if self.denied.denies(grant, channels));
        let basis = version.as_ref().map(|version| &version.basis);
        // What the policy said, for it is asked again, or another one with it.
        self.beside.tell(wants, Told { time, request, channels, decision: &decision, trace, basis });
        if decision.revoked {
            decision.outcome = Outcome::Rejected(Rejection::revoked());
        }
        log(&request.id, channels, &decision);
        if self.watchers.receiver_count() > 0 {
            let (channels, request_id) = (channels.to_vec(), request.id.clone());
            let watched = Watched { time, request_id, channels, decision: decision.clone() };
            // Nobody may be watching any more by now.
            let _ = self.watchers.send(Arc::new(watched));
        }
        decision
    }
}

/// A decision that was made, before anybody is told.
struct Made {
    decision: Decision,
    wants: Wants,
    trace: Option<Trace>,
    version: Option<Arc<Version>>,
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
