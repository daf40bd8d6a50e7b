//! `cargo xtask control`, a part of `cargo xtask test`: the control port, checked by Schemathesis and by Prometheus' own code.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::go::go;
use crate::root;
use crate::step::step;

/// Fuzzes the control port by its document, reads its metrics as Prometheus does, and tests the alerting rules of the docs.
pub fn run() -> Result<()> {
    let root = root().canonicalize().context("finding the repository")?;
    let folder = root.join("tests/control-port");
    let schemathesis = schemathesis(&root.join("target/toolchains"), &folder.join("requirements.txt"))?;
    let judge = root.join("target/tmp/prometheus");
    let mut build = Command::new(go()?);
    build.args(["build", "-o"]).arg(&judge).arg(".").current_dir(folder.join("prometheus"));
    step("the checks of metrics and alerting rules", build)?;
    let mut program = crate::cargo();
    program.args(["build", "--quiet", "--locked", "--bin", "tidegate"]).current_dir(&root);
    step("the program", program)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut check = Command::new("python3");
    check.arg(folder.join("check.py")).arg(target.join("debug/tidegate")).arg(schemathesis).arg(judge);
    step("the control port, fuzzed", check)
}

/// Installs Schemathesis into a virtual environment, again if the requirements have changed.
fn schemathesis(toolchains: &std::path::Path, requirements: &std::path::Path) -> Result<PathBuf> {
    let wanted = std::fs::read(requirements).context("reading the requirements of schemathesis")?;
    let folder = toolchains.join("schemathesis");
    let (program, has) = (folder.join("bin/schemathesis"), folder.join("requirements.txt"));
    if program.exists() && std::fs::read(&has).is_ok_and(|has| has == wanted) {
        return Ok(program);
    }
    step(
        "a virtual environment for schemathesis",
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
    )?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    step("schemathesis from PyPI", pip)?;
    std::fs::write(&has, wanted).context("remembering reading the requirements of schemathesis")?;
    Ok(program)
}
