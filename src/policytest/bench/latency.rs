//! Measures latency and throughput in wall-clock time.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::runtime::Builder;

use crate::authz::authorizer::Authorizer;
use crate::authz::generation;
use crate::policy::{Decision, Limits, Outcome};
use crate::policytest::bench::{BenchLength, decision_error, single_thread, us};
use crate::policytest::{TestCase, run};
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;

/// Upper end of the histograms; longer decisions count as this.
const MAX_LATENCY: Duration = Duration::from_secs(60);
/// Runs before the measurement, so that caches are filled and the processor's clock is up.
pub const WARM_UP: BenchLength = BenchLength::Time(Duration::from_millis(300));

/// Times of decisions, in µs.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Measured decisions.
    pub count: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Decisions on prewarmed instances.
#[derive(Clone, Debug, Serialize)]
pub struct PrewarmedLatency {
    /// The part of a decision for which a request waits.
    #[serde(flatten)]
    pub latency: Latency,
    /// Median time to create an instance, before the request.
    pub creation_us: f64,
    /// Whether a gateway prewarms instances of this policy; it does not if creating one is quick.
    pub enabled: bool,
}

/// Decisions on all cores together.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    pub cores: usize,
    /// Decisions per second.
    pub per_second: f64,
    /// Evaluations that failed, although they succeeded one at a time.
    pub failed: u64,
}

/// One authorizer per test case.
pub struct LatencyBench {
    cases: Arc<[(Authorizer, TestCase)]>,
}

impl LatencyBench {
    pub fn new(compiler: &Compiler, policy: &Policy, limits: &Limits, cases: &[TestCase]) -> Self {
        let authorizer = |case: &TestCase| (run::authorizer(compiler, policy, limits, &case.env), case.clone());
        Self { cases: cases.iter().map(authorizer).collect() }
    }

    /// Saves the checkpoints of the policy, as a gateway does after an activation.
    pub fn save_checkpoints(&self) -> anyhow::Result<()> {
        single_thread()?.block_on(async {
            for (authorizer, case) in &*self.cases {
                authorizer.save_checkpoint().await.map_err(|failure| decision_error(case, &failure))?;
            }
            Ok(())
        })
    }

    /// One decision at a time, each on a new instance.
    pub fn fresh(&self, length: BenchLength) -> anyhow::Result<Latency> {
        single_thread()?.block_on(async {
            let mut times = histogram()?;
            let (start, mut done) = (Instant::now(), 0);
            while !length.reached(start, done) {
                record(&mut times, decide(&self.cases, done).await?.duration);
                done += 1;
            }
            Ok(Latency::from(&times))
        })
    }

    /// One decision at a time, each on an instance that was prewarmed just before.
    pub fn prewarmed(&self, length: BenchLength) -> anyhow::Result<PrewarmedLatency> {
        single_thread()?.block_on(async {
            let (mut creation, mut latency) = (histogram()?, histogram()?);
            let (start, mut done) = (Instant::now(), 0);
            while !length.reached(start, done) {
                let (authorizer, case) = nth(&self.cases, done);
                let begin = Instant::now();
                authorizer.prewarm_one().await.map_err(|failure| decision_error(case, &failure))?;
                record(&mut creation, begin.elapsed());
                record(&mut latency, decide(&self.cases, done).await?.duration);
                done += 1;
            }
            let creation = Duration::from_nanos(creation.value_at_quantile(0.5));
            let enabled = creation >= generation::MIN_PREWARM_TIME;
            Ok(PrewarmedLatency { latency: Latency::from(&latency), creation_us: us(creation), enabled })
        })
    }

    /// As many decisions as possible on all cores.
    pub fn all_cores(&self, length: BenchLength) -> anyhow::Result<Throughput> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_multi_thread().worker_threads(cores).enable_all().build()?;
        let task_length = match length {
            BenchLength::Count(count) => BenchLength::Count(count.div_ceil(cores as u64).max(1)),
            time @ BenchLength::Time(_) => time,
        };
        let start = Instant::now();
        let each = |number: usize| {
            let cases = Arc::clone(&self.cases);
            runtime.spawn(async move {
                let (mut done, mut failed) = (0, 0);
                while !task_length.reached(start, done) {
                    // Each task begins with another case, so that not all run the same one at once.
                    failed += u64::from(decide(&cases, done + number as u64).await.is_err());
                    done += 1;
                }
                (done, failed)
            })
        };
        let tasks = runtime.block_on(join_all((0..cores).map(each)));
        let (done, failed) = tasks.into_iter().flatten().fold((0, 0), |sum, task| (sum.0 + task.0, sum.1 + task.1));
        let per_second = (done as f64 / start.elapsed().as_secs_f64()).round();
        Ok(Throughput { cores, per_second, failed })
    }
}

impl BenchLength {
    fn reached(self, start: Instant, done: u64) -> bool {
        match self {
            Self::Time(time) => done > 0 && start.elapsed() >= time,
            Self::Count(count) => done >= count,
        }
    }
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    let longest = u64::try_from(MAX_LATENCY.as_nanos()).unwrap_or(u64::MAX);
    Ok(Histogram::new_with_bounds(1, longest, 3)?)
}

fn record(times: &mut Histogram<u64>, took: Duration) {
    times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
}

impl From<&Histogram<u64>> for Latency {
    fn from(times: &Histogram<u64>) -> Self {
        let at = |quantile| us(Duration::from_nanos(times.value_at_quantile(quantile)));
        let max_us = us(Duration::from_nanos(times.max()));
        Self { count: times.len(), p50_us: at(0.5), p99_us: at(0.99), max_us }
    }
}

fn nth(cases: &[(Authorizer, TestCase)], number: u64) -> &(Authorizer, TestCase) {
    &cases[usize::try_from(number % cases.len() as u64).unwrap_or(0)]
}

/// Makes one decision. A failed evaluation is an error, because its cost means nothing.
async fn decide(cases: &[(Authorizer, TestCase)], number: u64) -> anyhow::Result<Decision> {
    let (authorizer, case) = nth(cases, number);
    let decision = authorizer.evaluate(&case.new_request(), &case.channels).await;
    match decision.outcome {
        Outcome::Failed(failure) => Err(decision_error(case, &failure)),
        _ => Ok(decision),
    }
}
