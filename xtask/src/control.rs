//! `cargo xtask control`, a part of `cargo xtask test`: the control port, checked by Schemathesis and by Prometheus' own code.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::go::go;
use crate::root;
use crate::step::step;

/// Fuzzes the control port by its document, reads its metrics as Prometheus does, and tests the alerting rules of the docs.
pub fn run() -> Result<()> {
    let root = root().canonicalize().context("finding the repository")?;
    let folder = root.join("tests/control-port");
    let programs = environment(&root.join("target/toolchains/schemathesis"), &folder.join("requirements.txt"))?;
    let checker = root.join("target/tmp/prometheus");
    let mut build = Command::new(go()?);
    build.args(["build", "-o"]).arg(&checker).arg(".").current_dir(folder.join("prometheus"));
    step("the checks of metrics and alerting rules", build)?;
    let program = program(&root)?;
    let mut check = Command::new("python3");
    check.arg(folder.join("check.py")).arg(program).arg(programs.join("schemathesis")).arg(checker);
    step("the control port, fuzzed", check)
}

/// Runs the emitter and the client of docs/protocol.md against a real Redis and a gateway that is killed.
pub fn protocol() -> Result<()> {
    let root = root().canonicalize().context("finding the repository")?;
    let directory = root.join("tests/protocol");
    let python = environment(&root.join("target/toolchains/redis-py"), &directory.join("requirements.txt"))?;
    let program = program(&root)?;
    step(
        "the scripts of docs/protocol.md",
        Command::new(python.join("python")).arg(directory.join("check.py")).arg(program),
    )
}

/// Builds the gateway; the path of the program.
fn program(root: &Path) -> Result<PathBuf> {
    let mut program = crate::cargo();
    program.args(["build", "--quiet", "--locked", "--bin", "tidegate"]).current_dir(root);
    step("the program", program)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("debug/tidegate"))
}

/// A virtual environment of Python with these requirements, made again if they have changed; the directory of its programs.
pub fn environment(directory: &Path, requirements: &Path) -> Result<PathBuf> {
    let wanted = std::fs::read(requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let (programs, installed) = (directory.join("bin"), directory.join("requirements.txt"));
    if std::fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(programs);
    }
    step("a virtual environment for Python", Command::new("python3").args(["-m", "venv", "--clear"]).arg(directory))?;
    let mut pip = Command::new(programs.join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    step("packages from PyPI", pip)?;
    std::fs::write(&installed, wanted).with_context(|| format!("writing {}", installed.display()))?;
    Ok(programs)
}
