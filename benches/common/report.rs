//! Tables in Markdown: printed, and written to `docs/benchmarks.md` with `--write`.

use std::fmt::Display;
use std::fs;
use std::process::Command;
use std::time::SystemTime;

use super::machine::Machine;
use super::options::Options;
use super::servers::root;

const DOCUMENT: &str = "docs/benchmarks.md";

/// A table, its title and notes on it.
pub struct Table {
    title: String,
    /// One line for each row, the head first.
    lines: Vec<String>,
    notes: Vec<String>,
}

impl Table {
    /// The first column is text; the others are numbers.
    pub fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let aligned = (0..columns.len()).map(|column| if column == 0 { "---" } else { "---:" });
        let lines = vec![line(columns), line(&aligned.collect::<Vec<_>>())];
        Self { title: title.into(), lines, notes: Vec::new() }
    }

    pub fn row(&mut self, cells: &[&dyn Display]) {
        let cells: Vec<String> = cells.iter().map(ToString::to_string).collect();
        let line = line(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        eprintln!("{line}");
        self.lines.push(line);
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

fn line(cells: &[&str]) -> String {
    format!("| {} |", cells.join(" | "))
}

/// A number for a cell; `–` if there is none.
pub fn number(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "–".into() }
}

/// Where the tables of a run go.
pub struct Report {
    writes: bool,
    /// The date, the commit and the machine.
    conditions: String,
}

impl Report {
    pub fn new(options: &Options, machine: &Machine) -> Self {
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let mut conditions = format!("{}, commit {}; {}", &date[..10], commit(), machine.describe());
        if options.is_quick {
            conditions += " A quick run: the figures are not meaningful.";
        }
        if cfg!(debug_assertions) {
            conditions += " Built without optimization: the figures are not meaningful.";
        }
        Self { writes: options.writes, conditions }
    }

    /// Prints a table, and replaces the text between the markers of this name in the document.
    pub fn add(&self, name: &str, table: &Table) {
        let notes: String = table.notes.iter().map(|note| format!("\n{note}\n")).collect();
        let text = format!("#### {}\n\n{}\n{notes}\n*{}*\n", table.title, table.lines.join("\n"), self.conditions);
        println!("\n{text}");
        if self.writes {
            write(name, &text);
        }
    }

    /// Replaces the text between the markers of this name with a link to a figure.
    pub fn add_figure(&self, name: &str, link: &str) {
        if self.writes {
            write(name, &format!("{link}\n"));
        }
    }
}

fn write(name: &str, text: &str) {
    let path = root().join(DOCUMENT);
    let document = fs::read_to_string(&path).expect("the document is read");
    let (begin, end) = (format!("<!-- bench {name} -->\n"), format!("<!-- end of bench {name} -->\n"));
    let (before, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("{DOCUMENT} has no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{DOCUMENT} has no {end}"));
    fs::write(path, format!("{before}{begin}\n{text}\n{end}{after}")).expect("the document is written");
}

/// The commit of the work tree, with a `+` if sources were changed after it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(root()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let id = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let is_changed =
        git(&["status", "--porcelain", "src", "benches", "Cargo.lock"]).is_some_and(|text| !text.is_empty());
    if is_changed { id + "+" } else { id }
}
