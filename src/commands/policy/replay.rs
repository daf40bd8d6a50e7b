//! `tidegate policy replay`: replays recorded decisions against a component and reports differences.

mod recording_reader;
mod report;

#[cfg(test)]
mod tests;

use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::json;

use crate::commands::policy::component_args::{default_limits, load_config};
use crate::commands::policy::replay::recording_reader::{RecordingLine, read_lines};
use crate::commands::policy::replay::report::{ReplayReport, ReportLine};
use crate::commands::{block_on, empty_store, print, startup};
use crate::config;
use crate::policy::Limits;
use crate::policy::decision_view::DecisionView;
use crate::shadow::replay::ReplayEvaluator;
use crate::util::files;
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
    let named = || format!("recording {}: cannot be read", args.recording.display());
    let recording = BufReader::new(files::open(&args.recording).with_context(named)?);
    let (env, cache_dir) = args.load_env()?;
    let compiler = Compiler::new(&env.limits, cache_dir.as_deref())?;
    let policy = startup::load(&compiler, &args.file)?;
    let mut report = ReplayReport::new(policy.digest(), args.all);
    let evaluator = ReplayEvaluator::new(policy, 0);
    block_on(async {
        for (number, line) in (1..).zip(read_lines(recording)) {
            let line = line.with_context(named)?;
            if let Some(difference) = env.replay(&evaluator, &mut report, number, line).await {
                print(args.json, &difference.json, || difference.text)?;
            }
        }
        anyhow::Ok(())
    })?;
    if report.evaluated == 0 {
        let reason = report.first_unreadable.as_ref().map_or_else(String::new, |line| format!(" ({line})"));
        bail!("{}: the file has no recorded decision{reason}", args.recording.display());
    }
    print(args.json, &json!({ "summary": report }), || report.text())?;
    let (changes, evaluated) = (report.outcome_changes(), report.evaluated);
    ensure!(changes == 0, "the outcome of {changes} of {evaluated} decisions changes");
    ensure!(
        report.incomparable < evaluated,
        "none of {evaluated} decisions could be compared, so the replay says nothing about {}",
        args.file.display()
    );
    Ok(())
}

/// What a component sees in addition to the recording.
struct ReplayEnv {
    limits: Limits,
    env: PolicyEnv,
}

impl ReplayArgs {
    /// The environment of the replay, and the directory of compiled policies.
    fn load_env(&self) -> anyhow::Result<(ReplayEnv, Option<PathBuf>)> {
        // Look-ups are answered from the recording.
        let store = empty_store();
        let Some(path) = &self.config else {
            let limits = default_limits();
            return Ok((ReplayEnv { env: PolicyEnv::new(store, &limits), limits }, config::cache_dir()));
        };
        let config = load_config(path, &self.file)?;
        Ok((ReplayEnv { env: config.env(store), limits: config.limits }, config.cache_dir))
    }
}

impl ReplayEnv {
    /// Evaluates a line of a recording and adds the result to the report. Returns the text to print at once.
    async fn replay(
        &self,
        evaluator: &ReplayEvaluator,
        report: &mut ReplayReport,
        number: u64,
        line: RecordingLine,
    ) -> Option<ReportLine> {
        match line {
            RecordingLine::Case(case) => {
                let recorded = Arc::new(RecordedCalls::from(&case.trace));
                let (request, channels) = (&case.request, &case.channels);
                let decision = evaluator.evaluate(&self.env, &self.limits, &recorded, request, channels).await;
                report.add(number, &case, &DecisionView::new(&decision, channels), &recorded)
            }
            RecordingLine::Dropped(lines) => {
                report.dropped = report.dropped.saturating_add(lines);
                None
            }
            RecordingLine::Unreadable(reason) => report.add_unreadable(number, &reason),
        }
    }
}
