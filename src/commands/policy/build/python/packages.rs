//! The packages that a policy uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::commands::policy::build::MAX_MANIFEST_BYTES;
use crate::commands::policy::build::python::toolchain::{LANGUAGE, Toolchain, environment, site_packages};
use crate::commands::policy::build::python::tools;
use crate::util::files;

/// A folder with the packages: that of the project's or the active environment, else one where those are installed that
/// `pyproject.toml` and `requirements.txt` name. An empty one if there are none.
pub fn folder(project: &Path, dependencies: &[String], toolchain: &Toolchain, work: &TempDir) -> Result<PathBuf> {
    if let Some(packages) = environment(project).and_then(|environment| site_packages(&environment)) {
        return Ok(packages);
    }
    let wanted: Vec<&String> = dependencies.iter().filter(|dependency| !is_sdk(dependency)).collect();
    let requirements = project.join("requirements.txt");
    let listed = files::read_text(&requirements, MAX_MANIFEST_BYTES).unwrap_or_default();
    if wanted.is_empty() && listed.trim().is_empty() {
        let none = work.path().join("packages");
        fs::create_dir_all(&none).context("making a temporary folder")?;
        return Ok(none);
    }
    let mut key = Sha256::new();
    for word in wanted.iter().map(|word| word.as_str()).chain([&*listed]) {
        key.update(word);
        key.update([0]);
    }
    let key: String = key.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let folder = tools::toolchain_folder("python-packages")?.join(key);
    if !folder.is_dir() {
        let mut pip = toolchain.pip_install();
        pip.args(wanted);
        if !listed.trim().is_empty() {
            pip.arg("-r").arg(&requirements);
        }
        install(&mut pip, &folder)?;
    }
    Ok(folder)
}

/// Installs what runs in a component: wheels of pure Python, for the Python that is in it.
fn install(pip: &mut Command, folder: &Path) -> Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let staged = tempfile::Builder::new().prefix(".installing-").tempdir_in(parent).context("making a folder")?;
    eprintln!("policy build: installing the policy's packages into {} (until they change)", folder.display());
    pip.args([
        "--only-binary=:all:",
        "--platform=any",
        "--implementation=py",
        "--abi=none",
        "--python-version",
        LANGUAGE,
    ]);
    pip.arg("--target").arg(staged.path());
    tools::run(pip).context(
        "not every package that the policy names could be installed; in a component only packages of pure Python run",
    )?;
    match fs::rename(staged.path(), folder) {
        // Another build was faster.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => renamed.with_context(|| format!("making {}", folder.display())),
    }
}

/// Whether a dependency is the SDK, which is not on any index, and is there anyway.
fn is_sdk(dependency: &str) -> bool {
    let name: String = dependency.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    name.to_ascii_lowercase().replace(['_', '.'], "-") == "tidegate-policy"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_is_no_dependency() {
        for (dependency, expect) in [
            ("tidegate-policy", true),
            ("Tidegate_Policy>=0.1", true),
            ("tidegate.policy @ file:///x", true),
            ("tidegate-policy-extras", false),
            ("requests", false),
        ] {
            assert_eq!(is_sdk(dependency), expect, "{dependency}");
        }
    }
}
