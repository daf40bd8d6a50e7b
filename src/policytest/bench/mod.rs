//! Measures the cost of a policy's decisions: time, which depends on the machine, and fuel and memory, which do not. Nothing here prints.

pub(crate) mod fuel;
pub(crate) mod latency;

use crate::policytest::bench::fuel::Fuel;
use crate::policytest::bench::latency::Latency;
use crate::policytest::bench::latency::PrewarmedLatency;
use crate::policytest::bench::latency::Throughput;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::policy::{Failure, Limits};
use crate::policytest::TestCase;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::load_error::LoadError;

/// How long each part is measured.
#[derive(Clone, Copy, Debug)]
pub enum BenchLength {
    Time(Duration),
    /// In decisions.
    Count(u64),
}

/// Times are in µs, sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct BenchResults {
    /// Size of the component.
    pub size: usize,
    /// Compiling the component.
    pub compile_us: f64,
    /// Loading it again from the compiler's cache, as after a restart.
    pub load_us: f64,
    /// The first decision after loading.
    pub cold_us: f64,
    /// One decision at a time, each on a new instance.
    pub fresh: Latency,
    /// One decision at a time, each on a prewarmed instance.
    pub prepared: PrewarmedLatency,
    /// Decisions on all cores at once.
    pub throughput: Throughput,
    /// Memories and tables of the largest instance.
    pub instance_memory: usize,
    /// Growth of the process's resident memory during the benchmark; `None` if the system does not report it.
    pub resident_growth: Option<u64>,
    /// Wasmtime's count of instructions per decision.
    pub fuel: Fuel,
}

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The component is not a policy.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The policy made no decision.
    #[error("case {case:?}: {failure}")]
    Decision {
        /// Name of the test case.
        case: String,
        failure: Failure,
    },
    /// A runtime or an engine could not be created.
    #[error("cannot create a runtime or an engine: {0}")]
    Host(String),
}

/// Measures a policy with these cases in turn. The decisions are not compared with the expected ones, but an evaluation that fails is
/// an error.
pub fn measure(
    compiler: &Compiler,
    bytes: &[u8],
    cases: &[TestCase],
    limits: &Limits,
    length: BenchLength,
) -> Result<BenchResults, BenchError> {
    let host = |error: &dyn std::fmt::Display| BenchError::Host(error.to_string());
    let resident = resident();
    let (policy, compile) = timed(|| Policy::new(compiler, bytes));
    // Without this the second one would find pages of the first in memory.
    drop(policy?);
    let (policy, load) = timed(|| Policy::new(compiler, bytes));
    let policy = policy?;
    let bench = latency::LatencyBench::new(compiler, &policy, limits, cases);
    let cold = bench.first().map_err(|error| host(&error))??;
    let fresh = bench.one_at_a_time(length).map_err(|error| host(&error))??;
    let prepared = bench.prepared(&policy, length).map_err(|error| host(&error))??;
    let throughput = bench.all_cores(length).map_err(|error| host(&error))?;
    let resident_growth =
        resident.zip(crate::policytest::bench::resident()).map(|(before, after)| after.saturating_sub(before));
    let (fuel, instance_memory) = fuel::count(bytes, cases, limits)?;
    Ok(BenchResults {
        size: bytes.len(),
        compile_us: us(compile),
        load_us: us(load),
        cold_us: us(cold),
        fresh,
        prepared,
        throughput,
        instance_memory,
        resident_growth,
        fuel,
    })
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

/// The process's resident memory in bytes, if the system reports it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
