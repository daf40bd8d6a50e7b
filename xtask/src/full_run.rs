//! The report of `cargo xtask test --full`, in `docs/internals/testing.md` between two markers.

use std::collections::BTreeMap;
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

/// What these steps skipped, and why.
pub fn skipped(steps: &[Step]) -> Vec<String> {
    let reason = |Step { name, outcome }: &Step| match outcome {
        Outcome::Skipped(reason) => Some(format!("{name}: {reason}")),
        Outcome::Ran { tests, .. } if tests.ignored > 0 => {
            Some(format!("{name}: {} tests that the source marks as ignored", tests.ignored))
        }
        Outcome::Ran { .. } => None,
    };
    steps.iter().filter_map(reason).collect()
}

/// Runs the areas, all of them even if one fails, and writes a section of the report for each. Returns the skipped steps.
pub fn run(areas: &[&Area], run: impl Fn(&Area) -> Result<()>) -> Result<Vec<String>> {
    let commit = output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))?;
    // Without the page itself, which an earlier run may have written.
    let page = format!(":!{PAGE}");
    let status = ["status", "--porcelain", "--untracked-files=no", "--", ".", &page];
    let changed = !output(Command::new("git").args(status))?.is_empty();
    let changed = if changed { " with uncommitted changes" } else { "" };
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (mut failed, mut all_skipped) = (Vec::new(), Vec::new());
    for area in areas {
        let started = Instant::now();
        let result = run(area);
        let seconds = started.elapsed().as_secs();
        let outcome = if result.is_ok() { "passed" } else { "**failed**" };
        let summary = format!("{outcome}, {date}, commit {commit}{changed}, {cores} cores, {seconds} s");
        let steps = step::take();
        all_skipped.extend(skipped(&steps));
        write(area.name, &section(&summary, &steps))?;
        if let Err(error) = result {
            eprintln!("{error:#}");
            failed.push(area.name);
        }
    }
    ensure!(failed.is_empty(), "failed: {}; the report is in {PAGE}", failed.join(", "));
    Ok(all_skipped)
}

/// The report of one area: a summary, the steps with their figures, and the skipped steps with their reasons.
fn section(summary: &str, steps: &[Step]) -> String {
    let mut table = format!("{summary}\n\n| step | result | time | tests passed |\n| --- | --- | ---: | ---: |\n");
    for Step { name, outcome } in steps {
        let Outcome::Ran { succeeded, duration, tests } = outcome else { continue };
        let figures = match (tests.passed, tests.failed) {
            (0, 0) => String::new(),
            (passed, 0) => passed.to_string(),
            (passed, failed) => format!("{passed}, {failed} failed"),
        };
        let outcome = if *succeeded { "passed" } else { "**failed**" };
        table += &format!("| {name} | {outcome} | {} s | {figures} |\n", duration.as_secs());
    }
    let skipped: String = skipped(steps).iter().map(|step| format!("- skipped: {step}\n")).collect();
    if skipped.is_empty() { table } else { format!("{table}\n{skipped}") }
}

fn write(area: &str, section: &str) -> Result<()> {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
    fs::write(&path, insert(&page, area, section)?).with_context(|| format!("writing {PAGE}"))
}

/// The page with the section of an area between the markers; those of other areas stay, in alphabetical order.
fn insert(page: &str, area: &str, section: &str) -> Result<String> {
    let (Some((before, rest)), true) = (page.split_once(START), page.contains(END)) else {
        bail!("{PAGE} needs the lines {START} and {END}");
    };
    let (present, after) = rest.split_once(END).with_context(|| format!("{PAGE}: {END} has to follow {START}"))?;
    let present = present.split("### ").skip(1).filter_map(|section| section.split_once("\n\n"));
    let mut sections: BTreeMap<&str, &str> =
        present.map(|(name, text)| (name.trim_matches('`'), text.trim())).collect();
    sections.insert(area, section.trim());
    let text = sections.iter().map(|(name, text)| format!("### `{name}`\n\n{text}\n\n")).collect::<String>();
    Ok(format!("{before}{START}\n\n{text}{END}{after}"))
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
    fn section_of_an_area_is_replaced_and_others_stay() {
        let page = format!("a\n{START}\nNothing yet.\n{END}\nb\n");
        let page = insert(&page, "rust", "passed\n\n| a |\n").expect("both markers");
        let page = insert(&page, "e2e", "failed").expect("both markers");
        let page = insert(&page, "e2e", "passed").expect("both markers");
        let expected =
            "a\n<!-- full-run -->\n\n### `e2e`\n\npassed\n\n### `rust`\n\npassed\n\n| a |\n\n<!-- /full-run -->\nb\n";
        assert_eq!(page, expected);
        for page in ["", START, END, &format!("{END}{START}")] {
            assert!(insert(page, "rust", "new").is_err(), "{page}");
        }
    }
}
