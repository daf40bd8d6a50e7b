//! Builds policies in C and in Zig, both with the SDK for C and without a C library. C is compiled with clang and the WebAssembly linker, or
//! with Zig's C compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rust_embed::RustEmbed;

use crate::commands::policy::build::{Job, MAX_MANIFEST_BYTES, tools};
use crate::util::files;

/// The SDK, for policies without their own.
#[derive(RustEmbed)]
#[folder = "sdk/c"]
#[exclude = "build/*"]
struct CSdk;

/// The files of the SDK that are linked into a policy: sources without tests, and an object file whose custom section has the module's WIT
/// world.
const SDK_FILES: [&str; 7] = [
    "text.c",
    "request.c",
    "gateway.c",
    "json.c",
    "bindings/policy.c",
    "freestanding/libc.c",
    "bindings/policy_component_type.o",
];

/// Policies recurse little, and a small stack reduces the memory that each new instance touches.
const STACK_BYTES: &str = "16384";

/// The tested version of Zig's package from PyPI, installed if Zig is missing.
const ZIG_PACKAGE: &str = "ziglang==0.16.0";
const ZIG_TOOLCHAIN: &str = "ziglang-0.16.0";

const C_REMEDY: &str = "a policy in C needs a compiler and a linker for WebAssembly: on Debian and Ubuntu \
                        `apt-get install clang lld`, elsewhere https://releases.llvm.org, or `pip install ziglang`";
const ZIG_REMEDY: &str =
    "a policy in Zig needs `zig` on the search path (https://ziglang.org/download), or Python, to get it from PyPI";
/// Parts of Zig's library that do not compile in a policy.
const SYSTEM_PARTS: [&str; 10] = [
    "std.http",
    "std.net",
    "std.Io.net",
    "std.Io.Dir",
    "std.Io.File",
    "std.Io.Threaded",
    "std.fs",
    "std.posix",
    "std.process",
    "std.Thread",
];
const NO_SYSTEM: &str = "a policy has none: read Redis with tg_get, verify tokens with tg_verify, and tg_now is the time; there are no \
                         files, no network and no randomness";
const MISTAKE: &str = "the compiled module is not a policy";

pub fn build(job: &Job) -> Result<()> {
    let sources = sources(job)?;
    let folder = tools::temporary_folder()?;
    let (sdk, module) = (sdk(job, folder.path())?, folder.path().join("policy.core.wasm"));
    let mut command = compiler()?;
    command.current_dir(&job.project);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Oz", "-ffreestanding", "-fno-builtin", "-nostdlib"]);
    add_sdk(&mut command, &sdk);
    command.args(policy_flags(job)).args(sources);
    command.args(["-Wl,--no-entry", "-Wl,--gc-sections", "-Wl,--strip-all"]);
    command.arg(format!("-Wl,-z,stack-size={STACK_BYTES}")).arg("-o").arg(&module);
    tools::run(&mut command)?;
    tools::write_component(job, &module, None, MISTAKE)
}

pub fn build_zig(job: &Job) -> Result<()> {
    let source = job.source.clone().unwrap_or_else(|| job.project.join("policy.zig"));
    let folder = tools::temporary_folder()?;
    let (sdk, module) = (sdk(job, folder.path())?, folder.path().join("policy.core.wasm"));
    let mut command = find_zig().map_or_else(install_zig, Ok)?;
    command.current_dir(&job.project);
    command.arg("build-exe").arg(source.strip_prefix(&job.project).unwrap_or(&source));
    add_sdk(&mut command, &sdk);
    command.args(policy_flags(job)).args(c_files(job)?);
    command.args(["-target", "wasm32-freestanding", "-O", "ReleaseSmall", "-fno-entry", "--stack", STACK_BYTES]);
    command.arg("--cache-dir").arg(folder.path().join("cache"));
    command.arg(format!("-femit-bin={}", module.display()));
    tools::run(&mut command).map_err(|error| match system_part(&source) {
        Some(part) => error.context(format!("{part} needs an operating system, and {NO_SYSTEM}")),
        None => error,
    })?;
    tools::write_component(job, &module, None, MISTAKE)
}

fn add_sdk(command: &mut Command, sdk: &Path) {
    command.arg("-I").arg(sdk).arg("-I").arg(sdk.join("freestanding")).args(SDK_FILES.map(|file| sdk.join(file)));
}

/// The policy's own sources: the named file, or the files in the folder and in its `src` without tests. The paths are relative to the
/// folder, so that the compiler's messages are short.
fn sources(job: &Job) -> Result<Vec<PathBuf>> {
    if let Some(source) = &job.source {
        return Ok(vec![source.strip_prefix(&job.project).unwrap_or(source).to_path_buf()]);
    }
    let sources = c_files(job)?;
    ensure!(!sources.is_empty(), "{} has no .c file that is not a test", job.project.display());
    Ok(sources)
}

/// The files in C of a project without tests. A file that is built by itself has none.
fn c_files(job: &Job) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for folder in ["", "src"].iter().filter(|_| job.source.is_none()) {
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
    sources.sort();
    Ok(sources)
}

