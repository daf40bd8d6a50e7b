//! The stages that turn a bundle into a policy that may be activated. They change no state.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::policy_store::MAX_BLOB_BYTES;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::artifact::signature::{Signature, SignatureError, Statement};
use crate::policytest::file;
use crate::policytest::file::{FileAccess, parse_with_access};
use crate::policytest::{TestSuite, run};
use crate::rollout::prepared::PolicyAttachments;
use crate::rollout::requirements;
use crate::rollout::stage::{Stage, StageError};
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyContext;
use crate::wasm::load_error::{LoadError, MAX_COMPONENT_BYTES};

/// Bytes of the test cases of a bundle.
pub const MAX_CASES: usize = file::MAX_FILE_BYTES as usize;
const _: () = assert!(
    MAX_COMPONENT_BYTES <= MAX_BLOB_BYTES && MAX_CASES as u64 <= MAX_BLOB_BYTES,
    "the policy store takes all bundles"
);
/// For all test cases together; those of the examples take some milliseconds. No other policy can be activated meanwhile.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Errors call test cases by this name, as they may have no file.
const CASES_NAME: &str = "cases";

/// Called with each stage that a policy reached.
pub type ProgressFn = Arc<dyn Fn(Stage) + Send + Sync>;

/// All stages but the last, with what they check against.
pub struct Pipeline {
    /// Compiles the component and runs its test cases.
    pub compiler: Compiler,
    /// Who has to sign.
    pub signatures: SignaturePolicy,
    /// Whether the configuration has to have what the policy requires.
    pub checks_requirements: bool,
    /// Learns how far the policy is.
    pub progress: ProgressFn,
}

/// A policy that passed all stages but the last.
pub struct PassedStages {
    /// The compiled component.
    pub policy: Policy,
    /// What came with the component.
    pub attachments: PolicyAttachments,
    /// What was signed, if a signature is required.
    pub signed: Option<Statement>,
}

impl Pipeline {
    /// Takes a bundle through all stages but the last.
    pub async fn run_stages(
        self,
        bundle: PolicyBundle,
        context: Arc<PolicyContext>,
    ) -> Result<PassedStages, StageError> {
        // On a thread of its own: digests, signatures and compilation take longer than a thread that serves streams has.
        let run = move || self.load(&bundle).map(|passed| (passed, self));
        let (passed, pipeline) = joined(tokio::task::spawn_blocking(run).await)?;
        pipeline.revalidate(&passed.policy, &passed.attachments, &context).await?;
        Ok(passed)
    }

    fn load(&self, bundle: &PolicyBundle) -> Result<PassedStages, StageError> {
        check_sizes(bundle)?;
        (self.progress)(Stage::Fetched);
        let signed = verify(&self.signatures, bundle).map_err(|error| StageError::new(Stage::Verified, error))?;
        (self.progress)(Stage::Verified);
        let attachments = attachments(bundle)?;
        let loaded = Policy::with_digest(&self.compiler, &bundle.component, bundle.digest);
        let policy = loaded.map_err(|error| StageError::new(failed_stage(&error), error))?;
        (self.progress)(Stage::Compiled);
        Ok(PassedStages { policy, attachments, signed })
    }

    /// The stages whose result depends on the configuration.
    pub async fn revalidate(
        &self,
        policy: &Policy,
        attachments: &PolicyAttachments,
        context: &PolicyContext,
    ) -> Result<(), StageError> {
        let Some(suite) = attachments.suite.as_deref() else {
            (self.progress)(Stage::Tested);
            return Ok(());
        };
        let missing = requirements::missing(&suite.requires, &context.env);
        if !missing.is_empty() && self.checks_requirements {
            return Err(StageError::new(Stage::Linked, format!("it requires {}", missing.join("; and "))));
        }
        (self.progress)(Stage::Linked);
        let tested = tokio::time::timeout(TEST_TIMEOUT, test(&self.compiler, policy, suite, context)).await;
        let tested = tested.unwrap_or_else(|_| Err(format!("its test cases took longer than {TEST_TIMEOUT:?}")));
        tested.map_err(|reason| StageError::new(Stage::Tested, reason))?;
        (self.progress)(Stage::Tested);
        Ok(())
    }
}

/// The result of a blocking task. A panic goes on in the caller, whose own task reports how far the policy came; a task that was cancelled,
/// because the runtime shuts down before a thread took it, reached no stage.
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

fn attachments(bundle: &PolicyBundle) -> Result<PolicyAttachments, StageError> {
    let access = bundle.cases_dir.as_deref().map_or(FileAccess::Nowhere, FileAccess::Below);
    let suite = bundle.cases.as_ref().map(|text| parse_with_access(Path::new(CASES_NAME), text, access).map(Arc::new));
    let suite = suite.transpose().map_err(|error| StageError::new(Stage::Tested, format!("its {error}")))?;
    Ok(PolicyAttachments { suite, digests: bundle.digests() })
}

/// Checks a bundle's signature. Returns what was signed, if a signature is required.
pub fn verify(signatures: &SignaturePolicy, bundle: &PolicyBundle) -> Result<Option<Statement>, SignatureError> {
    let signature = bundle.signature.as_ref().map(|text| Signature::parse(text.as_bytes())).transpose()?;
    signatures.verify(bundle.digest, bundle.cases.as_deref(), signature.as_ref())
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

/// The stage that a component which does not load failed.
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
