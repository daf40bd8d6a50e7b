//! `cargo xtask clients`, a part of `cargo xtask test`: the clients in Python and Go that `tests/e2e/clients.test.js` runs.

use std::process::Command;

use anyhow::{Context, Result};

use crate::control::environment;
use crate::go::go;
use crate::root;
use crate::step::step;

pub fn run() -> Result<()> {
    let root = root().canonicalize().context("finding the repository")?;
    let folder = root.join("tests/e2e/clients");
    environment(&root.join("target/toolchains/httpx-sse"), &folder.join("httpx/requirements.txt"))?;
    let mut build = Command::new(go()?);
    build.args(["build", "-o"]).arg(root.join("target/tmp/r3labs-sse")).arg(".").current_dir(folder.join("r3labs"));
    step("a client in Go", build)
}
