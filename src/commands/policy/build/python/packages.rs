//! The Python packages of a policy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::artifact::digest::Digest;
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
    // The zeros keep lists apart whose texts are the same when joined.
    let key: String =
        dependencies.iter().map(|name| &***name).chain([&*requirements]).flat_map(|text| [text, "\0"]).collect();
    let folder = tools::toolchain_folder("python-packages")?.join(&Digest::of(key.as_bytes()).hex()[..24]);
    if folder.is_dir() {
        return Ok(folder);
    }
    eprintln!("policy build: installing the policy's packages into {} (again only if they change)", folder.display());
    tools::install(&folder, |staged| {
        let mut pip = toolchain.pip_install();
        // Only packages that run in a component: wheels of pure Python for the component's version of Python.
        pip.args(["--only-binary=:all:", "--platform=any", "--implementation=py", "--abi=none", "--python-version"]);
        pip.arg(LANGUAGE).arg("--target").arg(staged).args(dependencies);
        if !requirements.trim().is_empty() {
            pip.arg("-r").arg(&requirements_file);
        }
        tools::run(&mut pip)
            .context("cannot install the policy's packages: a component only runs packages of pure Python")
    })?;
    Ok(folder)
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
