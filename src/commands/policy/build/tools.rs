//! Helpers for the builds of all languages: programs, folders, and the conversion of a core module to a component.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The interface that the program was compiled with, with the world for prewarmed instances.
pub const WIT: &str = concat!(include_str!("../../../../wit/policy.wit"), include_str!("../../../../sdk/prepared.wit"));

/// Writes the interface to a folder for toolchains. The folder is removed when the value is dropped.
pub fn wit_folder() -> Result<TempDir> {
    let folder = tempfile::tempdir().context("creating a temporary folder")?;
    fs::write(folder.path().join("policy.wit"), WIT).context("writing the interface")?;
    Ok(folder)
}

/// The folder of a toolchain that is installed once for all policies; `name` contains its version.
pub fn toolchain_folder(name: &str) -> Result<PathBuf> {
    let folder = crate::config::cache_dir()
        .context("no folder for toolchains: set TIDEGATE_CACHE_DIR, XDG_CACHE_HOME or HOME")?;
    Ok(folder.join("toolchains").join(name))
}

/// Finds the first of the programs `names` on the search path.
pub fn find(names: &[&str]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
}

/// Finds a program, or fails with an error that has the remedy.
pub fn need(names: &[&str], remedy: &str) -> Result<PathBuf> {
    find(names).with_context(|| format!("{} is not installed: {remedy}", names.join(" or ")))
}

/// Runs a program with its output on stderr, for the user.
pub fn run(command: &mut Command) -> Result<()> {
    let name = name(command);
    command.stdin(std::process::Stdio::null()).stdout(std::io::stderr());
    let status = command.status().with_context(|| format!("starting {name}"))?;
    ensure!(status.success(), "{name} failed ({status}); its output is above");
    Ok(())
}

/// Runs a program and returns its stdout without trailing white space.
pub fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command.stdin(std::process::Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8(output.stdout).with_context(|| format!("{name}: its output is not UTF-8"))?.trim_end().into())
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned()
}

/// Converts a core module to a component. `world` is embedded if the module does not name its own; `adapters` are modules with their
/// import names.
pub fn componentize(module: &[u8], world: Option<&str>, adapters: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut module = module.to_vec();
    if let Some(world) = world {
        let mut resolve = Resolve::default();
        let package = resolve.push_source("policy.wit", WIT)?;
        let world = resolve.select_world(&[package], Some(world))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    let mut encoder = ComponentEncoder::default().module(&module)?.validate(true);
    for (name, adapter) in adapters {
        encoder = encoder.adapter(name, adapter)?;
    }
    encoder.encode().context("encoding the component")
}
