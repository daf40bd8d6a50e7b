//! The Python packages of a policy.

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

/// The folder of the packages: that of the project's or the active virtual environment, else a folder with the installed packages of
/// `pyproject.toml` and `requirements.txt`, else an empty folder.
pub fn folder(project: &Path, dependencies: &[String], toolchain: &Toolchain, work: &TempDir) -> Result<PathBuf> {
    if let Some(packages) = environment(project).and_then(|environment| site_packages(&environment)) {
        return Ok(packages);
    }
    let dependencies: Vec<&String> = dependencies.iter().filter(|dependency| !is_sdk(dependency)).collect();
    let requirements_file = project.join("requirements.txt");
    let requirements = files::read_text(&requirements_file, MAX_MANIFEST_BYTES).unwrap_or_default();
    if dependencies.is_empty() && requirements.trim().is_empty() {
        let empty = work.path().join("packages");
        fs::create_dir_all(&empty).context("creating a temporary folder")?;
        return Ok(empty);
    }
    let mut key = Sha256::new();
    for text in dependencies.iter().map(|dependency| dependency.as_str()).chain([&*requirements]) {
        key.update(text);
        key.update([0]);
    }
    let key: String = key.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let folder = tools::toolchain_folder("python-packages")?.join(key);
    if !folder.is_dir() {
        let mut pip = toolchain.pip_install();
        pip.args(dependencies);
        if !requirements.trim().is_empty() {
            pip.arg("-r").arg(&requirements_file);
        }
        install(&mut pip, &folder)?;
    }
    Ok(folder)
}

/// Installs packages that run in a component: wheels of pure Python for the component's version of Python.
fn install(pip: &mut Command, folder: &Path) -> Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    let staged = tempfile::Builder::new().prefix(".installing-").tempdir_in(parent).context("creating a folder")?;
    eprintln!("policy build: installing the policy's packages into {} (again only if they change)", folder.display());
    pip.args([
        "--only-binary=:all:",
        "--platform=any",
        "--implementation=py",
        "--abi=none",
        "--python-version",
        LANGUAGE,
    ]);
    pip.arg("--target").arg(staged.path());
    tools::run(pip).context("cannot install the policy's packages: a component only runs packages of pure Python")?;
    match fs::rename(staged.path(), folder) {
        // Another build was faster.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => renamed.with_context(|| format!("creating {}", folder.display())),
    }
}

/// Whether a dependency is the SDK, which is not on a package index and which the build adds.
fn is_sdk(dependency: &str) -> bool {
    let name: String = dependency.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    name.to_ascii_lowercase().replace(['_', '.'], "-") == "tidegate-policy"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sdk_is_not_installed_as_a_dependency() {
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
