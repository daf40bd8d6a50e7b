//! The chores of development: `cargo xtask <task>`.

mod guests;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask <task>

  guests [--bless]   build the example policies in Rust into target/guests;
                     with --bless, replace the committed components too";

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["guests", options @ ..] => guests::run(options),
        _ => bail!("{USAGE}"),
    }
}

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
