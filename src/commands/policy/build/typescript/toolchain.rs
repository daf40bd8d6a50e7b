//! The program of esbuild: that of the project, or one that npm installs once for all policies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::artifact::digest::Digest;
use crate::commands::policy::build::typescript::esbuild::VERSION;
use crate::commands::policy::build::{MAX_MANIFEST_BYTES, tools};
use crate::util::files;

const PACKAGES: &str = include_str!("../../../../../sdk/typescript/bundler/package.json");
/// With the digest of each package.
const LOCK: &str = include_str!("../../../../../sdk/typescript/bundler/package-lock.json");

const REMEDY: &str =
    "the build needs npm once, to install esbuild, the bundler: install Node.js from https://nodejs.org/en/download";

/// Returns the program, and installs it if it is missing.
pub fn esbuild(project: &Path) -> Result<PathBuf> {
    let package = package()?;
    if let Some(program) = installed(project, &package)? {
        return Ok(program);
    }
    let npm = tools::need(&["npm"], REMEDY)?;
    let folder = folder()?;
    eprintln!("installing esbuild {VERSION} into {} (once, about 11 MB)", folder.display());
    tools::install(&folder, |staged| {
        fs::write(staged.join("package.json"), PACKAGES)?;
        fs::write(staged.join("package-lock.json"), LOCK)?;
        let mut install = Command::new(npm);
        install.current_dir(staged).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        tools::run(&mut install)
    })?;
    let program = program(&folder.join("node_modules"), &package);
    ensure!(program.is_file(), "npm did not install {}: remove {} and try again", package, folder.display());
    Ok(program)
}

/// The program, if the project or the folder of toolchains has it.
pub fn installed(project: &Path, package: &str) -> Result<Option<PathBuf>> {
    let of_project = project.ancestors().map(|folder| folder.join("node_modules")).find(|modules| {
        version(&modules.join(package)).as_deref() == Some(VERSION) && program(modules, package).is_file()
    });
    let shared = folder()?.join("node_modules");
    Ok(of_project.or(Some(shared)).map(|modules| program(&modules, package)).filter(|program| program.is_file()))
}

/// The package that has the program for this machine.
pub fn package() -> Result<String> {
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    let processor = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let package = format!("@esbuild/{system}-{processor}");
    let manifest: Value = serde_json::from_str(PACKAGES)?;
    let is_known = manifest["optionalDependencies"].get(&package).is_some();
    ensure!(is_known, "policies in TypeScript are not built on {system} with {processor}: build on Linux or macOS");
    Ok(package)
}

fn folder() -> Result<PathBuf> {
    tools::toolchain_folder(&format!("esbuild-{VERSION}-{}", &Digest::of(LOCK.as_bytes()).hex()[..12]))
}

fn program(modules: &Path, package: &str) -> PathBuf {
    modules.join(package).join("bin/esbuild")
}

fn version(package: &Path) -> Option<String> {
    let manifest = files::read(&package.join("package.json"), MAX_MANIFEST_BYTES).ok()?;
    Some(serde_json::from_slice::<Value>(&manifest).ok()?["version"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_has_the_digest_of_each_package_at_this_version() {
        let (manifest, lock): (Value, Value) =
            (serde_json::from_str(PACKAGES).expect("a manifest"), serde_json::from_str(LOCK).expect("a lock file"));
        let packages = manifest["optionalDependencies"].as_object().expect("packages");
        assert_eq!(packages.len(), 4);
        for (name, version) in packages {
            let locked = &lock["packages"][format!("node_modules/{name}")];
            assert_eq!((version.as_str(), locked["version"].as_str()), (Some(VERSION), Some(VERSION)), "{name}");
            assert!(locked["integrity"].as_str().is_some_and(|digest| digest.starts_with("sha512-")), "{name}");
        }
        package().expect("this machine is supported");
    }

    #[test]
    fn program_of_another_version_in_the_project_is_not_used() {
        let project = tempfile::tempdir().expect("a folder");
        let package = package().expect("a package");
        let modules = project.path().join("node_modules");
        let path = program(&modules, &package);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, "").expect("a file");
        for (version, is_used) in [("0.1.0", false), (VERSION, true)] {
            fs::write(modules.join(&package).join("package.json"), format!(r#"{{"version":"{version}"}}"#))
                .expect("a file");
            let found = installed(&project.path().join("app"), &package).expect("readable");
            assert_eq!(found.as_ref() == Some(&path), is_used, "{version}");
        }
    }
}
