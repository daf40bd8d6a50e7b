//! Asks a policy the cases, through the gate that the gateway asks it through.

use std::sync::Arc;
use std::time::Duration;

use super::answer::{Answer, Difference};
use super::away::Away;
use super::{Ask, Case, World};
use crate::policy::compile::Compiler;
use crate::policy::component::Policy;
use crate::policy::gate::Gate;
use crate::policy::{Decision, Limits, Outcome, Request, Surroundings};
use crate::store::Store;
use crate::store::memory::{MemoryStore, system_clock};

/// Look-ups are all that a case's store is for, so it needs no room for streams.
const STREAMS: usize = 1 << 16;

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was expected.
    pub expected: Answer,
    /// What was decided.
    pub got: Answer,
    /// Where that is not what was expected.
    pub differences: Vec<Difference>,
    /// It was decided on an instance that was prepared; one that was not had decided as expected.
    pub prepared: bool,
}

impl Verdict {
    /// Whether the policy did as it should.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

impl World {
    /// The same for the gate.
    #[must_use]
    pub fn surroundings(&self, limits: &Limits) -> Surroundings {
        let clock = self.now.map_or_else(system_clock, |now| Arc::new(move || now));
        let store: Arc<dyn Store> = if self.store_unavailable {
            Arc::new(Away)
        } else {
            Arc::new(MemoryStore::new(STREAMS, self.store.clone(), Arc::clone(&clock)))
        };
        Surroundings {
            prefixes: self.prefixes.clone(),
            settings: self.settings.clone().into_iter().collect(),
            tokens: self.tokens.clone(),
            clock,
            ..Surroundings::new(store, limits)
        }
    }
}

impl Ask {
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
            id: format!("{:016x}", rand::random::<u64>()),
        }
    }
}

/// A door with this policy in force, in a case's world. It has no instances ready but those that are asked for, and keeps no
/// answers.
#[must_use]
pub fn gate(compiler: &Compiler, policy: &Policy, limits: &Limits, world: &World) -> Gate {
    let limits = Limits { prepared: 0, cache: 0, ..limits.clone() };
    let gate = Gate::new(compiler.clone(), world.surroundings(&limits), limits);
    gate.put_in_force(policy.clone());
    gate
}

/// Asks one case; and, where the policy prepares itself, once more on an instance that was prepared: in the gateway most are,
/// and it must not show.
pub async fn run(compiler: &Compiler, policy: &Policy, limits: &Limits, case: &Case) -> Verdict {
    let gate = gate(compiler, policy, limits, &case.world);
    let verdict = ask(&gate, case).await;
    if !verdict.passed() || policy.preparation().is_none() {
        return verdict;
    }
    let verdict = match gate.prepare_one().await {
        Ok(()) => ask(&gate, case).await,
        Err(failure) => {
            let outcome = Outcome::Failed(failure);
            compare(
                case,
                &Decision { outcome, reason: None, cached: false, revoked: false, took: Duration::ZERO, by: None },
            )
        }
    };
    Verdict { prepared: true, ..verdict }
}

async fn ask(gate: &Gate, case: &Case) -> Verdict {
    compare(case, &gate.decide(&case.ask.request(), &case.ask.channels).await)
}

fn compare(case: &Case, decision: &Decision) -> Verdict {
    let got = Answer::new(decision, &case.ask.channels);
    let expected = case.expect.filled(&got);
    Verdict { differences: expected.differences(&got), expected, got, prepared: false }
}
