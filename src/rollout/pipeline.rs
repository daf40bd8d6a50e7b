//! The stages that turn a bundle into a policy that may be activated. They change no state.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinError;

use crate::artifact::bundle::{BundleDigests, PolicyBundle};
use crate::artifact::policy_store::MAX_BLOB_BYTES;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::artifact::signature::Signature;
use crate::policy::info::PolicyOrigin;
use crate::policytest::file;
use crate::policytest::file::{FileAccess, parse_with_access};
use crate::policytest::{TestSuite, run};
use crate::rollout::requirements;
use crate::rollout::stage::{Stage, StageError};
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyContext;
use crate::wasm::load_error::{LoadError, MAX_COMPONENT_BYTES};

/// Largest test cases of a bundle in bytes.
pub const MAX_CASES: usize = file::MAX_FILE_BYTES as usize;
const _: () = assert!(
    MAX_COMPONENT_BYTES <= MAX_BLOB_BYTES && MAX_CASES as u64 <= MAX_BLOB_BYTES,
    "the policy store takes all bundles"
);
/// For all test cases of a policy; those of the examples take some milliseconds. No other policy can be activated meanwhile.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Errors name test cases so, because they may have no file.
const CASES_NAME: &str = "cases";

/// A policy that passed every stage but the last.
#[derive(Clone)]
pub struct PreparedPolicy {
    /// The compiled component.
    pub policy: Policy,
    /// The environment and limits that it was tested with.
    pub context: Arc<PolicyContext>,
    pub origin: PolicyOrigin,
    /// The test cases and requirements that came with it. They are checked again when the configuration changes.
    pub suite: Option<Arc<TestSuite>>,
    pub digests: BundleDigests,
}

/// A policy in the pipeline.
#[derive(Debug)]
pub struct PendingActivation {
    /// `sha256:…` of the component.
    pub digest: String,
    /// The stage that it has reached, if any.
    pub stage: Mutex<Option<Stage>>,
    /// In the pipeline since, ms since 1970.
    pub since: u64,
    pub origin: PolicyOrigin,
}

/// All stages but the last, with what they check against.
pub struct Pipeline {
    /// Compiles the component and runs its test cases.
    pub compiler: Compiler,
    pub signatures: SignaturePolicy,
    /// Whether the configuration must have what the policy requires.
    pub checks_requirements: bool,
    /// The policy in the pipeline.
    pub pending: Arc<PendingActivation>,
}

impl Pipeline {
    /// Takes a bundle through all stages but the last.
    pub async fn prepare(
        self,
        bundle: PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, StageError> {
        // On a blocking thread: digests, signatures and compilation take longer than a thread that serves streams may be blocked.
        let load = move || self.load(&bundle, context, origin).map(|prepared| (prepared, self));
        let (prepared, pipeline) = joined(tokio::task::spawn_blocking(load).await)?;
        pipeline.revalidate(&prepared).await?;
        Ok(prepared)
    }

    fn load(
        &self,
        bundle: &PolicyBundle,
        context: Arc<PolicyContext>,
        origin: PolicyOrigin,
    ) -> Result<PreparedPolicy, StageError> {
        check_sizes(bundle)?;
        self.reach(Stage::Fetched);
        let signed = verify(&self.signatures, bundle)?;
        self.reach(Stage::Verified);
        let suite = parse_suite(bundle)?;
        let loaded = Policy::with_digest(&self.compiler, &bundle.component, bundle.digest);
        let policy = loaded.map_err(|error| StageError::new(failed_stage(&error), error))?;
        self.reach(Stage::Compiled);
        let sequence = signed.as_ref().map(|signature| signature.statement().sequence).or(origin.sequence);
        let origin = PolicyOrigin { sequence, signed, ..origin };
        Ok(PreparedPolicy { policy, context, origin, suite, digests: bundle.digests() })
    }

    /// The stages whose result depends on the configuration.
    pub async fn revalidate(&self, next: &PreparedPolicy) -> Result<(), StageError> {
        self.reach(Stage::Compiled);
        if let Some(suite) = &next.suite {
            let missing = requirements::missing(&suite.requires, &next.context.env);
            if !missing.is_empty() && self.checks_requirements {
                return Err(StageError::new(Stage::Linked, format!("it requires {}", missing.join("; and "))));
            }
            self.reach(Stage::Linked);
            let test = test(&self.compiler, &next.policy, suite, &next.context);
            let tested = tokio::time::timeout(TEST_TIMEOUT, test).await;
            let tested = tested.unwrap_or_else(|_| Err(format!("its test cases took longer than {TEST_TIMEOUT:?}")));
            tested.map_err(|reason| StageError::new(Stage::Tested, reason))?;
        }
        self.reach(Stage::Tested);
        Ok(())
    }

    fn reach(&self, stage: Stage) {
        *self.pending.stage.lock() = Some(stage);
    }
}

/// The result of a blocking task. A panic continues in the caller, whose own task reports which stage failed; a task that was cancelled,
/// because the runtime shut down before a thread took it, reached no stage.
fn joined<T>(joined: Result<Result<T, StageError>, JoinError>) -> Result<T, StageError> {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => Err(StageError::new(Stage::Fetched, cancelled)),
    })
}

