//! Builds policies in Python: componentize-py runs the project's modules once, and the component starts from the memory that is
//! left then.

mod packages;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rust_embed::RustEmbed;
use serde::Deserialize;
use tempfile::TempDir;
use wasm_metadata::AddMetadata;

use crate::commands::policy::build::python::toolchain::Toolchain;
use crate::commands::policy::build::{Job, MAX_MANIFEST_BYTES, tools};
use crate::util::files;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// The world that the SDK implements.
const WORLD: &str = "prepared-policy";
/// The module that componentize-py is told to load; it loads the policy's.
const ENTRY: &str = "tidegate_entry";
/// Around what the SDK says of a failure, in what componentize-py prints; as in `sdk/python/tidegate_policy/_build.py`.
const BEGIN: &str = "<<<tidegate-policy\n";
const END: &str = "\ntidegate-policy>>>";

/// The SDK, for policies that bring none.
#[derive(RustEmbed)]
#[folder = "sdk/python"]
#[include = "tidegate_policy/*.py"]
struct Sdk;

/// What `pyproject.toml` says that matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    project: Project,
    tool: Tool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Project {
    dependencies: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tool {
    tidegate: Tidegate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tidegate {
    /// The folder that the package `tidegate_policy` is in.
    sdk: Option<PathBuf>,
}

pub fn build(job: &Job) -> Result<()> {
    let module = module(job)?;
    let manifest = Manifest::read(&job.project)?;
    let work = tempfile::tempdir().context("making a temporary folder")?;
    let sdk = sdk(job, &manifest, &work)?;
    let toolchain = Toolchain::find(&job.project)?;
    let packages = packages::folder(&job.project, &manifest.project.dependencies, &toolchain, &work)?;
    let (entry, wit, output) = (work.path().join("entry"), tools::wit_folder()?, work.path().join("policy.wasm"));
    fs::create_dir(&entry).context("writing the entry")?;
    // The folders are mounted as /0, /1, … in their order below; a path of the policy's own begins with the second's.
    let text = format!(
        "import sys\nsys.dont_write_bytecode = True\n\
         from tidegate_policy._component import make\nAuthorizer, Preparation = make(\"{module}\", \"/1/\")\n"
    );
    fs::write(entry.join(format!("{ENTRY}.py")), text).context("writing the entry")?;
    let mut command = toolchain.componentize();
    command.arg("-d").arg(wit.path()).args(["-w", WORLD, "componentize", ENTRY]);
    for folder in [&entry, &job.project, &sdk, &packages] {
        command.arg("-p").arg(folder);
    }
    // Without this it looks for packages of its own, and would find those that it was itself installed with.
    command.env("VIRTUAL_ENV", &entry);
    command.arg("-o").arg(&output);
    eprintln!("policy build: componentize-py {}: it takes some ten seconds", toolchain::VERSION);
    componentize(&mut command)?;
    let component = signed(&files::read(&output, MAX_COMPONENT_BYTES).context("reading what componentize-py wrote")?)?;
    // Whoever watches the file sees a whole one or none.
    let staged = job.output.with_extension("wasm.new");
    fs::write(&staged, component)
        .and_then(|()| fs::rename(&staged, &job.output))
        .with_context(|| format!("writing {}", job.output.display()))
}

/// The name of the policy's module.
fn module(job: &Job) -> Result<String> {
    let file = job.source.clone().unwrap_or_else(|| job.project.join("app.py"));
    ensure!(
        file.is_file(),
        "there is no {}: a policy's function authorize is in app.py, or name its file in place of the folder",
        file.display()
    );
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let is_identifier =
        name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) && !name.starts_with(|c: char| c.is_ascii_digit());
    ensure!(is_identifier && !name.is_empty(), "{}: a module's name has letters, digits and _ only", file.display());
    ensure!(
        ![ENTRY, "tidegate_policy", "wit_world"].contains(&&*name),
        "{}: the name {name} is taken by what is built around a policy",
        file.display()
    );
    Ok(name)
}

impl Manifest {
    fn read(project: &Path) -> Result<Self> {
        let file = project.join("pyproject.toml");
        if !file.exists() {
            return Ok(Self::default());
        }
        let text =
            files::read_text(&file, MAX_MANIFEST_BYTES).with_context(|| format!("reading {}", file.display()))?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }
}

/// The folder that the package `tidegate_policy` is in: the one that the manifest names, else `sdk` in the project, else the
/// one in this program.
fn sdk(job: &Job, manifest: &Manifest, work: &TempDir) -> Result<PathBuf> {
    let has_package = |folder: &Path| folder.join("tidegate_policy/__init__.py").is_file();
    if let Some(named) = &manifest.tool.tidegate.sdk {
        let folder = job.project.join(named);
        ensure!(
            has_package(&folder),
            "{}: tool.tidegate.sdk = {:?}: there is no package tidegate_policy",
            job.project.join("pyproject.toml").display(),
            named
        );
        return Ok(folder);
    }
    let beside = job.project.join("sdk");
    if has_package(&beside) {
        return Ok(beside);
    }
    let folder = work.path().join("sdk");
    for name in Sdk::iter() {
        let (path, file) = (folder.join(&*name), Sdk::get(&name).context("a file of the SDK")?);
        fs::create_dir_all(path.parent().unwrap_or(&folder)).context("writing the SDK")?;
        fs::write(path, file.data).context("writing the SDK")?;
    }
    Ok(folder)
}

/// The component with a note of its language, which componentize-py does not leave.
fn signed(component: &[u8]) -> Result<Vec<u8>> {
    let mut note = AddMetadata::default();
    note.language = vec![("Python".into(), toolchain::LANGUAGE.into())];
    note.processed_by = vec![("componentize-py".into(), toolchain::VERSION.into())];
    note.to_wasm(component).context("signing the component")
}

/// Runs componentize-py; of a failure it shows what is for the author's eyes.
fn componentize(command: &mut Command) -> Result<()> {
    let output = command.output().context("starting componentize-py")?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    bail!("{}", explanation(&said))
}

/// The SDK's own words if there are any, else all that was said.
fn explanation(said: &str) -> &str {
    let own = said.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    own.map_or(said, |(words, _)| words).trim()
}

#[cfg(test)]
mod tests;
