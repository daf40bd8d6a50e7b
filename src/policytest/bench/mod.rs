//! Measures the cost of a policy's decisions: time, which depends on the machine, and fuel and memory, which do not. Nothing here prints.

pub(crate) mod fuel;
pub(crate) mod latency;

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::policy::{Failure, Limits};
use crate::policytest::TestCase;
use crate::policytest::bench::fuel::Fuel;
use crate::policytest::bench::latency::{Latency, PrewarmedLatency, Throughput};
use crate::telemetry::process;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;

/// How long each part is measured.
#[derive(Clone, Copy, Debug)]
pub enum BenchLength {
    Time(Duration),
    /// In decisions.
    Count(u64),
}

#[derive(Clone, Debug, Serialize)]
pub struct BenchResults {
    pub component_bytes: usize,
    /// Compiling the component.
    pub compile_us: f64,
    /// Loading it again from the compiler's cache, as after a restart.
    pub load_us: f64,
    /// The first decision after loading.
    pub cold_us: f64,
    /// One decision at a time, each on a new instance.
    pub fresh: Latency,
    /// One decision at a time, each on a prewarmed instance.
    pub prewarmed: PrewarmedLatency,
    /// Decisions on all cores at once.
    pub throughput: Throughput,
    /// Memories and tables of the largest instance.
    pub instance_bytes: usize,
    /// Growth of the process's resident memory during the benchmark; `None` if the system does not report it.
    pub resident_growth_bytes: Option<i64>,
    /// Wasmtime's count of instructions per decision.
    pub fuel: Fuel,
}

/// Measures a policy with these cases in turn. The decisions are not compared with the expected ones, but an evaluation that fails is
/// an error.
pub fn measure(
    compiler: &Compiler,
    bytes: &[u8],
    cases: &[TestCase],
    limits: &Limits,
    length: BenchLength,
) -> anyhow::Result<BenchResults> {
    let resident_before = process::resident();
    let (policy, compile) = timed(|| Policy::new(compiler, bytes));
    // Otherwise the second one would find pages of the first in memory.
    drop(policy?);
    let (policy, load) = timed(|| Policy::new(compiler, bytes));
    let policy = policy?;
    let bench = latency::LatencyBench::new(compiler, &policy, limits, cases);
    let cold_us = bench.fresh(BenchLength::Count(1))?.max_us;
    bench.save_checkpoints()?;
    bench.fresh(latency::WARM_UP)?;
    let fresh = bench.fresh(length)?;
    let prewarmed = bench.prewarmed(length)?;
    let throughput = bench.all_cores(length)?;
    let resident = resident_before.zip(process::resident());
    let (fuel, instance_bytes) = fuel::count(bytes, cases, limits)?;
    Ok(BenchResults {
        component_bytes: bytes.len(),
        compile_us: us(compile),
        load_us: us(load),
        cold_us,
        fresh,
        prewarmed,
        throughput,
        instance_bytes,
        resident_growth_bytes: resident.map(|(before, after)| after.saturating_sub(before).max(0)),
        fuel,
    })
}

/// The error of a case for which the policy made no decision.
fn decision_error(case: &TestCase, failure: &Failure) -> anyhow::Error {
    anyhow::anyhow!("case {:?}: {failure}", case.name)
}

fn single_thread() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot create a runtime")
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Microseconds with one decimal: more digits are noise.
fn us(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}
