//! Replaces the active policy at the request of an operator. A policy file is replaced, too, so that the next start has the same policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::artifact::bundle::PolicyBundle;
use crate::policy::info::{PolicyInfo, PolicyOrigin};
use crate::rollout::lock::ActivationGuard;
use crate::rollout::prepared::PreparedPolicy;
use crate::rollout::source_file::PolicySource;
use crate::rollout::stage::{ActivationError, Stage, StageError};
use crate::rollout::{Inner, Rollout, blocking};
use crate::shadow::shadow_policy::ShadowPolicy;

/// A request to replace the active policy.
pub struct ReplacementRequest {
    /// The policy to activate.
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
    /// The policy in this bundle.
    Bundle(PolicyBundle),
    /// The policy that was active before.
    Previous,
    /// This shadow policy, if it still is the current one.
    Shadow(Arc<ShadowPolicy>),
}

/// The result of a request.
#[derive(Debug)]
pub enum Replacement {
    /// The policy is active.
    Activated {
        /// The active policy.
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
    /// The precondition does not hold for the active policy.
    PreconditionFailed(Option<Arc<PolicyInfo>>),
    /// The shadow policy was replaced or stopped.
    ShadowReplaced,
    /// There is no previous policy; with the reason.
    NoPreviousPolicy(String),
    /// The policy was not prepared within this time.
    TimedOut(Duration),
    /// A stage was not reached.
    Activation(Arc<ActivationError>),
}

impl Rollout {
    /// Replaces the active policy. This goes on when its caller is gone.
    pub async fn replace(&self, request: ReplacementRequest) -> Result<Replacement, ReplaceError> {
        let (rollout, deadline) = (self.clone(), Deadline::new(request.timeout));
        let mut task = tokio::spawn({
            let deadline = deadline.clone();
            async move { rollout.replace_before(deadline, request).await }
        });
        let result = match deadline.end {
            None => task.await,
            Some(end) => match timeout_at(end, &mut task).await {
                Ok(result) => result,
                // The task ends after the stage that it is in.
                Err(_) if deadline.decide() => return Err(deadline.error()),
                Err(_) => task.await,
            },
        };
        let failed = |error| self.0.fail(StageError::new(Stage::Active, error), None, &control_port());
        result.unwrap_or_else(|error| Err(ReplaceError::Activation(failed(error))))
    }

    async fn replace_before(
        &self,
        deadline: Deadline,
        request: ReplacementRequest,
    ) -> Result<Replacement, ReplaceError> {
        let (inner, dry_run) = (&*self.0, request.dry_run);
        let superseded = async {
            // A dry run supersedes no other request, and none supersedes it.
            if dry_run {
                return std::future::pending().await;
            }
            let mut number = 0;
            inner.requests.send_modify(|latest| {
                *latest += 1;
                number = *latest;
            });
            let _ = inner.requests.subscribe().wait_for(|latest| *latest != number).await;
        };
        let guard = tokio::select! {
            biased;
            () = superseded => return Err(ReplaceError::Superseded),
            guard = self.lock_activation() => guard,
            () = deadline.passed() => return Err(deadline.error()),
        };
        let active = inner.authorizer.active();
        if !(request.precondition)(active.as_deref()) {
            return Err(ReplaceError::PreconditionFailed(active));
        }
        let file = inner.state().source.files.clone();
        let is_rollback = matches!(request.source, ReplacementSource::Previous);
        let mut promoted = None;
        let (bundle, next) = match request.source {
            ReplacementSource::Shadow(policy) => guard.promote(promoted.insert(policy)).await?,
            ReplacementSource::Bundle(bundle) => {
                let bundle = with_cases_of_file(bundle, file.as_ref(), inner).await;
                prepare(&guard, bundle.map_err(ReplaceError::Activation)?).await?
            }
            ReplacementSource::Previous => {
                let bundle = previous(inner, file.as_ref()).await.map_err(ReplaceError::NoPreviousPolicy)?;
                prepare(&guard, bundle).await?
            }
        };
        if !deadline.decide() {
            return Err(deadline.error());
        }
        if dry_run {
            let cases = next.attachments.suite.as_ref().map_or(0, |suite| suite.cases.len());
            return Ok(Replacement::Passed { digest: next.policy.digest().to_string(), cases });
        }
        let removed = if is_rollback { inner.history().remove_active() } else { None };
        let activated = persist_and_activate(&guard, bundle, next, file).await;
        match (&activated, &promoted) {
            (Err(_), _) => inner.history().restore(removed),
            (Ok(_), Some(policy)) => inner.stop_shadow(policy),
            (Ok(_), None) => {}
        }
        activated.map_err(ReplaceError::Activation)
    }
}

/// The time of a request. Either it passes, or the request is carried out.
#[derive(Clone)]
struct Deadline {
    timeout: Duration,
    end: Option<Instant>,
    decided: Arc<AtomicBool>,
}

impl Deadline {
    fn new(timeout: Option<Duration>) -> Self {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self { timeout: timeout.unwrap_or_default(), end, decided: Arc::default() }
    }