/// The first part of Zig's library in a source file that needs an operating system.
fn system_part(source: &Path) -> Option<&'static str> {
    let text = files::read_text(source, MAX_MANIFEST_BYTES).ok()?;
    SYSTEM_PARTS.into_iter().find(|part| text.contains(part))
}

/// The folder of the SDK: the one that the project's Makefile names (`SDK = sdk`), else a copy of the one in this program, in `work`.
fn sdk(job: &Job, work: &Path) -> Result<PathBuf> {
    if let Some(name) = in_makefile(&makefile(job), "SDK") {
        let path = job.project.join(name);
        let has_header = path.join("tidegate.h").is_file();
        ensure!(has_header, "Makefile: SDK = {name}: there is no tidegate.h in {}", path.display());
        return path.canonicalize().with_context(|| format!("finding {}", path.display()));
    }
    let folder = work.join("sdk");
    tools::extract::<CSdk>(&folder)?;
    Ok(folder)
}

/// The Makefile of the project, which has settings of the build. A source file that is built by itself has none.
fn makefile(job: &Job) -> String {
    let is_project = job.source.is_none();
    let text = is_project.then(|| files::read_text(&job.project.join("Makefile"), MAX_MANIFEST_BYTES).ok());
    text.flatten().unwrap_or_default()
}

/// Flags for the compiler that a library needs.
fn policy_flags(job: &Job) -> Vec<String> {
    let makefile = makefile(job);
    in_makefile(&makefile, "POLICY_FLAGS").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn in_makefile<'a>(makefile: &'a str, name: &str) -> Option<&'a str> {
    makefile
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start_matches([' ', ':', '?']).strip_prefix('='))
        .map(str::trim)
}

/// The newest clang with its linker; else Zig's C compiler.
fn compiler() -> Result<Command> {
    for (clang, version) in clangs() {
        if let Some(linker) = tools::find(&[&format!("wasm-ld{version}")]) {
            let mut command = Command::new(clang);
            command.args(["--target=wasm32-unknown-unknown", "-flto"]);
            command.arg(format!("-fuse-ld={}", linker.display()));
            return Ok(command);
        }
    }
    let Some(mut zig) = find_zig() else { bail!("neither clang with wasm-ld nor zig is installed: {C_REMEDY}") };
    zig.args(["cc", "--target=wasm32-freestanding"]);
    Ok(zig)
}

/// The newest clang for WebAssembly.
pub fn find_clang() -> Option<PathBuf> {
    clangs().next().map(|(clang, _)| clang)
}

/// The installed clangs with the endings of their names, the newest first, from version 14, the one of Debian 12.
fn clangs() -> impl Iterator<Item = (PathBuf, String)> {
    let versions = (14..40).rev().map(|version| format!("-{version}")).chain([String::new()]);
    versions.filter_map(|version| {
        Some((tools::find(&[&format!("clang{version}")]).filter(|clang| can_compile(clang))?, version))
    })
}

/// Some builds of clang, such as Apple's, lack the target.
fn can_compile(clang: &Path) -> bool {
    tools::output(Command::new(clang).arg("--print-targets")).is_ok_and(|targets| targets.contains("wasm32"))
}

/// The command of Zig, if it is installed: as a program, by an earlier build, or as a package of Python.
fn find_zig() -> Option<Command> {
    let installed = || tools::toolchain_folder(ZIG_TOOLCHAIN).ok().map(zig_program).filter(|path| path.is_file());
    if let Some(program) = tools::find(&["zig"]).or_else(installed) {
        return Some(Command::new(program));
    }
    let python = || {
        let mut command = Command::new(tools::find(&["python3"])?);
        command.args(["-m", "ziglang"]);
        Some(command)
    };
    tools::output(python()?.arg("version")).ok()?;
    python()
}

/// Installs Zig from PyPI, once for all policies.
fn install_zig() -> Result<Command> {
    let python = tools::need(&["python3"], ZIG_REMEDY)?;
    let folder = tools::toolchain_folder(ZIG_TOOLCHAIN)?;
    eprintln!("installing {ZIG_PACKAGE} from PyPI into {}", folder.display());
    tools::install(&folder, |staged| {
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        tools::run(pip.arg(staged).arg(ZIG_PACKAGE)).context(ZIG_REMEDY)
    })?;
    Ok(Command::new(zig_program(folder)))
}

fn zig_program(toolchain: PathBuf) -> PathBuf {
    toolchain.join("ziglang/zig")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_the_makefile() {
        for (makefile, expected) in [
            ("# a policy\nSDK = ../../sdk/c\n\nall:\n", Some("../../sdk/c")),
            ("SDK:=sdk", Some("sdk")),
            ("SDK ?= sdk ", Some("sdk")),
            ("SDKS = a\nall:\n\techo SDK", None),
        ] {
            assert_eq!(in_makefile(makefile, "SDK"), expected, "{makefile}");
        }
        let flags = in_makefile("SDK = sdk\nPOLICY_FLAGS = -Ilib/include -DNO_THREADS\n", "POLICY_FLAGS");
        assert_eq!(flags, Some("-Ilib/include -DNO_THREADS"));
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
