//! Helpers for the builds of all languages: programs, folders, and the conversion of a core module to a component.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rust_embed::RustEmbed;
use tempfile::TempDir;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::commands::policy::build::Job;
use crate::util::files;
use crate::util::private_dir::PrivateDir;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// The interface that the program was compiled with, with the world for prewarmed instances.
const WIT: &str = concat!(include_str!("../../../../wit/policy.wit"), include_str!("../../../../sdk/prepared.wit"));

/// A module that implements the functions of WASI preview 1 with host functions of the gateway, and the WIT world that a core module
/// implements with it.
pub struct Adapter {
    pub world: &'static str,
    pub module: &'static [u8],
}

/// Creates a folder that is removed when the value is dropped.
pub fn temporary_folder() -> Result<TempDir> {
    tempfile::tempdir().context("creating a temporary folder")
}

/// Writes the interface to a folder for toolchains. The folder is removed when the value is dropped.
pub fn wit_folder() -> Result<TempDir> {
    let folder = temporary_folder()?;
    fs::write(folder.path().join("policy.wit"), WIT).context("writing the interface")?;
    Ok(folder)
}

/// Writes files that the program contains to a folder.
pub fn extract<E: RustEmbed>(folder: &Path) -> Result<()> {
    for name in E::iter() {
        let path = folder.join(&*name);
        let file = E::get(&name).with_context(|| format!("{name} is missing in the program"))?;
        let write = fs::create_dir_all(path.parent().unwrap_or(folder)).and_then(|()| fs::write(&path, file.data));
        write.with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The folder of a toolchain that is installed once for all policies; `name` contains its version.
pub fn toolchain_folder(name: &str) -> Result<PathBuf> {
    let folder = crate::config::cache_dir()
        .context("no folder for toolchains: set TIDEGATE_CACHE_DIR, XDG_CACHE_HOME or HOME")?;
    let folder = folder.join("toolchains");
    // Builds run the programs in it.
    if let Some(fault) = PrivateDir::new(folder.clone()).fault() {
        bail!("no folder for toolchains: {fault}; TIDEGATE_CACHE_DIR names another one");
    }
    Ok(folder.join(name))
}

/// Creates the folder of a toolchain. `fill` writes to a temporary folder, which is then renamed: an interrupted installation is not
/// taken for a toolchain, and builds at the same time do not see a partial one.
pub fn install(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    PrivateDir::new(parent.into()).create().with_context(|| format!("creating {}", parent.display()))?;
    let staged = tempfile::Builder::new().prefix(".installing-").tempdir_in(parent);
    let staged = staged.with_context(|| format!("creating a folder in {}", parent.display()))?;
    fill(staged.path())?;
    match fs::rename(staged.path(), folder) {
        // Another build was faster.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => renamed.with_context(|| format!("moving the toolchain to {}", folder.display())),
    }
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
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().with_context(|| format!("starting {name}"))?;
    ensure!(status.success(), "{name} failed ({status}); its output is above");
    Ok(())
}

/// Runs a program with its output on stderr, for the user. The error is what it printed, if it fails.
pub fn run_with_output(command: &mut Command) -> Result<std::result::Result<(), String>> {
    let name = name(command);
    command.stdin(Stdio::null()).stdout(std::io::stderr()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let mut printed = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.with_context(|| format!("reading the output of {name}"))?;
            eprintln!("{}", String::from_utf8_lossy(&line));
            printed.extend(line);
            printed.push(b'\n');
        }
    }
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    Ok(if status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&printed).into_owned()) })
}

/// Runs a program and returns its stdout without trailing white space.
pub fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8(output.stdout).with_context(|| format!("{name}: its output is not UTF-8"))?.trim_end().into())
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned()
}

/// The major and minor version in the output of a toolchain, such as `v20.11.1`, `go1.26.8` or `3.12`. None for versions that are not
/// releases.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches(|c: char| !c.is_ascii_digit()).split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Converts a core module to the component of a job. `mistake` is the likely reason if it is not a policy.
pub fn write_component(job: &Job, module: &Path, adapter: Option<&Adapter>, mistake: &'static str) -> Result<()> {
    write_module(job, read_module(module)?, adapter, mistake)
}

/// Reads the output of a linker.
pub fn read_module(module: &Path) -> Result<Vec<u8>> {
    files::read(module, MAX_COMPONENT_BYTES).with_context(|| format!("reading {}", module.display()))
}

/// Converts the bytes of a core module to the component of a job. `mistake` is the likely reason if it is not a policy.
pub fn write_module(job: &Job, module: Vec<u8>, adapter: Option<&Adapter>, mistake: &'static str) -> Result<()> {
    write_output(job, &componentize(module, adapter).context(mistake)?)
}

/// Writes the output file of a job, by a rename: a gateway may watch the file and must not read a partial one.
pub fn write_output(job: &Job, component: &[u8]) -> Result<()> {
    let staged = job.output.with_extension("wasm.new");
    let written = fs::write(&staged, component).and_then(|()| fs::rename(&staged, &job.output));
    written.with_context(|| format!("writing {}", job.output.display()))
}

/// Converts a core module to a component.
pub fn componentize(mut module: Vec<u8>, adapter: Option<&Adapter>) -> Result<Vec<u8>> {
    if let Some(Adapter { world, .. }) = adapter {
        let mut resolve = Resolve::default();
        let package = resolve.push_source("policy.wit", WIT)?;
        let world = resolve.select_world(&[package], Some(world))?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    let mut encoder = ComponentEncoder::default().module(&module)?.validate(true);
    if let Some(Adapter { module, .. }) = adapter {
        encoder = encoder.adapter("wasi_snapshot_preview1", module)?;
    }
    encoder.encode().context("encoding the component")
}
