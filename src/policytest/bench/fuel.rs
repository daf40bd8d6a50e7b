//! Counts fuel, which is the same in every run and on every machine, in a separate engine, because counting takes time.

use std::sync::Arc;

use serde::Serialize;
use wasmtime::Store;

use crate::policy::Limits;
use crate::policytest::TestCase;
use crate::policytest::bench::BenchError;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::host::{State, to_wit};
use crate::wasm::{engine, instance};

/// Fuel of one decision over all test cases, including the creation of the instance.
#[derive(Clone, Debug, Serialize)]
pub struct Fuel {
    pub least: u64,
    pub mean: u64,
    pub most: u64,
}

/// Runs each case once. Returns the fuel, and the memory of the largest instance in bytes.
pub fn count(bytes: &[u8], cases: &[TestCase], limits: &Limits) -> Result<(Fuel, usize), BenchError> {
    let host = |error: &dyn std::fmt::Display| BenchError::Host(error.to_string());
    let compiler = Compiler::from(engine::metered().map_err(|error| host(&error))?);
    let policy = Policy::new(&compiler, bytes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| host(&error))?;
    let mut all = Vec::with_capacity(cases.len());
    let mut memory = 0;
    for case in cases {
        let (fuel, used) = runtime.block_on(one(&policy, case, limits))?;
        all.push(fuel);
        memory = memory.max(used);
    }
    let sum: u64 = all.iter().sum();
    let (least, most) = (all.iter().min().copied().unwrap_or(0), all.iter().max().copied().unwrap_or(0));
    Ok((Fuel { least, mean: sum / (all.len().max(1) as u64), most }, memory))
}

async fn one(policy: &Policy, case: &TestCase, limits: &Limits) -> Result<(u64, usize), BenchError> {
    let env = Arc::new(case.env.policy_env(limits));
    let state = State::new(env, limits.memory, Arc::default(), Arc::clone(policy.digest()));
    let mut store = Store::new(policy.engine(), state);
    store.limiter_async(|state| &mut state.limiter);
    let failed = |error: wasmtime::Error, denied| BenchError::Decision {
        case: case.name.clone(),
        failure: instance::failure(&error, false, denied),
    };
    store.set_fuel(u64::MAX).map_err(|error| failed(error, false))?;
    let call = async {
        let (_, bindings) = policy.instantiate(&mut store).await?;
        let request = to_wit(&case.request.to_request());
        let authorizer = bindings.tidegate_policy_authorizer();
        authorizer.call_authorize(&mut store, &request, &case.request.channels).await
    };
    let answer = call.await;
    answer.map_err(|error| failed(error, store.data().limiter.denied))?.ok();
    let left = store.get_fuel().map_err(|error| failed(error, false))?;
    Ok((u64::MAX - left, limits.memory - store.data().limiter.left()))
}
