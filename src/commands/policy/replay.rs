//! `tidegate policy replay`: replays recorded decisions against a component and reports differences.

mod recording_reader;
mod report;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use toml::{Table, Value};

use crate::commands::policy::print_text;
use crate::commands::policy::replay::recording_reader::{Line, RecordedCase, RecordingReader};
use crate::commands::policy::replay::report::Report;
use crate::commands::{client_runtime, startup};
use crate::config;
use crate::config::Config;
use crate::config::sources::{merge, single_option};
use crate::policy::Limits;
use crate::policy::decision_view::DecisionView;
use crate::shadow::replay::ReplayEvaluator;
use crate::store::memory::{MemoryStore, system_clock};
use crate::wasm::compile::Compiler;
use crate::wasm::host::PolicyEnv;
use crate::wasm::host_trace::RecordedCalls;

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Recording file of a gateway
    #[arg(value_name = "RECORDING")]
    recording: PathBuf,
    /// Component file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Take the policy settings and the decision limits from this tidegate.toml [default: no settings, the gateway's default limits]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also show differences that do not change the outcome
    #[arg(long)]
    all: bool,
    /// Print JSON lines: one per difference, then one with the totals
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let named = || format!("{}: cannot be read", args.recording.display());
    let recording = BufReader::new(File::open(&args.recording).with_context(named)?);
    let env = args.load_env()?;
    let compiler = Compiler::new(&env.limits, env.cache_dir.as_deref())?;
    let policy = startup::load(&compiler, &args.file)?;
    let mut report = Report::new(policy.digest(), args.all);
    let evaluator = ReplayEvaluator::new(policy, 0);
    client_runtime()?.block_on(async {
        for (number, line) in (1..).zip(RecordingReader::new(recording)) {
            let reported = match line.with_context(named)? {
                Line::Case(case) => {
                    let (answer, recorded) = env.evaluate(&evaluator, &case).await;
                    report.add(number, &case, &answer, &recorded)
                }
                Line::Dropped(lines) => report.dropped(lines),
                Line::Unreadable(reason) => report.unreadable(number, reason),
            };
            if let Some(reported) = reported {
                print_text(&if args.json { reported.json() } else { reported.text() })?;
            }
        }
        anyhow::Ok(())
    })?;
    if report.replayed == 0 {
        let reason = report.first_unreadable.as_ref().map_or_else(String::new, |line| format!(" ({line})"));
        bail!("{}: the file has no recorded decision{reason}", args.recording.display());
    }
    print_text(&if args.json { report.json() } else { report.summary() })?;
    match report.outcome_changes() {
        0 if report.nothing_compared() => {
            bail!(
                "none of {} decisions could be compared, so the replay says nothing about {}",
                report.replayed,
                args.file.display()
            )
        }
        0 => Ok(()),
        changes => bail!("the outcome of {changes} of {} decisions changes", report.replayed),
    }
}

/// What a component sees in addition to the recording.
struct ReplayEnv {
    limits: Limits,
    env: PolicyEnv,
    cache_dir: Option<PathBuf>,
}

impl ReplayArgs {
    fn load_env(&self) -> anyhow::Result<ReplayEnv> {
        // Look-ups are answered from the recording.
        let store = Arc::new(MemoryStore::new(1 << 16, std::collections::HashMap::new(), system_clock()));
        let Some(path) = &self.config else {
            let limits = Limits::default();
            let env = PolicyEnv::new(store, &limits);
            return Ok(ReplayEnv { limits, env, cache_dir: config::cache_dir() });
        };
        let mut layer = single_option("allow-all", false.into());
        let file = self.file.to_str().context("the component's path is not Unicode")?;
        merge(&mut layer, single_option("policy.file", Value::from(file)));
        merge(&mut layer, single_option("policy.source", Value::from("file")));
        let config = Config::load(Table::new(), Some(path), layer)?;
        let env = config.env(store);
        Ok(ReplayEnv { limits: config.limits, env, cache_dir: config.cache_dir })
    }
}

impl ReplayEnv {
    async fn evaluate(&self, evaluator: &ReplayEvaluator, case: &RecordedCase) -> (DecisionView, Arc<RecordedCalls>) {
        let recorded = Arc::new(RecordedCalls::from(&case.trace));
        let (request, channels) = (&case.request, &case.channels);
        let decision = evaluator.evaluate(&self.env, &self.limits, &recorded, request, channels).await;
        (DecisionView::new(&decision, channels), recorded)
    }
}
