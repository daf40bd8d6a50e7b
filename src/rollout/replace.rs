//! Replaces the active policy at the request of an operator. A policy file is replaced, too, so that the next start has the same policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::artifact::bundle::PolicyBundle;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::pipeline::PreparedPolicy;
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::{ActivationError, ActivationResult, Stage, StageError};
use crate::rollout::{Rollout, blocking};
use crate::shadow::shadow_policy::ShadowPolicy;

/// The timeout of a request without one: a year.
const NO_TIMEOUT: Duration = Duration::from_secs(365 * 86_400);

/// A request to replace the active policy.
pub struct ReplacementRequest {
    pub source: ReplacementSource,
    /// Whether to stop before the activation.
    pub dry_run: bool,
    /// Checked when no other activation is in progress any more.
    pub precondition: Precondition,
    /// The time until the activation. After it the request fails, and nothing is changed.
    pub timeout: Option<Duration>,
}

/// Whether to replace this active policy.
pub type Precondition = Box<dyn Fn(Option<&PolicyInfo>) -> bool + Send + Sync>;

/// The policy to activate.
pub enum ReplacementSource {
    Bundle(PolicyBundle),
    /// The policy that was active before.
    Previous,
    /// This shadow policy, if it still is the current one.
    Shadow(Arc<ShadowPolicy>),
}

/// The result of a request.
#[derive(Debug)]
pub enum Replacement {
    Activated {
        info: Arc<PolicyInfo>,
        /// Why the next start will not have this policy, if it will not.
        not_persisted: Option<String>,
    },
    /// The policy passed all stages of a dry run.
    Passed {
        /// `sha256:…` of the component.
        digest: String,
        /// The number of its test cases.
        cases: usize,
    },
}

/// Why the active policy was not replaced.
#[derive(Debug)]
pub enum ReplaceError {
    /// A later request came while this one waited for another activation.
    Superseded,
    /// The precondition does not hold for this active policy.
    PreconditionFailed(Option<Arc<PolicyInfo>>),
    /// The shadow policy was replaced or stopped.
    ShadowReplaced,
    /// There is no previous policy; with the reason.
    NoPreviousPolicy(String),
    /// The policy was not prepared within this time.
    TimedOut(Duration),
    Activation(Arc<ActivationError>),
}

impl From<Arc<ActivationError>> for ReplaceError {
    fn from(error: Arc<ActivationError>) -> Self {
        Self::Activation(error)
    }
}

impl Rollout {
    /// Replaces the active policy, also if the caller is dropped meanwhile.
    pub async fn replace(&self, request: ReplacementRequest) -> Result<Replacement, ReplaceError> {
        let (rollout, deadline) = (self.clone(), Deadline::new(request.timeout));
        let mut task = tokio::spawn({
            let deadline = deadline.clone();
            async move { rollout.replace_before(deadline, request).await }
        });
        let result = match timeout_at(deadline.end, &mut task).await {
            Ok(result) => result,
            // The task ends after the stage that it is in.
            Err(_) if deadline.decide() => return Err(deadline.error()),
            Err(_) => task.await,
        };
        result
            .unwrap_or_else(|panic| Err(self.fail(StageError::new(Stage::Active, panic), None, &control_port()).into()))
    }

    async fn replace_before(
        &self,
        deadline: Deadline,
        request: ReplacementRequest,
    ) -> Result<Replacement, ReplaceError> {
        let guard = tokio::select! {
            biased;
            // A dry run supersedes no other request, and none supersedes it.
            () = self.superseded(), if !request.dry_run => return Err(ReplaceError::Superseded),
            guard = self.lock_activation() => guard,
            () = sleep_until(deadline.end) => return Err(deadline.error()),
        };
        let active = self.inner.authorizer.active();
        if !(request.precondition)(active.as_deref()) {
            return Err(ReplaceError::PreconditionFailed(active));
        }
        let file = self.state().source.files.clone();
        let bundle = match &request.source {
            ReplacementSource::Bundle(bundle) => self.with_cases_of_file(bundle.clone(), file.as_ref()).await?,
            ReplacementSource::Previous => self.previous(file.as_ref()).await?,
            ReplacementSource::Shadow(policy) => self.shadow_bundle(policy).ok_or(ReplaceError::ShadowReplaced)?,
        };
        let next = match &request.source {
            ReplacementSource::Shadow(policy) => guard.promote(policy).await?,
            _ => {
                let context = self.inner.authorizer.context();
                guard.prepare(self.signatures(), bundle.clone(), context, control_port()).await?
            }
        };
        if !deadline.decide() {
            return Err(deadline.error());
        }
        if request.dry_run {
            let cases = next.suite.as_ref().map_or(0, |suite| suite.cases.len());
            return Ok(Replacement::Passed { digest: next.policy.digest().to_string(), cases });
        }
        let is_rollback = matches!(request.source, ReplacementSource::Previous);
        let removed = if is_rollback { self.history().remove_active() } else { None };
        let activated = self.persist_and_activate(bundle, next, file).await;
        match (&activated, &request.source) {
            (Err(_), _) => self.history().restore(removed),
            (Ok(_), ReplacementSource::Shadow(policy)) => self.stop_shadow(policy),
            (Ok(_), _) => {}
        }
        Ok(activated?)
    }

