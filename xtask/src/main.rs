//! The chores of development: `cargo xtask <task>`.

#![allow(clippy::disallowed_methods, reason = "the tasks read files of the repository")]

mod bindings;
mod control;
mod go;
mod guests;
mod sdks;
mod step;
mod test;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask <task>

  test               install what the tests need, or say how to, and run all of them
  guests [--bless] [<name>…]
                     build the example policies, or those named, into target/guests;
                     with --bless, replace the committed components too
  bindings [--check] generate what the SDKs for C and Go have of wit/policy.wit;
                     with --check, only say whether it is up to date
  sdks               test what is in C, Go and Zig, once the guests are built
  control            fuzz the control port by its OpenAPI document, and read its metrics
  bless              write the golden files in tests/golden anew";

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["test"] => test::run(),
        ["guests", options @ ..] => guests::run(options),
        ["bindings", options @ ..] => bindings::run(options),
        ["sdks"] => sdks::run(),
        ["control"] => control::run(),
        ["bless"] => bless(),
        _ => bail!("{USAGE}"),
    }
}

fn bless() -> Result<()> {
    let status = cargo().args(["test", "--lib", "golden"]).env("BLESS", "1").current_dir(root()).status()?;
    if status.success() { Ok(()) } else { bail!("some golden file could not be written") }
}

/// Cargo, as if it was not called from here: what `cargo xtask` told this program of itself makes build scripts run anew, and all that
/// depends on them be compiled again, here and at the next plain `cargo build`.
fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    let own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(own)) {
        cargo.env_remove(name);
    }
    cargo
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
