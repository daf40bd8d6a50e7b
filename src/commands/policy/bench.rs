//! `tidegate policy bench`: measures the cost of a decision.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;

use crate::commands::policy::component_args::ComponentArgs;
use crate::commands::print_text;
use crate::config::ConfigError;
use crate::policytest::bench::latency::Latency;
use crate::policytest::bench::{BenchLength, BenchResults, measure};
use crate::policytest::{TestCase, file};
use crate::util::duration::parse_argument;
use crate::util::files;
use crate::wasm::compile::Compiler;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// Maximum size of the kernel's description of all cores: about 1.5 KiB each.
const MAX_CPU_INFO_BYTES: u64 = 4 << 20;

/// The request that is used without test cases.
const PLAIN_CASE: &str = "[[case]]\nname = \"a request with nothing in it\"\nexpect.allow = true";

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// Duration of each measurement
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_argument)]
    time: Duration,
    /// Number of decisions of each measurement
    #[arg(long, value_name = "COUNT", conflicts_with = "time", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The output of `--json`.
#[derive(Serialize)]
struct BenchReport {
    file: String,
    /// The file of test cases; none if one plain request was used.
    cases: Option<String>,
    /// Number of different requests, used in turn.
    requests: usize,
    machine: String,
    #[serde(flatten)]
    costs: BenchResults,
}

pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("tidegate: this is a debug build, so its times are not meaningful");
    }
    let path = args.component.cases();
    let cases = match &path {
        Some(path) => args.component.read(path)?,
        None => file::parse(Path::new(file::NAME), PLAIN_CASE).map_err(|error| ConfigError(error.to_string()))?.cases,
    };
    // A case that expects an error runs into a limit, so its cost is that of the limit.
    let cases: Vec<TestCase> = cases.into_iter().filter(|case| case.expect.kind() != Some("error")).collect();
    anyhow::ensure!(
        !cases.is_empty(),
        "policy bench: every test case expects an error, so there is no decision to measure"
    );
    let (limits, _) = args.component.limits()?;
    let until = args.count.map_or(BenchLength::Time(args.time), BenchLength::Count);
    let file = args.component.file.display();
    let bytes = files::read(&args.component.file, MAX_COMPONENT_BYTES)
        .with_context(|| format!("policy {file}: cannot be read"))?;
    // A new cache directory, so that the first compilation is one.
    let cache = tempfile::tempdir().context("cannot create a directory for compiled policies")?;
    let compiler = Compiler::new(&limits, Some(cache.path()))?;
    let costs = measure(&compiler, &bytes, &cases, &limits, until).with_context(|| format!("policy {file}"))?;
    let report = BenchReport {
        file: file.to_string(),
        cases: path.map(|path| path.display().to_string()),
        requests: cases.len(),
        machine: machine(costs.throughput.cores),
        costs,
    };
    print_text(&if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() })
}

impl BenchReport {
    fn text(&self) -> String {
        let costs = &self.costs;
        let BenchResults { fresh, prewarmed, throughput, fuel, .. } = costs;
        let requests = match &self.cases {
            Some(file) => format!("{} test cases of {file}, in turn", self.requests),
            None => "one plain request, since there are no test cases".into(),
        };
        let failed = if throughput.failed > 0 { format!("; {} errors", throughput.failed) } else { String::new() };
        let growth = costs.resident_growth_bytes.and_then(|growth| u64::try_from(growth).ok());
        let growth = growth.map(|growth| format!("; the process grew by {}", ByteSize(growth))).unwrap_or_default();
        let latency = |latency: &Latency| format!("p50 {}, p99 {}", time(latency.p50_us), time(latency.p99_us));
        let enabled = if prewarmed.enabled { "" } else { ": fast enough that a gateway prewarms none" };
        let (component, instance) = (ByteSize(costs.component_bytes as u64), ByteSize(costs.instance_bytes as u64));
        let (compile, load, cold) = (time(costs.compile_us), time(costs.load_us), time(costs.cold_us));
        let (max, creation) = (time(fresh.max_us), time(prewarmed.creation_us));
        [
            format!("policy      {}, {component}", self.file),
            format!("requests    {requests}"),
            format!("machine     {}", self.machine),
            format!("compiled    in {compile}; loaded from the cache in {load}"),
            format!("cold        {cold} for the first decision"),
            format!(
                "fresh       {}, max {max} of {} decisions, one at a time, each on a new instance",
                latency(fresh),
                fresh.count
            ),
            format!(
                "prewarmed   {} on a prewarmed instance, created in {creation}{enabled}",
                latency(&prewarmed.latency)
            ),
            format!("throughput  {} decisions per second on {} cores{failed}", throughput.per_second, throughput.cores),
            format!("memory      {instance} per instance{growth}"),
            format!("fuel        {} on average, {} to {}; identical in every run", fuel.mean, fuel.min, fuel.max),
            String::new(),
        ]
        .join("\n")
    }
}

fn time(us: f64) -> String {
    match us {
        ..1000.0 => format!("{us:.1} µs"),
        ..1_000_000.0 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

/// The processor, and how many cores of it this process may use.
fn machine(cores: usize) -> String {
    let info = files::read(Path::new("/proc/cpuinfo"), MAX_CPU_INFO_BYTES).unwrap_or_default();
    let info = String::from_utf8_lossy(&info);
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{model}, {cores} cores")
}