    /// Waits for a later request.
    async fn superseded(&self) {
        let mut number = 0;
        self.inner.requests.send_modify(|latest| {
            *latest += 1;
            number = *latest;
        });
        let _ = self.inner.requests.subscribe().wait_for(|latest| *latest != number).await;
    }

    /// Replaces the policy's file first: if the process ends in between, the next start activates the policy, which has passed all stages.
    async fn persist_and_activate(
        &self,
        bundle: PolicyBundle,
        mut next: PreparedPolicy,
        file: Option<PolicySource>,
    ) -> ActivationResult<Replacement> {
        let written = match file {
            None => Err("the policy of the configuration is not a file".to_owned()),
            Some(file) => {
                let bundle = bundle.clone();
                blocking(move || file.write(&bundle)).await
            }
        };
        let not_persisted = match written {
            Ok(fingerprint) => {
                self.state().source.fingerprint = fingerprint;
                None
            }
            Err(reason) => {
                let policy = next.policy.digest();
                tracing::warn!(%policy, reason, "the policy file cannot be replaced; the new policy is active until the next start");
                next.origin.persisted = false;
                Some(reason)
            }
        };
        let info = self.activate_and_save(next, Some(bundle)).await?;
        Ok(Replacement::Activated { info, not_persisted })
    }

    /// Adds the test cases that belong to the policy's file to a bundle without any, because the next start runs them, too.
    pub(super) async fn with_cases_of_file(
        &self,
        mut bundle: PolicyBundle,
        file: Option<&PolicySource>,
    ) -> ActivationResult<PolicyBundle> {
        let Some(file) = file.filter(|_| bundle.cases.is_none()).cloned() else { return Ok(bundle) };
        let cases_dir = file.cases_dir();
        let cases = blocking(move || file.read_cases()).await.map_err(|reason| {
            self.fail(StageError::new(Stage::Fetched, reason), Some(bundle.digest()), &control_port())
        })?;
        if cases.is_some() {
            (bundle.cases, bundle.cases_dir) = (cases, cases_dir);
        }
        Ok(bundle)
    }

    /// The policy that a rollback activates again.
    async fn previous(&self, file: Option<&PolicySource>) -> Result<PolicyBundle, ReplaceError> {
        let missing = |reason: &str| ReplaceError::NoPreviousPolicy(reason.into());
        let target = self.history().target().map(|entry| entry.bundle);
        let digests = target.ok_or_else(|| missing("no other policy was active here that is remembered"))?;
        let records = self.inner.records.clone();
        let records = records.ok_or_else(|| missing("without a cache-dir no policy is saved to roll back to"))?;
        let bundle = blocking(move || records.store().read(&digests))
            .await
            .map_err(|error| missing(&format!("{} cannot be read from cache-dir: {error}", digests.component)))?;
        Ok(PolicyBundle { cases_dir: file.and_then(PolicySource::cases_dir), ..bundle })
    }
}

/// The end of the time for a request. Either the time is over first, or the request is carried out.
#[derive(Clone)]
struct Deadline {
    timeout: Duration,
    end: Instant,
    is_decided: Arc<AtomicBool>,
}

impl Deadline {
    fn new(timeout: Option<Duration>) -> Self {
        let timeout = timeout.unwrap_or(NO_TIMEOUT);
        Self { timeout, end: Instant::now() + timeout, is_decided: Arc::default() }
    }

    /// True for the first call: that of the caller, when the time is over, or that of the task, when it is about to activate the policy.
    fn decide(&self) -> bool {
        !self.is_decided.swap(true, Ordering::Relaxed)
    }

    const fn error(&self) -> ReplaceError {
        ReplaceError::TimedOut(self.timeout)
    }
}

pub(super) fn control_port() -> PolicyOrigin {
    PolicyOrigin { source: "control port".into(), ..PolicyOrigin::default() }
}
