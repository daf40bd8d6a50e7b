//! Builds policies in Go with the ordinary compiler's target `wasip1`, and an adapter for WASI preview 1.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::commands::policy::build::tools::Adapter;
use crate::commands::policy::build::{Job, tools};

/// The functions of WASI preview 1 that Go's runtime imports; `cargo xtask bindings` compiles the module. The world has the export for
/// prewarmed instances, because Go takes long to start.
const ADAPTER: Adapter = Adapter {
    world: "prepared-policy",
    module: include_bytes!("../../../../sdk/go/adapter/wasi_snapshot_preview1.wasm"),
};

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

    let folder = tools::temporary_folder()?;
    let module = folder.path().join("policy.core.wasm");
    let mut compiler = Command::new(&go);
    compiler.current_dir(&job.project).env("GOOS", "wasip1").env("GOARCH", "wasm");
    compiler.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&module);
    tools::run(compiler.arg(job.source.as_deref().unwrap_or(Path::new("."))))?;
    let mistake = "the compiled module is not a policy: does an init function call policy.Handle?";
    tools::write_component(job, &module, Some(&ADAPTER), mistake)
}

/// Whether a version of Go can export functions, as releases do since 1.24. Versions that are not releases are taken for newer.
fn is_new_enough(version: &str) -> bool {
    tools::version(version).is_none_or(|version| version >= (1, 24))
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
