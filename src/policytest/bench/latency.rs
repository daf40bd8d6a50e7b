//! The clock on the wall.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::authz::authorizer::Authorizer;
use crate::authz::generation;
use crate::policy::{Decision, Limits, Outcome};
use crate::policytest::bench::{MeasureError, Until, us};
use crate::policytest::{TestCase, run};
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;

/// The longest decision that a histogram tells from longer ones.
const LONGEST: Duration = Duration::from_secs(60);
/// Before what is counted: caches fill, the processor speeds up.
const WARM_UP: Until = Until::Time(Duration::from_millis(300));

/// How long decisions took, µs.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_us: f64,
    /// One in a hundred took longer.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Decisions on instances that were made ahead.
#[derive(Clone, Debug, Serialize)]
pub struct Prepared {
    /// What is left of a decision, for the request that waits.
    #[serde(flatten)]
    pub left: Latency,
    /// The median of making and preparing an instance, off the request's path.
    pub making_us: f64,
    /// Whether a gateway makes instances of this policy ahead; it does not where making one is quick.
    pub used: bool,
}

/// Decisions of all cores together.
#[derive(Clone, Debug, Serialize)]
pub struct Throughput {
    /// How many cores there are.
    pub cores: usize,
    /// Decisions a second.
    pub per_second: f64,
    /// How many of them came to no answer, though they did when they were asked alone.
    pub failed: u64,
}

/// A policy, and doors for all the cases' worlds.
pub struct Asking {
    cases: Arc<[(Authorizer, TestCase)]>,
}

impl Asking {
    pub fn new(compiler: &Compiler, policy: &Policy, limits: &Limits, cases: &[TestCase]) -> Self {
        let door = |case: &TestCase| (run::authorizer(compiler, policy, limits, &case.world), case.clone());
        Self { cases: cases.iter().map(door).collect() }
    }

    /// The first decision.
    pub fn first(&self) -> std::io::Result<Result<Duration, MeasureError>> {
        Ok(single()?.block_on(async { decide(&self.cases, 0).await.map(|decision| decision.duration) }))
    }

    /// One decision after another.
    pub fn one_at_a_time(&self, until: Until) -> std::io::Result<Result<Latency, MeasureError>> {
        Ok(single()?.block_on(async {
            self.fresh(WARM_UP).await?;
            Ok(Latency::from(&self.fresh(until).await?))
        }))
    }

    async fn fresh(&self, until: Until) -> Result<Histogram<u64>, MeasureError> {
        let mut times = histogram()?;
        let (start, mut done) = (Instant::now(), 0);
        while !until.reached(start, done) {
            record(&mut times, decide(&self.cases, done).await?.duration);
            done += 1;
        }
        Ok(times)
    }

    /// The same, each on an instance that was made and prepared just before.
    pub fn prepared(&self, policy: &Policy, until: Until) -> std::io::Result<Result<Prepared, MeasureError>> {
        Ok(single()?.block_on(async {
            let (mut making, mut left) = (histogram()?, histogram()?);
            let (start, mut done) = (Instant::now(), 0);
            while !until.reached(start, done) {
                let (authorizer, case) = nth(&self.cases, done);
                let begin = Instant::now();
                let failed = |failure| MeasureError::Decision { case: case.name.clone(), failure };
                authorizer.prepare_one().await.map_err(failed)?;
                record(&mut making, begin.elapsed());
                record(&mut left, decide(&self.cases, done).await?.duration);
                done += 1;
            }
            let making = Duration::from_nanos(making.value_at_quantile(0.5));
            let used = policy.preparation().is_some() || making >= generation::WORTHWHILE;
            Ok(Prepared { left: Latency::from(&left), making_us: us(making), used })
        }))
    }

    /// As many decisions as all cores make.
    pub fn all_cores(&self, until: Until) -> std::io::Result<Throughput> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_multi_thread().worker_threads(cores).enable_all().build()?;
        let share = match until {
            Until::Count(count) => Until::Count(count.div_ceil(cores as u64).max(1)),
            time @ Until::Time(_) => time,
        };
        let start = Instant::now();
        let each = |number: usize| {
            let cases = Arc::clone(&self.cases);
            runtime.spawn(async move {
                let (mut done, mut failed) = (0, 0);
                while !share.reached(start, done) {
                    // The cases begin elsewhere for each, so that not all do the same at once.
                    failed += u64::from(decide(&cases, done + number as u64).await.is_err());
                    done += 1;
                }
                (done, failed)
            })
        };
        let tasks: Vec<_> = (0..cores).map(each).collect();
        let (done, failed) = runtime.block_on(async {
            let mut sum = (0, 0);
            for task in tasks {
                let (done, failed) = task.await.unwrap_or_default();
                sum = (sum.0 + done, sum.1 + failed);
            }
            sum
        });
        let per_second = (done as f64 / start.elapsed().as_secs_f64()).round();
        Ok(Throughput { cores, per_second, failed })
    }
}

impl Until {
    fn reached(self, start: Instant, done: u64) -> bool {
        match self {
            Self::Time(time) => done > 0 && start.elapsed() >= time,
            Self::Count(count) => done >= count,
        }
    }
}

fn single() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn histogram() -> Result<Histogram<u64>, MeasureError> {
    let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, longest, 3).map_err(|error| MeasureError::Host(error.to_string()))
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

/// One decision; a policy that cannot decide has no cost that would mean anything.
async fn decide(cases: &[(Authorizer, TestCase)], number: u64) -> Result<Decision, MeasureError> {
    let (authorizer, case) = nth(cases, number);
    let decision = authorizer.decide(&case.ask.request(), &case.ask.channels).await;
    match decision.outcome {
        Outcome::Failed(failure) => Err(MeasureError::Decision { case: case.name.clone(), failure }),
        _ => Ok(decision),
    }
}
