//! Runs test cases with the authorizer that the gateway uses.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::authz::authorizer::Authorizer;
use crate::policy::decision_view::{DecisionView, Difference};
use crate::policy::{Decision, Limits, Outcome, Request};
use crate::policytest::{TestCase, TestEnv};
use crate::store::memory::MemoryStore;
use crate::store::{KeyLookup, StoreError};
use crate::util::clock::system_clock;
use crate::util::id::random_id;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyEnv;

/// Memory for streams in a case's store, which only serves look-ups.
const STREAM_BYTES: usize = 1 << 16;

/// The result of one test case.
#[derive(Clone, Debug)]
pub struct CaseOutcome {
    pub expected: DecisionView,
    pub got: DecisionView,
    /// The fields in which `got` is not as expected.
    pub differences: Vec<Difference>,
    /// Whether the instance was prewarmed. If so, a new instance decided as expected before.
    pub prewarmed: bool,
}

impl CaseOutcome {
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

impl TestEnv {
    pub fn policy_env(&self, limits: &Limits) -> PolicyEnv {
        let clock = self.now.map_or_else(system_clock, |now| Arc::new(move || now));
        let store: Arc<dyn KeyLookup> = if self.store_unavailable {
            Arc::new(UnavailableStore)
        } else {
            Arc::new(MemoryStore::new(STREAM_BYTES, self.store.clone(), Arc::clone(&clock)))
        };
        PolicyEnv {
            lookup_prefixes: self.prefixes.clone(),
            settings: self.settings.clone().into_iter().collect(),
            tokens: self.tokens.clone(),
            clock,
            ..PolicyEnv::new(store, limits)
        }
    }
}

/// The store of a case with `store_unavailable`: every look-up fails.
struct UnavailableStore;

impl UnavailableStore {
    fn error<T>() -> Result<T, StoreError> {
        Err(StoreError::Unavailable("the case makes the store unavailable".into()))
    }
}

#[async_trait]
impl KeyLookup for UnavailableStore {
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Self::error()
    }

    async fn hash_get(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Self::error()
    }

    async fn set_contains(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        Self::error()
    }
}

impl TestCase {
    /// The request with a new id.
    pub(super) fn new_request(&self) -> Request {
        Request { id: random_id(), ..self.request.clone() }
    }
}

/// An authorizer with this policy active in a case's environment. It prewarms no instances by itself and caches no decisions.
pub fn authorizer(compiler: &Compiler, policy: &Policy, limits: &Limits, env: &TestEnv) -> Authorizer {
    let limits = Limits { prewarmed_instances: 0, cache_size: 0, ..limits.clone() };
    let authorizer = Authorizer::new(compiler.clone(), env.policy_env(&limits), limits, Arc::default());
    authorizer.activate(policy.clone());
    authorizer
}

/// Runs one case. If the policy exports a preparation, runs it once more on a prewarmed instance: most instances in the gateway are
/// prewarmed, and the decision must be the same.
pub async fn run(compiler: &Compiler, policy: &Policy, limits: &Limits, case: &TestCase) -> CaseOutcome {
    let authorizer = authorizer(compiler, policy, limits, &case.env);
    let outcome = evaluate(&authorizer, case).await;
    if !outcome.passed() || policy.preparation().is_none() {
        return outcome;
    }
    let prewarmed = async {
        authorizer.save_checkpoint().await?;
        authorizer.prewarm_one().await
    };
    let outcome = match prewarmed.await {
        Ok(()) => evaluate(&authorizer, case).await,
        Err(failure) => {
            let (outcome, duration) = (Outcome::Failed(failure), Duration::ZERO);
            compare(case, &Decision { outcome, reason: None, cached: false, revoked: false, duration, policy: None })
        }
    };
    CaseOutcome { prewarmed: true, ..outcome }
}

async fn evaluate(authorizer: &Authorizer, case: &TestCase) -> CaseOutcome {
    compare(case, &authorizer.evaluate(&case.new_request(), &case.channels).await)
}

fn compare(case: &TestCase, decision: &Decision) -> CaseOutcome {
    let got = DecisionView::new(decision, &case.channels);
    let expected = case.expect.filled(&got);
    CaseOutcome { differences: expected.differences(&got), expected, got, prewarmed: false }
}
