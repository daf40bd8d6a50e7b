//! The chores of development: `cargo xtask <task>`.

mod bindings;
mod guests;
mod sdks;
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
  bless              write the golden files in tests/golden anew";

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["test"] => test::run(),
        ["guests", options @ ..] => guests::run(options),
        ["bindings", options @ ..] => bindings::run(options),
        ["sdks"] => sdks::run(),
        ["bless"] => bless(),
        _ => bail!("{USAGE}"),
    }
}

fn bless() -> Result<()> {
    let status =
        Command::new("cargo").args(["test", "--lib", "golden"]).env("BLESS", "1").current_dir(root()).status()?;
    if status.success() { Ok(()) } else { bail!("some golden file could not be written") }
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