    async fn passed(&self) {
        match self.end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }

    /// True for the first call: that of the caller, when the time is over, or that of the task, when it is about to activate the policy.
    fn decide(&self) -> bool {
        !self.decided.swap(true, Ordering::Relaxed)
    }

    const fn error(&self) -> ReplaceError {
        ReplaceError::TimedOut(self.timeout)
    }
}

async fn prepare(
    guard: &ActivationGuard<'_>,
    bundle: PolicyBundle,
) -> Result<(PolicyBundle, PreparedPolicy), ReplaceError> {
    let next = guard.prepare(&bundle, guard.inner.authorizer.context(), control_port()).await;
    Ok((bundle, next.map_err(ReplaceError::Activation)?))
}

pub(super) fn control_port() -> PolicyOrigin {
    PolicyOrigin { source: "control port".into(), ..PolicyOrigin::default() }
}

/// Replaces the policy's file first: if the process ends in between, the next start activates the policy, which has passed all stages.
async fn persist_and_activate(
    guard: &ActivationGuard<'_>,
    bundle: PolicyBundle,
    mut next: PreparedPolicy,
    file: Option<PolicySource>,
) -> Result<Replacement, Arc<ActivationError>> {
    let written = match file {
        None => Err("the policy of the configuration is not a file".to_owned()),
        Some(file) => {
            let bundle = bundle.clone();
            blocking(move || file.write(&bundle)).await
        }
    };
    let not_persisted = match written {
        Ok(fingerprint) => {
            guard.inner.state().source.fingerprint = fingerprint;
            None
        }
        Err(reason) => {
            let policy = next.policy.digest();
            tracing::warn!(%policy, reason, "the policy file cannot be replaced; the new policy is active until the next start");
            next.origin.persisted = false;
            Some(reason)
        }
    };
    let info = guard.activate(next, Some(bundle)).await?;
    Ok(Replacement::Activated { info, not_persisted })
}

/// Adds the test cases that belong to the policy's file to a bundle without any, as the next start runs them, too.
pub(super) async fn with_cases_of_file(
    mut bundle: PolicyBundle,
    file: Option<&PolicySource>,
    inner: &Inner,
) -> Result<PolicyBundle, Arc<ActivationError>> {
    let Some(file) = file.filter(|_| bundle.cases.is_none()).cloned() else { return Ok(bundle) };
    let cases_dir = file.cases_dir();
    match blocking(move || file.read_cases()).await {
        Ok(None) => {}
        Ok(cases) => (bundle.cases, bundle.cases_dir) = (cases, cases_dir),
        Err(reason) => {
            let error = StageError::new(Stage::Fetched, reason);
            return Err(inner.fail(error, Some(bundle.digest()), &control_port()));
        }
    }
    Ok(bundle)
}

async fn previous(inner: &Inner, file: Option<&PolicySource>) -> Result<PolicyBundle, String> {
    let target = inner.history().target().map(|entry| entry.bundle);
    let digests = target.ok_or("no other policy was active here that is remembered")?;
    let records = inner.records.clone().ok_or("without a cache-dir no policy is saved to roll back to")?;
    let read = blocking(move || records.store().read(&digests)).await;
    let bundle = read.map_err(|error| format!("{} cannot be read from cache-dir: {error}", digests.component))?;
    Ok(PolicyBundle { cases_dir: file.and_then(PolicySource::cases_dir), ..bundle })
}
