//! Builds policies in Zig with the SDK for C.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::commands::policy::build::{Job, c, tools, zig_toolchain};
use crate::util::files;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

pub fn build(job: &Job) -> Result<()> {
    let source = job.source.clone().unwrap_or_else(|| job.project.join("policy.zig"));
    let sdk = c::sdk(job)?;
    let zig = zig_toolchain::find().map_or_else(zig_toolchain::install, Ok)?;
    let folder = tempfile::tempdir().context("creating a temporary folder")?;
    let module = folder.path().join("policy.core.wasm");

    let mut command = Command::new(&zig[0]);
    command.args(&zig[1..]).current_dir(&job.project);
    command.arg("build-exe").arg(source.strip_prefix(&job.project).unwrap_or(&source));
    command.args(c::sdk_files(sdk.path()));
    command.arg("-I").arg(sdk.path()).arg("-I").arg(sdk.path().join("freestanding"));
    command.args(["-target", "wasm32-freestanding", "-O", "ReleaseSmall", "-fno-entry", "--stack", c::STACK_BYTES]);
    command.arg("--cache-dir").arg(folder.path().join("cache"));
    command.arg(format!("-femit-bin={}", module.display()));
    tools::run(&mut command)?;

    let module = files::read(&module, MAX_COMPONENT_BYTES).with_context(|| format!("reading {}", module.display()))?;
    let component = tools::componentize(&module, None, &[])?;
    fs::write(&job.output, component).with_context(|| format!("writing {}", job.output.display()))
}
