//! Builds policies in TypeScript and JavaScript with the scripts of `sdk/typescript/build`, which the program contains. This module finds
//! Node, and installs the npm packages at the versions that the scripts require.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rust_embed::RustEmbed;
use serde_json::Value;

use crate::artifact::digest::Digest;
use crate::commands::policy::build::{Job, MAX_MANIFEST_BYTES, tools};
use crate::util::files;

/// The scripts of the build, and the sources that it compiles into the component.
#[derive(RustEmbed)]
#[folder = "sdk/typescript"]
#[include = "package.json"]
#[include = "build/*"]
#[include = "platform/*"]
#[include = "runtime/*"]
#[include = "src/*"]
struct Kit;

const PACKAGES: &str = include_str!("../../../../sdk/typescript/toolchain/package.json");
const LOCK: &str = include_str!("../../../../sdk/typescript/toolchain/package-lock.json");

/// The oldest version of Node that was tested.
const OLDEST_NODE: (u32, u32) = (20, 11);

const REMEDY: &str = "install Node.js 20.11 or newer from https://nodejs.org/en/download";

pub fn build(job: &Job) -> Result<()> {
    let node = node()?;
    let packages = match project_packages(&job.project)? {
        Some(folder) => folder,
        None => shared_packages()?,
    };
    let kit = tools::temporary_folder()?;
    tools::extract::<Kit>(kit.path())?;
    let wit = tools::wit_folder()?;
    let mut command = Command::new(node);
    command.arg(kit.path().join("build/build.mjs")).arg(job.source.as_ref().unwrap_or(&job.project));
    command.arg("--output").arg(&job.output).arg("--wit").arg(wit.path()).arg("--modules").arg(packages);
    tools::run(&mut command)
}

fn node() -> Result<PathBuf> {
    let node = tools::need(&["node"], REMEDY)?;
    let version = tools::output(Command::new(&node).arg("--version"))?;
    let is_new_enough = tools::version(&version).is_some_and(|version| version >= OLDEST_NODE);
    ensure!(is_new_enough, "{} is Node.js {version}, which is too old: {REMEDY}", node.display());
    Ok(node)
}

/// The `node_modules` of the project, if it has all packages at the required versions.
fn project_packages(project: &Path) -> Result<Option<PathBuf>> {
    let required = required_packages()?;
    let has_all = |folder: &Path| {
        required.iter().all(|(name, version)| installed_version(folder, name).as_ref() == Some(version))
    };
    Ok(project.ancestors().map(|folder| folder.join("node_modules")).find(|folder| has_all(folder)))
}

fn installed_version(modules: &Path, name: &str) -> Option<String> {
    let manifest = files::read(&modules.join(name).join("package.json"), MAX_MANIFEST_BYTES).ok()?;
    Some(serde_json::from_slice::<Value>(&manifest).ok()?["version"].as_str()?.to_owned())
}

fn required_packages() -> Result<Vec<(String, String)>> {
    let manifest: Value = serde_json::from_str(PACKAGES)?;
    let packages = manifest["dependencies"].as_object().context("the manifest has no dependencies")?;
    Ok(packages.iter().map(|(name, version)| (name.clone(), version.as_str().unwrap_or_default().to_owned())).collect())
}

/// The packages in the folder of toolchains, which the first build installs.
fn shared_packages() -> Result<PathBuf> {
    let folder = tools::toolchain_folder(&format!("typescript-{}", &Digest::of(LOCK.as_bytes()).hex()[..12]))?;
    let modules = folder.join("node_modules");
    if modules.is_dir() {
        return Ok(modules);
    }
    let npm = tools::need(&["npm"], REMEDY)?;
    eprintln!("installing the toolchain for TypeScript policies into {} (once, about 400 MB)", folder.display());
    tools::install(&folder, |staged| {
        fs::write(staged.join("package.json"), PACKAGES)?;
        fs::write(staged.join("package-lock.json"), LOCK)?;
        let mut install = Command::new(npm);
        install.current_dir(staged).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
        tools::run(&mut install)
    })?;
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_packages_of_another_version_are_not_used() {
        let project = tempfile::tempdir().expect("a folder");
        let modules = project.path().join("node_modules");
        let install = |name: &str, version: &str| {
            let folder = modules.join(name);
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("package.json"), format!(r#"{{"version":"{version}"}}"#)).expect("a manifest");
        };
        for (name, version) in required_packages().expect("packages") {
            assert_eq!(project_packages(&project.path().join("app")).expect("readable"), None);
            install(&name, &version);
        }
        assert_eq!(project_packages(&project.path().join("app")).expect("readable"), Some(modules.clone()));
        install("esbuild", "0.1.0");
        assert_eq!(project_packages(project.path()).expect("readable"), None);
    }

    #[test]
    fn kit_is_complete() {
        let kit = tempfile::tempdir().expect("a folder");
        tools::extract::<Kit>(kit.path()).expect("a kit");
        for file in ["build/build.mjs", "runtime/entry.ts", "platform/index.ts", "src/index.ts", "package.json"] {
            assert!(kit.path().join(file).is_file(), "{file}");
        }
    }
}
