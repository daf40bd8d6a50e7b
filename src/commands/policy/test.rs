//! `tidegate policy test`: runs test cases against a component and reports decisions that are not as expected.

mod report;

use anyhow::{Context, ensure};
use clap::Args;

use crate::commands::policy::component_args::ComponentArgs;
use crate::commands::policy::test::report::TestReport;
use crate::commands::{block_on, logging, print_text, startup};
use crate::config::ConfigError;
use crate::config::schema::LogFormat;
use crate::policytest::run;
use crate::util::files;
use crate::wasm::compile::Compiler;

#[derive(Debug, Args)]
pub struct TestArgs {
    #[command(flatten)]
    component: ComponentArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Print the log messages of the policy
    #[arg(long)]
    log: bool,
}

pub fn run(args: &TestArgs) -> anyhow::Result<()> {
    let component = &args.component;
    // Before the test cases, which are next to it by default.
    files::open(&component.file).with_context(|| format!("policy {}: cannot be read", component.file.display()))?;
    let Some(path) = component.cases() else {
        let (file, default) = (component.file.display(), component.default_cases());
        let text = format!(
            "policy test: no test cases for {file}: {} does not exist, and no other file was named",
            default.display()
        );
        return Err(ConfigError(text).into());
    };
    let cases = component.read(&path)?;
    let _log = args.log.then(|| logging::init("off,tidegate::policy=debug", LogFormat::Text)).transpose()?;
    let (limits, cache_dir) = component.limits()?;
    let compiler = Compiler::new(&limits, cache_dir.as_deref())?;
    let policy = startup::load(&compiler, &component.file)?;

    let mut report = TestReport::new(&component.file, policy.digest(), &path);
    block_on(async {
        for case in &cases {
            let outcome = run::run(&compiler, &policy, &limits, case).await;
            let result = report.add(case, outcome);
            if !args.json {
                print_text(&result.text(&path))?;
            }
        }
        anyhow::Ok(())
    })?;
    print_text(&if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.summary() })?;
    ensure!(report.failed == 0, "{} of {} test cases failed", report.failed, cases.len());
    Ok(())
}
