//! Development tasks: `cargo xtask <task>`.

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

  test               install the requirements of the tests, or print how to, and run all tests
  guests [--bless] [<name>…]
                     build the example policies, or those named, into target/guests;
                     with --bless, also replace the committed components
  bindings [--check] generate the bindings of wit/policy.wit for the C and Go SDKs;
                     with --check, only check whether they are up to date
  sdks               test the SDKs and guests in C, Go, Zig and TypeScript; needs built guests
  control            fuzz the control port from its OpenAPI document, and check its metrics
  bless              write the golden files in tests/golden";

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
    if status.success() { Ok(()) } else { bail!("a golden file was not written") }
}

/// Cargo, without the variables that `cargo xtask` sets for this program: they would run build scripts again, and compile all their
/// dependents again, here and at the next plain `cargo build`.
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
