//! `tidegate policy bench`: measures the cost of a decision.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use crate::commands::policy::component_args::ComponentArgs;
use crate::config::ConfigError;
use crate::policytest::bench::{BenchLength, BenchResults, measure};
use crate::policytest::{TestCase, file};
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
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
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
struct Report<'a> {
    file: String,
    /// The file of test cases; none if one plain request was used.
    cases: Option<String>,
    /// Number of different requests, used in turn.
    requests: usize,
    machine: String,
    #[serde(flatten)]
    costs: &'a BenchResults,
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
    let report = Report {
        file: file.to_string(),
        cases: path.map(|path| path.display().to_string()),
        requests: cases.len(),
        machine: machine(),
        costs: &costs,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text());
    }
    Ok(())
}

impl Report<'_> {
    fn text(&self) -> String {
        let BenchResults { fresh, prepared, throughput, fuel, .. } = self.costs;
        let by = match &self.cases {
            Some(file) => format!("{} test cases of {file}, in turn", self.requests),
            None => "one plain request, since there are no test cases".into(),
        };
        let failed = match throughput.failed {
            0 => String::new(),
            failed => format!("; {failed} errors"),
        };
        let growth = self
            .costs
            .resident_growth
            .map(|growth| format!("; the process grew by {}", size(growth)))
            .unwrap_or_default();
        [
            ("policy", format!("{}, {}", self.file, size(self.costs.size as u64))),
            ("requests", by),
            ("machine", self.machine.clone()),
            (
                "compiled",
                format!("in {}; loaded from the cache in {}", time(self.costs.compile_us), time(self.costs.load_us)),
            ),
            ("cold", format!("{} for the first decision", time(self.costs.cold_us))),
            (
                "fresh",
                format!(
                    "p50 {}, p99 {}, max {} of {} decisions, one at a time, each on a new instance",
                    time(fresh.p50_us),
                    time(fresh.p99_us),
                    time(fresh.max_us),
                    fresh.count
                ),
            ),
            (
                "prewarmed",
                format!(
                    "p50 {}, p99 {} on a prewarmed instance, created in {}{}",
                    time(prepared.left.p50_us),
                    time(prepared.left.p99_us),
                    time(prepared.making_us),
                    if prepared.used { "" } else { ": fast enough that a gateway prewarms none" }
                ),
            ),
            (
                "throughput",
                format!("{} decisions a second on {} cores{failed}", throughput.per_second, throughput.cores),
            ),
            ("memory", format!("{} per instance{growth}", size(self.costs.instance_memory as u64))),
            ("fuel", format!("{} on average, {} to {}; identical in every run", fuel.mean, fuel.least, fuel.most)),
        ]
        .map(|(name, value)| format!("{name:<11} {value}\n"))
        .concat()
    }
}

fn time(us: f64) -> String {
    match us {
        ..1000.0 => format!("{us:.1} µs"),
        ..1_000_000.0 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.1} s", us / 1e6),
    }
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// The processor, and how many cores of it this process may use.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = files::read(Path::new("/proc/cpuinfo"), MAX_CPU_INFO_BYTES).unwrap_or_default();
    let info = String::from_utf8_lossy(&info);
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    format!("{model}, {cores} cores")
}
