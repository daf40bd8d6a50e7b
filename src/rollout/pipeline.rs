//! The stages themselves: from bytes to a policy that may take force. Nothing here changes anything.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use crate::artifact::bundle::PolicyBundle;
use crate::artifact::policy_store::MAX_BLOB_BYTES;
use crate::artifact::sequence_ledger::SignaturePolicy;
use crate::artifact::signature::{Signature, SignatureError, Statement};
use crate::policytest::file::parse_within;
use crate::policytest::file::reach::FileAccess;
use crate::policytest::{TestSuite, run};
use crate::rollout::prepared::PolicyAttachments;
use crate::rollout::requirements;
use crate::rollout::stage::{Stage, StageError};
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyContext;
use crate::wasm::load_error::{LoadError, MAX_SIZE};

/// Bytes of the cases that travel with a policy.
pub const MAX_CASES: usize = 1 << 20;
const _: () = assert!(
    MAX_SIZE <= MAX_BLOB_BYTES && MAX_CASES as u64 <= MAX_BLOB_BYTES,
    "what passes the pipeline fits the policy store"
);
/// All cases together; those of the examples take some milliseconds. Nothing else can take force meanwhile.
const TESTING: Duration = Duration::from_secs(60);
/// What cases are called that have no file.
const CASES: &str = "cases";

/// Is told of each stage that was reached.
pub type ProgressFn = Arc<dyn Fn(Stage) + Send + Sync>;

/// What came through.
pub struct StagesPassed {
    /// What may decide.
    pub policy: Policy,
    /// What came with it.
    pub attachments: PolicyAttachments,
    /// What was signed, if it had to be.
    pub signed: Option<Statement>,
}

/// All stages but the last.
pub async fn walk(
    compiler: Compiler,
    signatures: SignaturePolicy,
    artifact: PolicyBundle,
    context: Arc<PolicyContext>,
    elsewhere: bool,
    reached: ProgressFn,
) -> Result<StagesPassed, StageError> {
    // Digests, signatures and machine code take long enough to be in the way of streams.
    let begun = {
        let (compiler, reached) = (compiler.clone(), Arc::clone(&reached));
        tokio::task::spawn_blocking(move || begin(&compiler, &signatures, &artifact, &reached)).await
    };
    let walked = joined(begun)?;
    again(&compiler, &walked.policy, &walked.attachments, &context, elsewhere, &reached).await?;
    Ok(walked)
}

/// The result of a blocking task. A panic goes on in the caller, whose own task reports how far the policy came; a task that was cancelled,
/// because the runtime shuts down before a thread took it, reached no stage.
fn joined<T>(joined: Result<Result<T, StageError>, JoinError>) -> Result<T, StageError> {
    joined.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(cancelled) => Err(StageError::new(Stage::Fetched, cancelled)),
    })
}

fn begin(
    compiler: &Compiler,
    signatures: &SignaturePolicy,
    artifact: &PolicyBundle,
    reached: &ProgressFn,
) -> Result<StagesPassed, StageError> {
    bounds(artifact)?;
    reached(Stage::Fetched);
    let signed = verify(signatures, artifact).map_err(|error| StageError::new(Stage::Verified, error))?;
    reached(Stage::Verified);
    let attachments = attachments(artifact)?;
    let loaded = Policy::of(compiler, &artifact.component, artifact.digest);
    let policy = loaded.map_err(|error| StageError::new(stage_of(&error), error))?;
    reached(Stage::Compiled);
    Ok(StagesPassed { policy, attachments, signed })
}

/// The stages that depend on what is around a policy.
pub async fn again(
    compiler: &Compiler,
    policy: &Policy,
    attachments: &PolicyAttachments,
    context: &PolicyContext,
    elsewhere: bool,
    reached: &ProgressFn,
) -> Result<(), StageError> {
    let Some(suite) = attachments.suite.as_deref() else {
        reached(Stage::Linked);
        reached(Stage::Tested);
        return Ok(());
    };
    let missing = requirements::missing(&suite.requires, &context.env);
    if !missing.is_empty() && !elsewhere {
        return Err(StageError::new(Stage::Linked, format!("it requires {}", missing.join("; and "))));
    }
    reached(Stage::Linked);
    match tokio::time::timeout(TESTING, test(compiler, policy, suite, context)).await {
        Ok(tested) => tested.map_err(|why| StageError::new(Stage::Tested, why))?,
        Err(_) => return Err(StageError::new(Stage::Tested, format!("its cases were not through after {TESTING:?}"))),
    }
    reached(Stage::Tested);
    Ok(())
}

fn bounds(artifact: &PolicyBundle) -> Result<(), StageError> {
    let failed = |why: String| StageError::new(Stage::Fetched, why);
    if artifact.component.len() as u64 > MAX_SIZE {
        return Err(failed(LoadError::TooLarge(artifact.component.len() as u64).to_string()));
    }
    match &artifact.cases {
        Some(text) if text.len() > MAX_CASES => {
            Err(failed(format!("its cases have {} bytes; they have at most {MAX_CASES}", text.len())))
        }
        _ => Ok(()),
    }
}

fn attachments(artifact: &PolicyBundle) -> Result<PolicyAttachments, StageError> {
    let failed = |why: String| StageError::new(Stage::Tested, why);
    let reach = artifact.folder.as_deref().map_or(FileAccess::Nowhere, FileAccess::Below);
    let suite = artifact.cases.as_ref().map(|text| parse_within(Path::new(CASES), text, reach).map(Arc::new));
    let suite = suite.transpose().map_err(|error| failed(format!("its {error}")))?;
    Ok(PolicyAttachments { suite, digests: artifact.digests() })
}

/// Whether it is signed as it has to be.
pub fn verify(signatures: &SignaturePolicy, artifact: &PolicyBundle) -> Result<Option<Statement>, SignatureError> {
    let signature = artifact.signature.as_ref().map(|text| Signature::parse(text.as_bytes())).transpose()?;
    signatures.verify(artifact.digest, artifact.cases.as_deref(), signature.as_ref())
}

async fn test(compiler: &Compiler, policy: &Policy, suite: &TestSuite, context: &PolicyContext) -> Result<(), String> {
    let mut failed = Vec::new();
    for case in &suite.cases {
        let verdict = run::run(compiler, policy, &context.limits, case).await;
        if let Some(difference) = verdict.differences.first() {
            let (field, expected, got) = (difference.field, &difference.expected, &difference.got);
            failed.push(format!("{:?} (line {}): {field} is {got} and not {expected}", case.name, case.line));
        }
    }
    match failed.len() {
        0 => Ok(()),
        1 => Err(format!("its case {}", failed.remove(0))),
        more => Err(format!("{more} of its {} cases fail, first {}", suite.cases.len(), failed.remove(0))),
    }
}

/// What a component that does not load did not become.
const fn stage_of(error: &LoadError) -> Stage {
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
        assert!(error.why.contains("cancelled"), "{}", error.why);
        let panicking = async { joined(tokio::spawn(async { panic!("in a stage") }).await) };
        let failed: Result<Result<(), StageError>, JoinError> = tokio::spawn(panicking).await;
        assert!(failed.expect_err("it panicked").is_panic());
    }
}
