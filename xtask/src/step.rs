//! One step of a task: a command under a headline, with its duration and the number of tests that it reports.

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A step that ran, or that was skipped and why.
pub struct Step {
    pub name: String,
    pub outcome: Outcome,
}

pub enum Outcome {
    Ran { succeeded: bool, duration: Duration, tests: Tests },
    Skipped(String),
}

/// The numbers of tests that cargo and node report on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tests {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

/// The steps of this process so far, for the report of a full run.
static STEPS: Mutex<Vec<Step>> = Mutex::new(Vec::new());

/// Takes the steps so far.
pub fn take() -> Vec<Step> {
    std::mem::take(&mut STEPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn record(name: &str, outcome: Outcome) {
    STEPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Step { name: name.to_owned(), outcome });
}

/// Prints and records that a step is skipped.
pub fn skip(name: &str, reason: &str) {
    println!("== {name}: skipped, {reason}");
    record(name, Outcome::Skipped(reason.to_owned()));
}

/// Output that a process which outlives its step may hold open is awaited for this time.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// Prints the headline and runs the command; a command that does not start or does not succeed is an error with the headline.
pub fn step(name: &str, mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    let command = command.borrow_mut().stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{name}: cannot start"))?;
    let (sender, tests) = mpsc::channel();
    let stdout = child.stdout.take();
    std::thread::spawn(move || sender.send(stdout.map(print_and_count).unwrap_or_default()));
    let status = child.wait().with_context(|| format!("{name}: cannot be waited for"))?;
    let tests = tests.recv_timeout(OUTPUT_TIMEOUT).unwrap_or_default();
    record(name, Outcome::Ran { succeeded: status.success(), duration: started.elapsed(), tests });
    if !status.success() {
        bail!("{name}: failed ({status})");
    }
    Ok(())
}

/// Copies output to standard output, and counts the tests that it reports.
fn print_and_count(output: ChildStdout) -> Tests {
    let mut output = BufReader::new(output);
    let (mut tests, mut line) = (Tests::default(), Vec::new());
    while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        tests.add(&text);
        line.clear();
    }
    tests
}

impl Tests {
    /// Adds what a line of a test runner's summary reports: `test result: ok. 5 passed; 0 failed; 1 ignored; …`, `ℹ pass 5`, `# fail 0`.
    fn add(&mut self, line: &str) {
        if let Some(summary) = line.strip_prefix("test result: ") {
            for part in summary.split(['.', ';']) {
                match part.trim().split_once(' ') {
                    Some((count, "passed")) => self.passed += count.parse().unwrap_or(0),
                    Some((count, "failed")) => self.failed += count.parse().unwrap_or(0),
                    Some((count, "ignored")) => self.ignored += count.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else if let Some(summary) = line.strip_prefix("ℹ ").or_else(|| line.strip_prefix("# ")) {
            match summary.trim().split_once(' ') {
                Some(("pass", count)) => self.passed += count.parse().unwrap_or(0),
                Some(("fail", count)) => self.failed += count.parse().unwrap_or(0),
                Some(("skipped", count)) => self.ignored += count.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_cargo_and_node_are_counted() {
        let mut tests = Tests::default();
        for line in [
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s\n",
            "ℹ pass 7\n",
            "# fail 2\n",
            "ℹ skipped 1\n",
            "test a ... ok\n",
        ] {
            tests.add(line);
        }
        assert_eq!(tests, Tests { passed: 12, failed: 2, ignored: 2 });
    }
}