fn check_sizes(bundle: &PolicyBundle) -> Result<(), StageError> {
    let (component, cases) = (bundle.component.len() as u64, bundle.cases.as_ref().map_or(0, String::len));
    if component > MAX_COMPONENT_BYTES {
        return Err(StageError::new(Stage::Fetched, LoadError::TooLarge(component)));
    }
    if cases > MAX_CASES {
        let reason = format!("its test cases have {cases} bytes; at most {MAX_CASES} are allowed");
        return Err(StageError::new(Stage::Fetched, reason));
    }
    Ok(())
}

fn parse_suite(bundle: &PolicyBundle) -> Result<Option<Arc<TestSuite>>, StageError> {
    let Some(text) = &bundle.cases else { return Ok(None) };
    let access = bundle.cases_dir.as_deref().map_or(FileAccess::Nowhere, FileAccess::Below);
    let suite = parse_with_access(Path::new(CASES_NAME), text, access);
    suite.map(Arc::new).map(Some).map_err(|error| StageError::new(Stage::Tested, format!("its {error}")))
}

/// Checks a bundle's signature. Returns it, if a signature is required.
pub fn verify(signatures: &SignaturePolicy, bundle: &PolicyBundle) -> Result<Option<Signature>, StageError> {
    let failed = |error| StageError::new(Stage::Verified, error);
    let signature = bundle.signature.as_ref().map(|text| Signature::parse(text.as_bytes())).transpose();
    let signature = signature.map_err(failed)?;
    let statement = signatures.verify(bundle.digest, bundle.cases.as_deref(), signature.as_ref()).map_err(failed)?;
    Ok(signature.filter(|_| statement.is_some()))
}

async fn test(compiler: &Compiler, policy: &Policy, suite: &TestSuite, context: &PolicyContext) -> Result<(), String> {
    let mut failed = Vec::new();
    for case in &suite.cases {
        let verdict = run::run(compiler, policy, &context.limits, case).await;
        if let Some(difference) = verdict.differences.first() {
            let (field, expected, got) = (difference.field, &difference.expected, &difference.got);
            failed.push(format!("{:?} (line {}): {field} is {got}, expected {expected}", case.name, case.line));
        }
    }
    match &failed[..] {
        [] => Ok(()),
        [only] => Err(format!("its test case {only}")),
        [first, ..] => Err(format!("{} of its {} test cases fail, first {first}", failed.len(), suite.cases.len())),
    }
}

/// The stage that fails with this error.
const fn failed_stage(error: &LoadError) -> Stage {
    match error {
        LoadError::Read(_) | LoadError::TooLarge(_) => Stage::Fetched,
        LoadError::MissingImport(_) | LoadError::MissingExport(_) => Stage::Linked,
        _ => Stage::Compiled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cancelled_task_fails_the_first_stage_and_a_panic_goes_on() {
        let task = tokio::spawn(std::future::pending::<Result<(), StageError>>());
        task.abort();
        let error = joined(task.await).expect_err("it was cancelled");
        assert_eq!(error.stage, Stage::Fetched);
        assert!(error.reason.contains("cancelled"), "{}", error.reason);
        let panicking = async { joined(tokio::spawn(async { panic!("in a stage") }).await) };
        let failed: Result<Result<(), StageError>, JoinError> = tokio::spawn(panicking).await;
        assert!(failed.expect_err("it panicked").is_panic());
    }
}
