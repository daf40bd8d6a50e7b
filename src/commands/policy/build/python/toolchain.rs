//! componentize-py, the Python that runs it, and the Python packages of a policy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::artifact::digest::Digest;
use crate::commands::policy::build::{MAX_MANIFEST_BYTES, tools};
use crate::util::files;

/// The version of componentize-py.
pub const VERSION: &str = "0.25.1";
/// The version of pip that installs packages: `install.py` uses its internal functions.
const PIP_VERSION: &str = "26.3";
/// The version of Python in the component, independent of the one that runs componentize-py.
pub const LANGUAGE: &str = "3.14";

/// Installs packages, and explains why it cannot.
const INSTALL: &str = include_str!("install.py");
/// The file in a folder of packages with lines about packages that are not the current release.
const NOTES: &str = "tidegate-notes.txt";

const INSTALL_PYTHON: &str = "install Python 3.10 or newer (Debian, Ubuntu: apt install python3 python3-venv)";

/// A Python with componentize-py.
pub struct Toolchain {
    python: PathBuf,
}

impl Toolchain {
    /// Finds the Python of the project's or the active virtual environment if it has the right version of componentize-py; else installs
    /// one, once for all policies.
    pub fn find(project: &Path) -> Result<Self> {
        let environment = environment(project);
        if let Some(environment) = environment.filter(|environment| has_componentize_py(environment)) {
            return Ok(Self { python: environment.join("bin/python") });
        }
        let python = tools::need(&["python3", "python"], INSTALL_PYTHON)?;
        let version = "import sys; print('%d.%d' % sys.version_info[:2])";
        let version = tools::output(Command::new(&python).args(["-c", version]))?;
        let is_new_enough = tools::version(&version).is_some_and(|version| version >= (3, 10));
        ensure!(is_new_enough, "{} is Python {version}: {INSTALL_PYTHON}", python.display());
        // The folder's name contains the version of Python, because an upgraded Python would not find the packages.
        let folder = tools::toolchain_folder(&format!("componentize-py-{VERSION}-pip{PIP_VERSION}-python{version}"))?;
        if !has_componentize_py(&folder) {
            install(&python, &folder)?;
        }
        Ok(Self { python: folder.join("bin/python") })
    }

    /// A command that runs componentize-py without the environment variables of this process.
    pub fn componentize(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.env_clear();
        if let Some(folder) = std::env::var_os("TMPDIR") {
            command.env("TMPDIR", folder);
        }
        // Not with its script, whose first line has the path of the temporary folder of the installation.
        command.args(["-c", "import sys; from componentize_py import script; sys.exit(script())"]);
        command
    }
}

/// The virtual environment of a project, else the active one.
fn environment(project: &Path) -> Option<PathBuf> {
    let own = [".venv", "venv"].map(|name| project.join(name));
    let active = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    own.into_iter().chain(active).find(|folder| folder.join("pyvenv.cfg").is_file())
}

/// The folder of a virtual environment's packages.
fn site_packages(environment: &Path) -> Option<PathBuf> {
    let libraries = fs::read_dir(environment.join("lib")).ok()?;
    libraries.filter_map(|entry| Some(entry.ok()?.path().join("site-packages"))).find(|folder| folder.is_dir())
}

fn has_componentize_py(environment: &Path) -> bool {
    let packages = site_packages(environment);
    packages.is_some_and(|folder| folder.join(format!("componentize_py-{VERSION}.dist-info/RECORD")).is_file())
}

fn install(python: &Path, folder: &Path) -> Result<()> {
    eprintln!("policy build: installing componentize-py {VERSION} into {} (once)", folder.display());
    let has_venv = Command::new(python).args(["-c", "import venv, ensurepip"]).output();
    ensure!(
        has_venv.context("starting python")?.status.success(),
        "{} has no module venv: install it (Debian, Ubuntu: apt install python3-venv)",
        python.display()
    );
    tools::install(folder, |staged| {
        tools::run(Command::new(python).args(["-m", "venv"]).arg(staged))?;
        let mut pip = Command::new(staged.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
        tools::run(pip.args([format!("componentize-py=={VERSION}"), format!("pip=={PIP_VERSION}")]))?;
        // An incomplete folder is not from another build: the rename makes complete ones only.
        if folder.exists() && !has_componentize_py(folder) {
            fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        Ok(())
    })
}

/// The folder of the packages: that of the project's or the active virtual environment, else a folder with the installed packages of
/// `pyproject.toml` and `requirements.txt`, else an empty folder.
pub fn packages(project: &Path, dependencies: &[String], toolchain: &Toolchain, work: &TempDir) -> Result<PathBuf> {
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
    let folder = tools::toolchain_folder("python-pure-packages")?.join(&Digest::of(key.as_bytes()).hex()[..24]);
    if !folder.is_dir() {
        eprintln!(
            "policy build: installing the policy's packages into {} (again only if they change)",
            folder.display()
        );
        tools::install(&folder, |staged| {
            let script = work.path().join("install.py");
            fs::write(&script, INSTALL).context("writing a temporary file")?;
            let mut install = Command::new(&toolchain.python);
            install.arg(script).arg(staged).arg(LANGUAGE).args(dependencies);
            if !requirements.trim().is_empty() {
                install.arg("-r").arg(&requirements_file);
            }
            let done = install.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("starting python")?;
            let printed = String::from_utf8_lossy(&done.stdout);
            let reason = if printed.trim().is_empty() { "the output above says why" } else { printed.trim() };
            ensure!(done.status.success(), "cannot install the policy's packages: {reason}");
            fs::write(staged.join(NOTES), printed.trim()).context("writing a note")
        })?;
    }
    for line in files::read_text(&folder.join(NOTES), MAX_MANIFEST_BYTES).unwrap_or_default().lines() {
        eprintln!("policy build: {line}");
    }
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
