//! The tasks of development: `cargo xtask <task>`.

#![allow(clippy::disallowed_methods, reason = "the tasks read files of the repository")]

mod bindings;
mod clients;
mod control;
mod faults;
mod full_run;
mod go;
mod guests;
mod runtime;
mod sdks;
mod step;
mod test;
mod words;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask <task>

  test [--full [<area>]]
                     install the programs that the tests need, or name them, and run all tests;
                     with --full, at full size, with a report in docs/internals/testing.md
  words              find words of the former dialect in sources and documents
  guests [--bless] [<name>…]
                     build the example policies, or those named, into target/guests;
                     with --bless, replace the committed components too
  runtime [--check]  build the JavaScript runtime of policies, sdk/typescript/engine.wasm, from its sources;
                     with --check, only compare it with a build
  bindings [--check] generate the bindings of the SDKs for C and Go from wit/policy.wit;
                     with --check, only report whether they are up to date
  sdks               test the SDKs and examples in C, Zig, TypeScript and Go; needs the guests
  control            fuzz the control port with its OpenAPI document, check metrics and alerts
  clients            make the clients in Python and Go that tests/e2e runs
  protocol           run the scripts of docs/protocol.md against a Redis and a gateway
  faults [<options>] run gateways on a Redis, a cluster and a group with sentinels that fail, and compare what clients receive;
                     options: --seed N, --minutes M, --only cluster|sentinel|single, --durable, --clients N, --replay LOG, --write
  bless              write the golden files in tests/golden, and tables of the documents";

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["test", options @ ..] => test::run(options),
        ["guests", options @ ..] => guests::run(options),
        ["runtime", options @ ..] => runtime::run(options),
        ["bindings", options @ ..] => bindings::run(options),
        ["sdks"] => sdks::run(),
        ["control"] => control::run(),
        ["clients"] => clients::run(),
        ["protocol"] => control::protocol(),
        ["faults", options @ ..] => faults::run(options),
        ["words"] => words::run(),
        ["bless"] => bless(),
        _ => bail!("{USAGE}"),
    }
}

fn bless() -> Result<()> {
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--locked", "--lib", "--test", "process", "golden"]).env("BLESS", "1");
    let status = tests.current_dir(root()).status()?;
    if status.success() { Ok(()) } else { bail!("a golden file could not be written") }
}

/// Cargo without the variables that `cargo xtask` set for this program. With them build scripts would run again, and all that depends on
/// them would be compiled again, here and at the next plain `cargo build`.
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
