//! Counts fuel, which is the same in every run and on every machine, in a separate engine, because counting takes time.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use crate::policy::Limits;
use crate::policytest::TestCase;
use crate::policytest::bench::{decision_error, single_thread};
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::engine::Engines;
use crate::wasm::host::{EvaluationParams, RequestParts, State};
use crate::wasm::instance;

/// Fuel of one decision over all test cases, including the creation of the instance.
#[derive(Clone, Debug, Serialize)]
pub struct Fuel {
    pub min: u64,
    pub mean: u64,
    pub max: u64,
}

/// Runs each case once. Returns the fuel, and the memory of the largest instance in bytes.
pub fn count(bytes: &[u8], cases: &[TestCase], limits: &Limits) -> anyhow::Result<(Fuel, usize)> {
    let policy = Policy::new(&Compiler::from(Engines::metered()?), bytes)?;
    let runtime = single_thread()?;
    let (mut fuel, mut memory) = (Vec::with_capacity(cases.len()), 0);
    for case in cases {
        let (used, in_memory) = runtime.block_on(one(&policy, case, limits))?;
        fuel.push(used);
        memory = memory.max(in_memory);
    }
    let mean = fuel.iter().sum::<u64>() / (fuel.len().max(1) as u64);
    let (min, max) = (fuel.iter().min().copied().unwrap_or(0), fuel.iter().max().copied().unwrap_or(0));
    Ok((Fuel { min, mean, max }, memory))
}

async fn one(policy: &Policy, case: &TestCase, limits: &Limits) -> anyhow::Result<(u64, usize)> {
    let env = Arc::new(case.env.policy_env(limits));
    let new_store = || {
        let state = State::new(Arc::clone(&env), limits, Arc::default(), Arc::clone(policy.digest()));
        let mut store = policy.new_store(state);
        store.limiter_async(|state| &mut state.limiter);
        store.set_fuel(u64::MAX).map(|()| store)
    };
    let failed = |error: wasmtime::Error, is_limit_exceeded| {
        decision_error(case, &instance::failure(&error, false, is_limit_exceeded))
    };
    let mut store = new_store().map_err(|error| failed(error, false))?;
    let call = async {
        let (instance, bindings) = store.instantiate().await?;
        if let Some(functions) = policy.checkpoint() {
            let mut other = new_store()?;
            let (prepared, _) = other.instantiate().await?;
            if let Some(state) = functions.save(&mut other, &prepared).await? {
                functions.restore(&mut store, &instance, &state).await?;
            }
        }
        let request = case.new_request();
        let deadline = Instant::now() + limits.timeout;
        // Without them a look-up fails, and the fuel is that of another decision.
        let params = EvaluationParams { deadline, keys_until: deadline, may_restart: false, lookups: 0, traced: false };
        store.data_mut().start_decision(request.id.clone(), params);
        let parts = RequestParts::new(&request);
        let channels: Vec<&str> = case.channels.iter().map(|channel| &**channel).collect();
        let authorizer = bindings.tidegate_policy_authorizer();
        authorizer.call_authorize(&mut *store, parts.to_wit(), &channels).await
    };
    let answer = call.await;
    answer.map_err(|error| failed(error, store.data().limiter.limit_exceeded))?.ok();
    let left = store.get_fuel().map_err(|error| failed(error, false))?;
    Ok((u64::MAX - left, store.data().limiter.in_use()))
}
