//! `cargo xtask control`, a part of `cargo xtask test`: checks of the control port with third-party tools for OpenAPI and metrics.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::go::go;
use crate::root;
use crate::step::step;

/// Fuzzes the control port from its OpenAPI document, parses its metrics with Prometheus, and tests the alerting rules of the docs.
pub fn run() -> Result<()> {
    let root = root().canonicalize().context("finding the repository")?;
    let folder = root.join("tests/control-port");
    let schemathesis = schemathesis(&root.join("target/toolchains"), &folder.join("requirements.txt"))?;
    let checker = root.join("target/tmp/prometheus");
    let mut build = Command::new(go()?);
    build.args(["build", "-o"]).arg(&checker).arg(".").current_dir(folder.join("prometheus"));
    step("the checks of metrics and alerting rules", build)?;
    let mut program = crate::cargo();
    program.args(["build", "--quiet", "--locked", "--bin", "tidegate"]).current_dir(&root);
    step("the program", program)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut check = Command::new("python3");
    check.arg(folder.join("check.py")).arg(target.join("debug/tidegate")).arg(schemathesis).arg(checker);
    step("fuzzing of the control port", check)
}

/// Schemathesis in a virtual environment, which is created again when its requirements change.
fn schemathesis(toolchains: &std::path::Path, requirements: &std::path::Path) -> Result<PathBuf> {
    let wanted = std::fs::read(requirements).context("reading the requirements of schemathesis")?;
    let folder = toolchains.join("schemathesis");
    let (program, installed) = (folder.join("bin/schemathesis"), folder.join("requirements.txt"));
    if program.exists() && std::fs::read(&installed).is_ok_and(|content| content == wanted) {
        return Ok(program);
    }
    step(
        "a virtual environment for schemathesis",
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
    )?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(requirements);
    step("schemathesis from PyPI", pip)?;
    std::fs::write(&installed, wanted).context("writing the installed requirements of schemathesis")?;
    Ok(program)
}
