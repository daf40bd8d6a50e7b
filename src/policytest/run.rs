//! Asks a policy the cases, through the gate that the gateway asks it through.

use std::sync::Arc;
use std::time::Duration;

use crate::authz::authorizer::Authorizer;
use crate::policy::decision_view::{DecisionView, Difference};
use crate::policy::{Decision, Limits, Outcome, Request};
use crate::policytest::unavailable_store::Away;
use crate::policytest::{TestCase, TestRequest, TestWorld};
use crate::store::Store;
use crate::store::memory::{MemoryStore, system_clock};
use crate::util::id::random_id;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::host::PolicyEnv;

/// Look-ups are all that a case's store is for, so it needs no room for streams.
const STREAMS: usize = 1 << 16;

/// What came of a case.
#[derive(Clone, Debug)]
pub struct CaseOutcome {
    /// What was expected.
    pub expected: DecisionView,
    /// What was decided.
    pub got: DecisionView,
    /// Where that is not what was expected.
    pub differences: Vec<Difference>,
    /// It was decided on an instance that was prepared; one that was not had decided as expected.
    pub prepared: bool,
}

impl CaseOutcome {
    /// Whether the policy did as it should.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

impl TestWorld {
    /// The same for the gate.
    #[must_use]
    pub fn env(&self, limits: &Limits) -> PolicyEnv {
        let clock = self.now.map_or_else(system_clock, |now| Arc::new(move || now));
        let store: Arc<dyn Store> = if self.store_unavailable {
            Arc::new(Away)
        } else {
            Arc::new(MemoryStore::new(STREAMS, self.store.clone(), Arc::clone(&clock)))
        };
        PolicyEnv {
            prefixes: self.prefixes.clone(),
            settings: self.settings.clone().into_iter().collect(),
            tokens: self.tokens.clone(),
            clock,
            ..PolicyEnv::new(store, limits)
        }
    }
}

impl TestRequest {
    /// The same for the gate.
    #[must_use]
    pub fn request(&self) -> Request {
        Request {
            method: self.method.clone(),
            scheme: self.scheme.clone(),
            authority: self.authority.clone(),
            path_with_query: self.path_with_query.clone(),
            headers: self.headers.clone(),
            client_address: self.client_address.clone(),
            id: random_id(),
        }
    }
}

/// A door with this policy in force, in a case's world. It has no instances ready but those that are asked for, and keeps no
/// answers.
#[must_use]
pub fn authorizer(compiler: &Compiler, policy: &Policy, limits: &Limits, world: &TestWorld) -> Authorizer {
    let limits = Limits { prepared: 0, cache: 0, ..limits.clone() };
    let authorizer = Authorizer::new(compiler.clone(), world.env(&limits), limits, Arc::default());
    authorizer.activate(policy.clone());
    authorizer
}

/// Asks one case; and, where the policy prepares itself, once more on an instance that was prepared: in the gateway most are,
/// and it must not show.
pub async fn run(compiler: &Compiler, policy: &Policy, limits: &Limits, case: &TestCase) -> CaseOutcome {
    let authorizer = authorizer(compiler, policy, limits, &case.world);
    let verdict = ask(&authorizer, case).await;
    if !verdict.passed() || policy.preparation().is_none() {
        return verdict;
    }
    let verdict = match authorizer.prepare_one().await {
        Ok(()) => ask(&authorizer, case).await,
        Err(failure) => {
            let outcome = Outcome::Failed(failure);
            compare(
                case,
                &Decision { outcome, reason: None, cached: false, revoked: false, took: Duration::ZERO, by: None },
            )
        }
    };
    CaseOutcome { prepared: true, ..verdict }
}

async fn ask(authorizer: &Authorizer, case: &TestCase) -> CaseOutcome {
    compare(case, &authorizer.decide(&case.ask.request(), &case.ask.channels).await)
}

fn compare(case: &TestCase, decision: &Decision) -> CaseOutcome {
    let got = DecisionView::new(decision, &case.ask.channels);
    let expected = case.expect.filled(&got);
    CaseOutcome { differences: expected.differences(&got), expected, got, prepared: false }
}
