//! What a policy's decisions cost: time, which depends on the machine, and fuel and memory, which do not. Nothing here prints.

pub(crate) mod fuel;
pub(crate) mod latency;

use crate::policytest::bench::fuel::Fuel;
use crate::policytest::bench::latency::Latency;
use crate::policytest::bench::latency::Prepared;
use crate::policytest::bench::latency::Throughput;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::policy::{Failure, Limits};
use crate::policytest::TestCase;
use crate::util::files;
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::load_error::LoadError;

/// How long each part is measured.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// For so long.
    Time(Duration),
    /// For so many decisions.
    Count(u64),
}

/// What was measured. Times are in µs, sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// The component.
    pub size: usize,
    /// From WebAssembly to a policy that could be asked.
    pub compile_us: f64,
    /// The same once more, with what the compiler kept of it, as at a restart.
    pub load_us: f64,
    /// The first decision after it was loaded.
    pub cold_us: f64,
    /// One decision at a time, each on an instance that is made when it is asked for.
    pub fresh: Latency,
    /// The same, each on an instance that was made before its request came.
    pub prepared: Prepared,
    /// All cores at once.
    pub throughput: Throughput,
    /// Memories and tables of the instance that used most.
    pub instance_memory: usize,
    /// What the process grew by, from before the policy was loaded until all was measured; none where the system does not say.
    pub resident_growth: Option<u64>,
    /// The instructions of a decision, as wasmtime counts them.
    pub fuel: Fuel,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The component is no policy.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// It does not decide.
    #[error("case {case:?}: {failure}")]
    Decision {
        /// Which case.
        case: String,
        /// Why.
        failure: Failure,
    },
    /// This process could not be made ready.
    #[error("cannot start a runtime or an engine: {0}")]
    Host(String),
}

/// Measures a policy, asking it these cases in turn. What it decides is not looked at; that it decides is.
pub fn measure(
    compiler: &Compiler,
    bytes: &[u8],
    cases: &[TestCase],
    limits: &Limits,
    until: Until,
) -> Result<Costs, MeasureError> {
    let host = |error: &dyn std::fmt::Display| MeasureError::Host(error.to_string());
    let resident = resident();
    let (policy, compile) = timed(|| Policy::new(compiler, bytes));
    // Else what follows would find its pages in memory already.
    drop(policy?);
    let (policy, load) = timed(|| Policy::new(compiler, bytes));
    let policy = policy?;
    let asking = latency::Asking::new(compiler, &policy, limits, cases);
    let cold = asking.first().map_err(|error| host(&error))??;
    let fresh = asking.one_at_a_time(until).map_err(|error| host(&error))??;
    let prepared = asking.prepared(&policy, until).map_err(|error| host(&error))??;
    let throughput = asking.all_cores(until).map_err(|error| host(&error))?;
    let resident_growth =
        resident.zip(crate::policytest::bench::resident()).map(|(before, after)| after.saturating_sub(before));
    let (fuel, instance_memory) = fuel::count(bytes, cases, limits)?;
    Ok(Costs {
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

/// µs with one digit behind the point: more is noise.
fn us(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}

/// Bytes of this process that are in memory, where the system says so.
fn resident() -> Option<u64> {
    let status = files::read_text(Path::new("/proc/self/status"), 64 << 10).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
