//! Asks the policy in force.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tokio::sync::{Semaphore, broadcast};
use wasmtime::{Engine, Store, Trap, UpdateDeadline};

use super::answer::Check;
use super::component::{LoadError, Policy};
use super::host::{State, Surroundings, wit};
use super::{Decision, Failure, Limits, Outcome, Request, engine, slow_lane};
use crate::stream::now_ms;

/// Decisions that a slow watcher may be behind.
const WATCHED: usize = 256;

/// The door.
pub struct Gate {
    /// Where policies are compiled; none where everybody is let in.
    engine: Option<Engine>,
    in_force: ArcSwapOption<Policy>,
    surroundings: Arc<Surroundings>,
    limits: Limits,
    slots: Semaphore,
    watchers: broadcast::Sender<Arc<Watched>>,
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
    pub fn new(engine: Engine, surroundings: Surroundings, limits: Limits) -> Self {
        Self { engine: Some(engine), ..Self::open_to_all(surroundings, limits) }
    }

    /// A door that lets everybody in, without a policy.
    #[must_use]
    pub fn open_to_all(surroundings: Surroundings, limits: Limits) -> Self {
        Self {
            engine: None,
            in_force: ArcSwapOption::empty(),
            surroundings: Arc::new(surroundings),
            slots: Semaphore::new(limits.concurrency),
            watchers: broadcast::channel(WATCHED).0,
            limits,
        }
    }

    /// Puts a policy in force: decisions that begin from now on are its own.
    pub fn put_in_force(&self, policy: Policy) {
        self.in_force.store(Some(Arc::new(policy)));
    }

    /// Loads a file and puts it in force; answers its digest. One that does not load changes nothing.
    pub fn load(&self, path: &Path) -> Result<Arc<str>, LoadError> {
        let Some(engine) = &self.engine else { return Err(LoadError::Invalid("there is no engine to run it".into())) };
        let policy = Policy::load(engine, path)?;
        let digest = Arc::clone(policy.digest());
        self.put_in_force(policy);
        Ok(digest)
    }

    /// The policy in force, `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> Option<Arc<str>> {
        self.in_force.load().as_ref().map(|policy| Arc::clone(policy.digest()))
    }

    /// Whether anybody can be let in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.engine.is_none() || self.in_force.load().is_some()
    }

    /// Every decision from now on, for those who keep up.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<Watched>> {
        self.watchers.subscribe()
    }

    /// May this client read this set of channels?
    pub async fn decide(&self, request: Request, channels: &[String]) -> Decision {
        let start = Instant::now();
        let request_id = request.id.clone();
        let policy = self.in_force.load_full();
        let mut reason = None;
        let outcome = match &policy {
            _ if self.engine.is_none() => Outcome::Allowed(super::Grant::default()),
            None => Outcome::Failed(Failure::NoPolicy),
            Some(policy) => match self.ask(policy, request, channels, &mut reason).await {
                Ok(outcome) => outcome,
                Err(failure) => Outcome::Failed(failure),
            },
        };
        let policy = policy.map(|policy| policy.digest().to_string()).unwrap_or_default();
        let decision = Decision { outcome, reason, took: start.elapsed(), policy };
        log(&request_id, channels, &decision);
        if self.watchers.receiver_count() > 0 {
            let channels = channels.to_vec();
            let watched = Watched { time: now_ms(), request_id, channels, decision: decision.clone() };
            // Nobody may be watching any more by now.
            let _ = self.watchers.send(Arc::new(watched));
        }
        decision
    }

    async fn ask(
        &self,
        policy: &Policy,
        request: Request,
        channels: &[String],
        reason: &mut Option<String>,
    ) -> Result<Outcome, Failure> {
        // Closed never; so an error is the time that ran out.
        let slot = tokio::time::timeout(self.limits.queue_timeout, self.slots.acquire()).await;
        let _slot = slot.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?;
        let ticks = engine::ticks(self.limits.cpu);
        let surroundings = Arc::clone(&self.surroundings);
        let state =
            State::new(surroundings, self.limits.memory, ticks, request.id.clone(), Arc::clone(policy.digest()));
        let is_slow = Arc::clone(&state.is_slow);
        let mut store = self.store(policy.pre.engine(), state);
        let (request, asked, pre) = (to_wit(request), channels.to_vec(), policy.pre.clone());
        let timeout = self.limits.timeout;
        let call = async move {
            let call = async {
                let instance = pre.instantiate_async(&mut store).await.map_err(|error| (error, true))?;
                let answer = instance.tidegate_policy_authorizer().call_authorize(&mut store, &request, &asked).await;
                answer.map_err(|error| (error, false))
            };
            let answer = tokio::time::timeout(timeout, call).await;
            (answer, store)
        };
        let (answer, mut store) = slow_lane::run(call, &is_slow).await?;
        let state = store.data_mut();
        state.flush();
        *reason = state.reason.take();
        match answer {
            Err(_) => Err(Failure::Timeout),
            Ok(Err((error, instantiating))) => Err(failure(&error, instantiating, state.limiter.denied)),
            Ok(Ok(answer)) => {
                let replay_since = state.replay_since;
                let check = Check { channels, limit: self.limits.answer, now: now_ms(), replay_since };
                Ok(check.outcome(answer))
            }
        }
    }

    fn store(&self, engine: &Engine, state: State) -> Store<State> {
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        // What one call may bring over from the guest: an answer, and the arguments of a host call.
        store.set_hostcall_fuel(self.limits.answer.saturating_mul(2).max(64 << 10));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            match state.ticks_left.checked_sub(1) {
                Some(left) => {
                    state.ticks_left = left;
                    state.is_slow.store(true, Ordering::Relaxed);
                    Ok(UpdateDeadline::Yield(1))
                }
                None => Err(Trap::Interrupt.into()),
            }
        });
        store
    }
}

/// The cause of an error, by its type and never by its words.
fn failure(error: &wasmtime::Error, instantiating: bool, memory_denied: bool) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Cpu,
        _ if memory_denied => Failure::Memory,
        Some(trap) => Failure::Trap(trap.to_string()),
        None if instantiating => Failure::Host(format!("{error:#}")),
        // A host function's own error, or a value that does not fit the interface.
        None => Failure::Trap(error.root_cause().to_string()),
    }
}

fn to_wit(request: Request) -> wit::Request {
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| wit::Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() });
    wit::Request {
        headers: headers.collect(),
        method: request.method,
        scheme: request.scheme,
        authority: request.authority,
        path_with_query: request.path_with_query,
        client_address: request.client_address,
    }
}

/// One line a decision. Names of channels and the reason are quoted, for they are a stranger's.
fn log(request: &str, channels: &[String], decision: &Decision) {
    let Decision { outcome, reason, took, policy } = decision;
    let (us, reason) = (took.as_micros(), reason.as_deref().unwrap_or_default());
    match outcome {
        Outcome::Allowed(grant) => {
            let subject = grant.subject.as_deref().unwrap_or_default();
            tracing::info!(request, policy, ?channels, subject, ?reason, us, "allowed");
        }
        Outcome::Rejected(rejection) => {
            tracing::info!(request, policy, ?channels, status = rejection.status.as_u16(), ?reason, us, "rejected");
        }
        Outcome::Failed(failure) => {
            tracing::error!(request, policy, ?channels, kind = failure.kind(), error = %failure, us, "not decided: the client stays out");
        }
    }
}
