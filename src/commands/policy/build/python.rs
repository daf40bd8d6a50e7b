//! Builds policies in Python: componentize-py runs the project's modules once, and every instance starts from the memory at the end of
//! the build.

mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

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
/// The module that componentize-py loads; it loads the policy's module.
const ENTRY: &str = "tidegate_entry";
/// Names of modules of the build.
const RESERVED_MODULES: [&str; 3] = [ENTRY, "tidegate_policy", "wit_world"];
/// Markers around the SDK's error message in the output of componentize-py, as in `sdk/python/tidegate_policy/_build.py`.
const BEGIN: &str = "<<<tidegate-policy\n";
const END: &str = "\ntidegate-policy>>>";

/// The SDK, for policies without their own.
#[derive(RustEmbed)]
#[folder = "sdk/python"]
#[include = "tidegate_policy/**/*.py"]
struct PythonSdk;

/// The fields of `pyproject.toml` that the build uses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    project: PythonProject,
    tool: Tool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PythonProject {
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
    /// The folder of the package `tidegate_policy`.
    sdk: Option<PathBuf>,
}

pub fn build(job: &Job) -> Result<()> {
    let module = module(job)?;
    let manifest = Manifest::read(&job.project)?;
    let work = tools::temporary_folder()?;
    let sdk = sdk(job, &manifest, &work)?;
    let toolchain = Toolchain::find(&job.project)?;
    let packages = toolchain::packages(&job.project, &manifest.project.dependencies, &toolchain, &work)?;
    let (entry, wit, output) = (work.path().join("entry"), tools::wit_folder()?, work.path().join("policy.wasm"));
    fs::create_dir(&entry).context("writing the entry")?;
    // componentize-py mounts the folders as /0, /1, … in the order of the arguments; the policy's own is the second.
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
    // Otherwise componentize-py would use the packages of its own environment.
    command.env("VIRTUAL_ENV", &entry);
    command.arg("-o").arg(&output);
    eprintln!("policy build: running componentize-py {}, which takes about ten seconds", toolchain::VERSION);
    let done = command.output().context("starting componentize-py")?;
    if !done.status.success() {
        bail!("{}", error_message(&String::from_utf8_lossy(&[done.stdout, done.stderr].concat())));
    }
    let component = files::read(&output, MAX_COMPONENT_BYTES).context("reading the output of componentize-py")?;
    tools::write_output(job, &add_metadata(&component)?)
}

/// The name of the policy's module.
fn module(job: &Job) -> Result<String> {
    let file = job.source.clone().unwrap_or_else(|| job.project.join("app.py"));
    ensure!(
        file.is_file(),
        "there is no {}: put the policy's function authorize into app.py, or name its file instead of the folder",
        file.display()
    );
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let is_identifier =
        name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) && name.starts_with(|c: char| !c.is_ascii_digit());
    ensure!(
        is_identifier && !RESERVED_MODULES.contains(&&*name),
        "{}: the name of a module may only contain letters, digits and _, and must not be {}",
        file.display(),
        RESERVED_MODULES.join(" or ")
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

/// The folder of the package `tidegate_policy`: the one that the manifest names, else `sdk` in the project, else a copy of the one in this
/// program.
fn sdk(job: &Job, manifest: &Manifest, work: &TempDir) -> Result<PathBuf> {
    let has_package = |folder: &Path| folder.join("tidegate_policy/__init__.py").is_file();
    if let Some(name) = &manifest.tool.tidegate.sdk {
        let folder = job.project.join(name);
        ensure!(
            has_package(&folder),
            "{}: tool.tidegate.sdk = {:?}: there is no package tidegate_policy",
            job.project.join("pyproject.toml").display(),
            name
        );
        return Ok(folder);
    }
    let own = job.project.join("sdk");
    if has_package(&own) {
        return Ok(own);
    }
    let folder = work.path().join("sdk");
    tools::extract::<PythonSdk>(&folder)?;
    Ok(folder)
}

/// Adds the language to the component's metadata, which componentize-py does not.
fn add_metadata(component: &[u8]) -> Result<Vec<u8>> {
    let mut metadata = AddMetadata::default();
    metadata.language = vec![("Python".into(), toolchain::LANGUAGE.into())];
    metadata.processed_by = vec![("componentize-py".into(), toolchain::VERSION.into())];
    metadata.to_wasm(component).context("adding metadata to the component")
}

/// The SDK's error message in the output, or the whole output if there is none.
fn error_message(output: &str) -> &str {
    let message = output.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    message.map_or(output, |(message, _)| message).trim()
}

#[cfg(test)]
mod tests;
