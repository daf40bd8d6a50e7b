//! Builds policies in C with clang and the WebAssembly linker, or with Zig's C compiler. There is no C library.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rust_embed::RustEmbed;
use tempfile::TempDir;

use crate::commands::policy::build::{Job, MAX_MANIFEST_BYTES, tools, zig_toolchain};
use crate::util::files;
use crate::wasm::load_error::MAX_COMPONENT_BYTES;

/// The SDK, for policies without their own.
#[derive(RustEmbed)]
#[folder = "sdk/c"]
#[exclude = "build/*"]
struct Sdk;

/// The files of the SDK that are compiled into a policy. `test_gateway.c` and `test_sdk.c` are for tests.
const SOURCES: [&str; 6] = ["text.c", "request.c", "gateway.c", "json.c", "bindings/policy.c", "freestanding/libc.c"];

/// An object file whose custom section has the module's WIT world.
const COMPONENT_TYPE: &str = "bindings/policy_component_type.o";

/// Policies recurse little, and a small stack reduces the memory that each new instance touches.
pub(super) const STACK_BYTES: &str = "16384";

const REMEDY: &str = "a policy in C needs a compiler and a linker for WebAssembly: on Debian and Ubuntu \
                      `apt-get install clang lld`, elsewhere https://releases.llvm.org, or `pip install ziglang`";

pub fn build(job: &Job) -> Result<()> {
    let sources = sources(job)?;
    let sdk = sdk(job)?;
    let compiler = Compiler::find()?;
    let folder = tempfile::tempdir().context("creating a temporary folder")?;
    let module = folder.path().join("policy.core.wasm");

    let mut command = compiler.command();
    command.current_dir(&job.project);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Oz", "-ffreestanding", "-fno-builtin", "-nostdlib"]);
    command.arg("-I").arg(sdk.path()).arg("-I").arg(sdk.path().join("freestanding"));
    command.args(sources);
    command.args(sdk_files(sdk.path()));
    command.args(["-Wl,--no-entry", "-Wl,--gc-sections", "-Wl,--strip-all"]);
    command.arg(format!("-Wl,-z,stack-size={STACK_BYTES}")).arg("-o").arg(&module);
    tools::run(&mut command)?;

    let module = files::read(&module, MAX_COMPONENT_BYTES).with_context(|| format!("reading {}", module.display()))?;
    let component = tools::componentize(&module, None, &[])?;
    fs::write(&job.output, component).with_context(|| format!("writing {}", job.output.display()))
}

/// The files of the SDK to link into a policy.
pub(super) fn sdk_files(sdk: &Path) -> impl Iterator<Item = PathBuf> {
    SOURCES.into_iter().chain([COMPONENT_TYPE]).map(|file| sdk.join(file))
}

/// The policy's own sources: the named file, or the files in the folder and in its `src` without tests. The paths are relative to the
/// folder, so that the compiler's messages are short.
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

/// The folder of the SDK.
pub(super) enum SdkFolder {
    Project(PathBuf),
    Temporary(TempDir),
}

impl SdkFolder {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Project(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// The SDK that the project's Makefile names (`SDK = sdk`), else the one in this program.
pub(super) fn sdk(job: &Job) -> Result<SdkFolder> {
    if job.source.is_none()
        && let Some(name) = files::read_text(&job.project.join("Makefile"), MAX_MANIFEST_BYTES)
            .ok()
            .as_deref()
            .and_then(sdk_in_makefile)
    {
        let path = job.project.join(name);
        ensure!(
            path.join("tidegate.h").is_file(),
            "Makefile: SDK = {name}: there is no tidegate.h in {}",
            path.display()
        );
        return Ok(SdkFolder::Project(path.canonicalize().with_context(|| format!("finding {}", path.display()))?));
    }
    let folder = tempfile::tempdir().context("creating a temporary folder")?;
    for name in Sdk::iter() {
        let path = folder.path().join(&*name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        let file = Sdk::get(&name).with_context(|| format!("the SDK has no {name}"))?;
        fs::write(&path, file.data).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(SdkFolder::Temporary(folder))
}

fn sdk_in_makefile(makefile: &str) -> Option<&str> {
    makefile
        .lines()
        .find_map(|line| line.strip_prefix("SDK")?.trim_start_matches([' ', ':', '?']).strip_prefix('='))
        .map(str::trim)
}

/// A C compiler for WebAssembly.
enum Compiler {
    /// clang, and the linker of the same version.
    Clang { compiler: PathBuf, linker: PathBuf },
    /// The command of Zig: a program, or a package of Python.
    Zig(Vec<OsString>),
}

impl Compiler {
    /// Finds the newest clang with its linker, from version 14, the one of Debian 12; else Zig.
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
        match zig_toolchain::find() {
            Some(zig) => Ok(Self::Zig(zig)),
            None => bail!("neither clang with wasm-ld nor zig is installed: {REMEDY}"),
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
            Self::Zig(program) => {
                let mut command = Command::new(&program[0]);
                command.args(&program[1..]).args(["cc", "--target=wasm32-freestanding"]);
                command
            }
        }
    }
}

/// Some builds of clang, such as Apple's, lack the target.
fn can_compile(clang: &Path) -> bool {
    tools::output(Command::new(clang).arg("--print-targets")).is_ok_and(|targets| targets.contains("wasm32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sdk_folder_is_read_from_the_makefile() {
        for (makefile, expected) in [
            ("# a policy\nSDK = ../../sdk/c\n\nall:\n", Some("../../sdk/c")),
            ("SDK:=sdk", Some("sdk")),
            ("SDK ?= sdk ", Some("sdk")),
            ("SDKS = a\nall:\n\techo SDK", None),
        ] {
            assert_eq!(sdk_in_makefile(makefile), expected, "{makefile}");
        }
    }

    #[test]
    fn tests_are_not_compiled_into_the_policy() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("src")).expect("a folder");
        for file in ["policy.c", "test_policy.c", "policy_test.c", "policy.h", "src/roles.c"] {
            fs::write(folder.path().join(file), "").expect("a file");
        }
        let job = Job { project: folder.path().into(), source: None, output: folder.path().join("policy.wasm") };
        assert_eq!(sources(&job).expect("sources"), [PathBuf::from("policy.c"), PathBuf::from("src/roles.c")]);
    }
}
