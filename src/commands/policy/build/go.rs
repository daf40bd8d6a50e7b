//! Builds policies in Go with the ordinary compiler's target `wasip1`, and an adapter for WASI preview 1.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::commands::policy::build::{Job, tools};
use crate::util::files;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// The functions of WASI preview 1 that Go's runtime imports, implemented with the host functions of the gateway. `cargo xtask bindings`
/// compiles it.
const ADAPTER: &[u8] = include_bytes!("../../../../sdk/go/adapter/wasi_snapshot_preview1.wasm");

/// The world with the export for prewarmed instances, because Go takes long to start.
const WORLD: &str = "prepared-policy";

const REMEDY: &str = "install Go 1.24 or newer: https://go.dev/dl, or your system's package `golang`";

pub fn build(job: &Job) -> Result<()> {
    let go = tools::need(&["go"], REMEDY)?;
    let version = tools::output(Command::new(&go).args(["env", "GOVERSION"]).current_dir(&job.project))?;
    ensure!(is_new_enough(&version), "{version} is too old for policies: {REMEDY}");
    ensure!(
        job.project.join("go.mod").is_file(),
        "{} has no go.mod: a policy in Go is a module (`tidegate policy new <folder> --lang go` writes one)",
        job.project.display()
    );

    let folder = tempfile::tempdir().context("creating a temporary folder")?;
    let module = folder.path().join("policy.core.wasm");
    compile(&go, job, &module)?;
    let module = files::read(&module, MAX_COMPONENT_BYTES).with_context(|| format!("reading {}", module.display()))?;
    let component = tools::componentize(&module, Some(WORLD), &[("wasi_snapshot_preview1", ADAPTER)])
        .context("the compiled module is not a policy: does an init function call policy.Handle?")?;
    std::fs::write(&job.output, component).with_context(|| format!("writing {}", job.output.display()))
}

fn compile(go: &Path, job: &Job, module: &Path) -> Result<()> {
    let mut compiler = Command::new(go);
    compiler.current_dir(&job.project).env("GOOS", "wasip1").env("GOARCH", "wasm");
    compiler.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o"]).arg(module);
    compiler.arg(job.source.as_deref().unwrap_or(Path::new(".")));
    tools::run(&mut compiler)
}

/// Whether a version such as `go1.26.8` can export functions, as Go does since 1.24. Versions that are not releases are taken for newer.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches("go").split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (1, 24),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_1_24_or_newer_is_required() {
        for (version, expected) in [
            ("go1.19.8", false),
            ("go1.23.12", false),
            ("go1.24.0", true),
            ("go1.26.8", true),
            ("go1.27rc1", true),
            ("go2.0", true),
            ("devel +1234", true),
        ] {
            assert_eq!(is_new_enough(version), expected, "{version}");
        }
    }
}
