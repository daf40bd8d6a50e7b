//! What the languages' builds have in common: programs, folders, and making a core module a component.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The interface as the program was compiled with it, with the world of those who prepare.
pub const WIT: &str = concat!(include_str!("../../../../wit/policy.wit"), include_str!("../../../../sdk/prepared.wit"));

/// The interface as a folder, for toolchains that read it. It goes with the value.
pub fn wit_folder() -> Result<TempDir> {
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    fs::write(folder.path().join("policy.wit"), WIT).context("writing the interface")?;
    Ok(folder)
}

/// The folder of a toolchain that is installed once for all policies; `name` says which, with its version.
pub fn toolchain_folder(name: &str) -> Result<PathBuf> {
    let folder = crate::config::cache_dir()
        .context("there is no folder for toolchains: neither TIDEGATE_CACHE_DIR nor XDG_CACHE_HOME nor HOME is set")?;
    Ok(folder.join("toolchains").join(name))
}

/// Where a program is, by the search path; the first of `names` that is there.
pub fn find(names: &[&str]) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
}

/// Where a program is, or an error that says how to get it.
pub fn need(names: &[&str], remedy: &str) -> Result<PathBuf> {
    find(names).with_context(|| format!("{} is not installed here; {remedy}", names.join(" or ")))
}

/// Runs a program whose words are the user's to read: what it prints goes to stderr as it is.
pub fn run(command: &mut Command) -> Result<()> {
    let name = name(command);
    command.stdin(std::process::Stdio::null()).stdout(std::io::stderr());
    let status = command.status().with_context(|| format!("starting {name}"))?;
    ensure!(status.success(), "{name} failed ({status}); what it said stands above");
    Ok(())
}

/// Runs a program whose output is an answer: its stdout, less the last line's end.
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

/// A component out of a core module. `world` is embedded, unless the module says its world itself; `adapters` are modules with
/// the names that they are imported by.
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
    encoder.encode().context("making a component")
}
