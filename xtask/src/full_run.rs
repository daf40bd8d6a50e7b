//! The report of `cargo xtask test --full`, in `docs/internals/testing.md` between two markers.

use std::fs;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::root;
use crate::step::{self, Outcome, Step};
use crate::test::Area;

const PAGE: &str = "docs/internals/testing.md";
const START: &str = "<!-- full-run -->";
const END: &str = "<!-- /full-run -->";

/// Runs the areas, all of them even if one fails, and writes the report.
pub fn run(areas: &[&Area], run: impl Fn(&Area) -> Result<()>) -> Result<()> {
    let commit = output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))?;
    let changed = !output(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"]))?.is_empty();
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut report = format!(
        "{date}, commit {commit}{}, {cores} cores: `cargo xtask test --full{}`.\n",
        if changed { " with uncommitted changes" } else { "" },
        if let [area] = areas { format!(" {}", area.name) } else { String::new() },
    );
    report.push_str("\n| area | result | time | step | tests passed |\n| --- | --- | ---: | --- | ---: |\n");
    let (mut failed, mut skipped) = (Vec::new(), Vec::new());
    for area in areas {
        let started = Instant::now();
        let result = run(area);
        let seconds = started.elapsed().as_secs();
        let outcome = if result.is_ok() { "passed" } else { "**failed**" };
        report.push_str(&format!("| {} | {outcome} | {seconds} s | | |\n", area.name));
        for Step { name, outcome } in step::take() {
            match outcome {
                Outcome::Skipped(reason) => skipped.push(format!("- {name}: {reason}\n")),
                Outcome::Ran { succeeded, duration, tests } => {
                    let figures = match (tests.passed, tests.failed) {
                        (0, 0) => String::new(),
                        (passed, 0) => passed.to_string(),
                        (passed, failed) => format!("{passed}, {failed} failed"),
                    };
                    let outcome = if succeeded { "passed" } else { "**failed**" };
                    report.push_str(&format!("| | {outcome} | {} s | {name} | {figures} |\n", duration.as_secs()));
                    if tests.ignored > 0 {
                        skipped.push(format!(
                            "- {name}: {} tests are marked as ignored; each has its reason in the source\n",
                            tests.ignored
                        ));
                    }
                }
            }
        }
        if let Err(error) = result {
            eprintln!("{error:#}");
            failed.push(area.name);
        }
    }
    report.push_str("\nSkipped:\n\n");
    report.push_str(&if skipped.is_empty() { "- nothing\n".to_owned() } else { skipped.concat() });
    write(&report)?;
    ensure!(failed.is_empty(), "failed: {}; the report is in {PAGE}", failed.join(", "));
    Ok(())
}

fn write(report: &str) -> Result<()> {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
    fs::write(&path, insert(&page, report)?).with_context(|| format!("writing {PAGE}"))
}

/// The page with the report between the markers.
fn insert(page: &str, report: &str) -> Result<String> {
    let (Some((before, rest)), true) = (page.split_once(START), page.contains(END)) else {
        bail!("{PAGE} needs the lines {START} and {END}");
    };
    let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE}: {END} has to follow {START}"))?;
    Ok(format!("{before}{START}\n{report}{END}{after}"))
}

fn output(command: &mut Command) -> Result<String> {
    let out = command.current_dir(root()).output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(String::from_utf8(out.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a broken expectation is a failed test")]

    use super::*;

    #[test]
    fn report_replaces_the_text_between_the_markers() {
        let page = format!("a\n{START}\nold\n{END}\nb\n");
        assert_eq!(insert(&page, "new\n").expect("both markers"), format!("a\n{START}\nnew\n{END}\nb\n"));
        for page in ["", START, END, &format!("{END}{START}")] {
            assert!(insert(page, "new").is_err(), "{page}");
        }
    }
}
