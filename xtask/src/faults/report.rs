//! The table of a run, on standard output and in `docs/internals/testing.md`.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::checker::{Figures, Rule};
use super::round::{Outcome, Round};
use crate::root;

const PAGE: &str = "docs/internals/testing.md";
const START: &str = "<!-- faults -->";
const END: &str = "<!-- /faults -->";

/// The rounds of one topology.
#[derive(Default)]
struct Section {
    rounds: usize,
    durable_rounds: usize,
    seeds: Vec<u64>,
    /// Sums over all rounds.
    figures: Figures,
    /// Acknowledged entries that were lost in rounds in which they had to survive.
    durable_lost: usize,
    applied: BTreeMap<String, usize>,
    skipped: BTreeMap<String, usize>,
}

#[derive(Default)]
pub struct Report(BTreeMap<&'static str, Section>);

impl Report {
    pub fn add(&mut self, round: &Round, outcome: &Outcome) {
        let section = self.0.entry(round.kind.name()).or_default();
        section.rounds += 1;
        section.seeds.push(round.seed);
        let (sum, figures) = (&mut section.figures, &outcome.figures);
        if round.durable {
            section.durable_rounds += 1;
            section.durable_lost += figures.lost;
        }
        sum.acknowledged += figures.acknowledged;
        sum.rejected += figures.rejected;
        sum.unknown += figures.unknown;
        sum.surviving += figures.surviving;
        sum.lost += figures.lost;
        sum.connections += figures.connections;
        sum.deliveries += figures.deliveries;
        sum.lost_deliveries += figures.lost_deliveries;
        sum.returned += figures.returned;
        sum.unrecognized += figures.unrecognized;
        sum.longest_delay = sum.longest_delay.max(figures.longest_delay);
        figures.gaps.iter().for_each(|(key, count)| *sum.gaps.entry(*key).or_default() += count);
        figures.violations.iter().for_each(|(rule, count)| *sum.violations.entry(*rule).or_default() += count);
        outcome.applied.iter().for_each(|(name, count)| *section.applied.entry(name.clone()).or_default() += count);
        outcome.skipped.iter().for_each(|(name, count)| *section.skipped.entry(name.clone()).or_default() += count);
    }

    /// Tables in Markdown: figures, then faults.
    pub fn table(&self) -> String {
        let mut lines = vec![format!("| | {} |", self.columns(|_, kind| format!("`{kind}`")))];
        lines.push(format!("| --- | {} |", self.columns(|_, _| "---:".into())));
        let mut row = |name: &str, value: &dyn Fn(&Section) -> String| {
            lines.push(format!("| {name} | {} |", self.columns(|section, _| value(section))));
        };
        row("rounds, of them with entries that must survive", &|s| format!("{}, {}", s.rounds, s.durable_rounds));
        row("faults", &|s| s.applied.values().sum::<usize>().to_string());
        row("emits: acknowledged, rejected, unknown", &|s| {
            format!("{}, {}, {}", s.figures.acknowledged, s.figures.rejected, s.figures.unknown)
        });
        row("entries that survived", &|s| s.figures.surviving.to_string());
        row("acknowledged entries that Redis lost", &|s| s.figures.lost.to_string());
        row("… in rounds in which they must survive", &|s| s.durable_lost.to_string());
        row("connections of clients", &|s| s.figures.connections.to_string());
        row("deliveries", &|s| s.figures.deliveries.to_string());
        row("… of entries that Redis lost later", &|s| s.figures.lost_deliveries.to_string());
        row("deliveries again, as a gap announced", &|s| s.figures.returned.to_string());
        row("entries that `last_ack_…` cannot tell apart", &|s| s.figures.unrecognized.to_string());
        row("gaps: certain, not certain", &|s| format!("{}, {}", s.figures.gaps(true), s.figures.gaps(false)));
        row("longest time from acknowledgement to delivery", &|s| {
            format!("{:.1} s", f64::from(s.figures.longest_delay) / 1000.0)
        });
        for (name, rule) in [
            ("repeated", Rule::Repeated),
            ("out of order", Rule::OutOfOrder),
            ("missing", Rule::Missing),
            ("losses without a gap", Rule::LossWithoutGap),
            ("forged events", Rule::Forged),
            ("doubled emits", Rule::Doubled),
            ("streams that a healthy gateway ended", Rule::StreamEnded),
            ("wrong frames", Rule::Protocol),
        ] {
            row(name, &|s| s.figures.count(rule).to_string());
        }
        lines.push(String::new());
        for (kind, section) in &self.0 {
            let list = |counts: &BTreeMap<String, usize>| {
                counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
            };
            lines.push(format!("- `{kind}`: {}", list(&section.applied)));
            if !section.skipped.is_empty() {
                lines.push(format!("- `{kind}`, skipped: {}", list(&section.skipped)));
            }
        }
        lines.join("\n") + "\n"
    }

    fn columns(&self, value: impl Fn(&Section, &str) -> String) -> String {
        self.0.iter().map(|(kind, section)| value(section, kind)).collect::<Vec<_>>().join(" | ")
    }

    /// Replaces the table in the documentation.
    pub fn write(&self, length: Duration) -> Result<()> {
        let path = root().join(PAGE);
        let page = fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
        let (before, rest) = page.split_once(START).with_context(|| format!("{PAGE} needs the line {START}"))?;
        let (_, after) = rest.split_once(END).with_context(|| format!("{PAGE} needs the line {END}"))?;
        let commit = output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(root()))?;
        let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let server = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
        let version = output(Command::new(server).arg("--version"))?;
        let version = version.split(" sha=").next().unwrap_or_default();
        let minutes = length.as_secs() / 60;
        let seeds = self.0.values().flat_map(|section| &section.seeds);
        let (least, greatest) = (seeds.clone().min().unwrap_or(&0), seeds.max().unwrap_or(&0));
        let head =
            format!("{date}, commit {commit}, {version}, {minutes} minutes of faults, seeds {least} to {greatest}");
        fs::write(&path, format!("{before}{START}\n\n{head}\n\n{}\n{END}{after}", self.table()))?;
        Ok(())
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
