//! Builds policies in C: clang with the WebAssembly linker, or the compiler that Zig brings; no C library.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rust_embed::RustEmbed;
use tempfile::TempDir;

use crate::commands::policy::build::{Job, MAX_MANIFEST_BYTES, tools, zig};
use crate::util::files;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// The SDK, for a source file that is no project.
#[derive(RustEmbed)]
#[folder = "sdk/c"]
#[exclude = "build/*"]
struct Sdk;

/// What of the SDK is compiled into a policy. `fake.c` and `test_sdk.c` are for tests.
const SOURCES: [&str; 6] = ["text.c", "request.c", "gateway.c", "json.c", "bindings/policy.c", "freestanding/libc.c"];

/// Says the world to what makes a component of the module.
const COMPONENT_TYPE: &str = "bindings/policy_component_type.o";

/// A policy recurses little: a small stack keeps all that an instance touches together, which makes it cheap to begin anew.
pub(super) const STACK: &str = "16384";

const REMEDY: &str = "a compiler for WebAssembly and its linker are what a policy in C needs: on Debian and Ubuntu \
                      `apt-get install clang lld`, elsewhere https://releases.llvm.org, or `pip install ziglang`";

pub fn build(job: &Job) -> Result<()> {
    let sources = sources(job)?;
    let sdk = sdk(job)?;
    let compiler = Compiler::find()?;
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    let module = folder.path().join("policy.core.wasm");

    let mut command = compiler.command();
    command.current_dir(&job.project);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Oz", "-ffreestanding", "-fno-builtin", "-nostdlib"]);
    command.arg("-I").arg(sdk.path()).arg("-I").arg(sdk.path().join("freestanding"));
    command.args(sources);
    command.args(files(sdk.path()));
    command.args(["-Wl,--no-entry", "-Wl,--gc-sections", "-Wl,--strip-all"]);
    command.arg(format!("-Wl,-z,stack-size={STACK}")).arg("-o").arg(&module);
    tools::run(&mut command)?;

    let module = files::read(&module, MAX_COMPONENT_BYTES).with_context(|| format!("reading {}", module.display()))?;
    let component = tools::componentize(&module, None, &[])?;
    fs::write(&job.output, component).with_context(|| format!("writing {}", job.output.display()))
}

/// What of the SDK belongs to a policy.
pub(super) fn files(sdk: &Path) -> impl Iterator<Item = PathBuf> {
    SOURCES.into_iter().chain([COMPONENT_TYPE]).map(|file| sdk.join(file))
}

/// The policy's own sources, as paths below its folder, so that the compiler's words name them as their author does: the file
/// that was named, or those in the folder and in its `src`, less the tests.
fn sources(job: &Job) -> Result<Vec<PathBuf>> {
    if let Some(source) = &job.source {
        return Ok(vec![source.strip_prefix(&job.project).unwrap_or(source).to_path_buf()]);
    }
    let mut sources = Vec::new();
    for folder in ["", "src"] {
        let Ok(entries) = fs::read_dir(job.project.join(folder)) else { continue };
        for entry in entries {
            let name = entry?.file_name();
            let name = Path::new(&name);
            let stem = name.file_stem().unwrap_or_default().to_string_lossy();
            let is_test = stem.starts_with("test_") || stem.ends_with("_test");
            if name.extension().is_some_and(|extension| extension == "c") && !is_test {
                sources.push(Path::new(folder).join(name));
            }
        }
    }
    ensure!(!sources.is_empty(), "{} has no .c file that is not a test", job.project.display());
    sources.sort();
    Ok(sources)
}

/// Where the SDK is.
pub(super) enum Place {
    Project(PathBuf),
    Temporary(TempDir),
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Project(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// The SDK of the project, as its Makefile says (`SDK = sdk`); else the one that this program brings.
pub(super) fn sdk(job: &Job) -> Result<Place> {
    if job.source.is_none()
        && let Some(named) =
            files::read_text(&job.project.join("Makefile"), MAX_MANIFEST_BYTES).ok().as_deref().and_then(named_sdk)
    {
        let path = job.project.join(named);
        ensure!(
            path.join("tidegate.h").is_file(),
            "Makefile: SDK = {named}: there is no tidegate.h in {}",
            path.display()
        );
        return Ok(Place::Project(path.canonicalize().with_context(|| format!("finding {}", path.display()))?));
    }
    let folder = tempfile::tempdir().context("making a temporary folder")?;
    for name in Sdk::iter() {
        let place = folder.path().join(&*name);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        let file = Sdk::get(&name).with_context(|| format!("the SDK has no {name}"))?;
        fs::write(&place, file.data).with_context(|| format!("writing {}", place.display()))?;
    }
    Ok(Place::Temporary(folder))
}

fn named_sdk(makefile: &str) -> Option<&str> {
    makefile
        .lines()
        .find_map(|line| line.strip_prefix("SDK")?.trim_start_matches([' ', ':', '?']).strip_prefix('='))
        .map(str::trim)
}

/// What compiles C for WebAssembly.
enum Compiler {
    /// clang, and the linker of its version.
    Clang { compiler: PathBuf, linker: PathBuf },
    /// Zig, as a program or as Python's package.
    Zig(Vec<OsString>),
}

impl Compiler {
    /// The newest clang that has its linker, from 14, which is what Debian 12 calls `clang`; else Zig.
    fn find() -> Result<Self> {
        for version in (14..40).rev().map(Some).chain([None]) {
            let versioned = |name: &str| version.map_or_else(|| name.to_owned(), |version| format!("{name}-{version}"));
            let compiler = tools::find(&[&versioned("clang")]);
            if let (Some(compiler), Some(linker)) = (compiler, tools::find(&[&versioned("wasm-ld")]))
                && can_compile(&compiler)
            {
                return Ok(Self::Clang { compiler, linker });
            }
        }
        match zig::find() {
            Some(zig) => Ok(Self::Zig(zig)),
            None => bail!("neither clang with wasm-ld nor zig is installed here; {REMEDY}"),
        }
    }

    fn command(&self) -> Command {
        match self {
            Self::Clang { compiler, linker } => {
                let mut command = Command::new(compiler);
                command.args(["--target=wasm32-unknown-unknown", "-flto"]);
                command.arg(format!("-fuse-ld={}", linker.display()));
                command
            }
            Self::Zig(words) => {
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).args(["cc", "--target=wasm32-freestanding"]);
                command
            }
        }
    }
}

/// Apple's clang, for one, knows no WebAssembly.
fn can_compile(clang: &Path) -> bool {
    tools::output(Command::new(clang).arg("--print-targets")).is_ok_and(|targets| targets.contains("wasm32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makefile_says_where_the_sdk_is() {
        for (makefile, expected) in [
            ("# a policy\nSDK = ../../sdk/c\n\nall:\n", Some("../../sdk/c")),
            ("SDK:=sdk", Some("sdk")),
            ("SDK ?= sdk ", Some("sdk")),
            ("SDKS = a\nall:\n\techo SDK", None),
        ] {
            assert_eq!(named_sdk(makefile), expected, "{makefile}");
        }
    }

    #[test]
    fn tests_are_no_part_of_the_policy() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("src")).expect("a folder");
        for file in ["policy.c", "test_policy.c", "policy_test.c", "policy.h", "src/roles.c"] {
            fs::write(folder.path().join(file), "").expect("a file");
        }
        let job = Job { project: folder.path().into(), source: None, output: folder.path().join("policy.wasm") };
        assert_eq!(sources(&job).expect("sources"), [PathBuf::from("policy.c"), PathBuf::from("src/roles.c")]);
    }
}
