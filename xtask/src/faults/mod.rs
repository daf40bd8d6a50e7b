//! `cargo xtask faults`: real gateways, real stores that fail, hundreds of clients, and a checker that knows what each of them must receive.

mod checker;
mod client;
mod directory;
mod emitter;
mod gateway;
mod history;
mod http;
mod injector;
mod node;
mod options;
mod processes;
mod proxy;
mod random;
mod report;
mod resp;
mod round;
mod schedule;
mod shared;
mod topology;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::root;

use options::{HELP, Options, USAGE};
use report::Report;
use round::Round;

/// Runs `cargo xtask faults` with these options.
pub fn run(options: &[&str]) -> Result<()> {
    if options.iter().any(|option| matches!(*option, "--help" | "-h")) {
        println!("{USAGE}\n{HELP}");
        return Ok(());
    }
    let options = Options::parse(options)?;
    let program = program()?;
    let mut report = Report::default();
    for round in Round::of(&options)? {
        println!("== {round}");
        let outcome = round.run(&program)?;
        let failed = !outcome.violations.is_empty();
        print!("{}", outcome.summary());
        report.add(&round, &outcome);
        let kept = round.keep(&outcome)?;
        if failed {
            println!("{}", report.table());
            bail!(
                "{} rules were broken; logs and histories are in {}; again: {}",
                outcome.violations.len(),
                kept.display(),
                round.command()
            );
        }
    }
    println!("{}", report.table());
    if options.write {
        report.write(options.length)?;
    }
    Ok(())
}

/// Faults that cannot happen on this machine, each with the reason.
pub fn unavailable() -> Vec<(&'static str, &'static str)> {
    let mut list = Vec::new();
    if !Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success()) {
        list.push(("clocks that differ", "there is no C compiler"));
    }
    if !Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0") {
        list.push(("full disks", "only root can mount a file system of a small size"));
    }
    list
}

/// The gateway, which is built unless `TIDEGATE_BIN` names one.
fn program() -> Result<std::path::PathBuf> {
    if let Some(program) = std::env::var_os("TIDEGATE_BIN") {
        return std::fs::canonicalize(program).context("TIDEGATE_BIN");
    }
    let mut build = crate::cargo();
    let status = build.args(["build", "--workspace", "--locked", "--bin", "tidegate"]).current_dir(root()).status()?;
    if !status.success() {
        bail!("the gateway could not be built");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    std::fs::canonicalize(target.join("debug/tidegate")).context("the gateway")
}
