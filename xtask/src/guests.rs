//! `cargo xtask guests`: the example policies, built as their authors build them, by `tidegate policy build`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use crate::go;

/// Those that `tidegate policy build` uses of rustup's.
const TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-unknown-unknown"];

/// Outputs of builds: they are no sources of a guest.
const LEFT_BY_BUILDS: [&str; 7] =
    ["target", ".zig-cache", "build", "node_modules", "__pycache__", ".venv", "policy.wasm"];

/// Debian's packages of a Rust toolchain for the target, each with a file that it contains.
const DEBIAN: [(&str, &str); 4] = [
    ("rustc-web", "/usr/bin/rustc"),
    ("cargo-web", "/usr/bin/cargo"),
    ("rust-web-src", "/usr/lib/rustlib/src/rust/library/std"),
    ("lld-22", "/usr/bin/wasm-ld-22"),
];

/// Packages of Debian that the guests in Rust are built with and that are missing; none where rustup has a target.
pub fn missing() -> Vec<&'static str> {
    let has_target = |target: &&str| {
        let rustc = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
        rustc.is_ok_and(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir())
    };
    if TARGETS.iter().any(has_target) {
        return Vec::new();
    }
    DEBIAN.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect()
}

/// Removes the components that were built, so that the next run builds all of them.
pub fn remove() -> Result<()> {
    match fs::remove_dir_all(crate::root().join("target/guests")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("removing target/guests"),
        _ => Ok(()),
    }
}

/// Builds the guests, or those that are named, into `target/guests/<name>.wasm`; `--bless` copies over each `policy.wasm` that is
/// committed. A component that is newer than all its sources is not built again.
pub fn run(options: &[&str]) -> Result<()> {
    let bless = options.contains(&"--bless");
    let named: Vec<&str> = options.iter().copied().filter(|option| *option != "--bless").collect();
    let root = crate::root().canonicalize().context("finding the repository")?;
    let sources = root.join("guest-examples");
    let known = names(&sources)?;
    if let Some(unknown) = named.iter().find(|name| !known.iter().any(|known| known == *name)) {
        bail!("usage: cargo xtask guests [--bless] [<name>…]; {unknown} is none of {}", known.join(", "));
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    execute(crate::cargo().args(["build", "--quiet", "--locked", "--bin", "tidegate"]).current_dir(&root))?;

    let components = root.join("target/guests");
    fs::create_dir_all(&components).with_context(|| format!("creating {}", components.display()))?;
    let path = go::path()?;
    let mut failed = Vec::new();
    for name in known.iter().filter(|known| named.is_empty() || named.contains(&known.as_str())) {
        let component = components.join(format!("{name}.wasm"));
        if !bless && is_newer(&component, &inputs(&root, name))? {
            println!("{} is up to date", component.display());
            continue;
        }
        let mut build = Command::new(target.join("debug/tidegate"));
        build.args(["policy", "build"]).arg(sources.join(name)).arg("--output").arg(&component);
        // One for all of them, so that the standard library is compiled once; and not the one of the host's tests.
        build.env("CARGO_TARGET_DIR", root.join("target/guests-build"));
        // Toolchains are installed within the checkout, where the tests have theirs.
        build.env("TIDEGATE_CACHE_DIR", root.join("target/tmp"));
        build.env("PATH", &path);
        if let Err(error) = execute(&mut build) {
            eprintln!("{name}: {error:#}");
            // Else an older component would be used.
            let _ = fs::remove_file(&component);
            failed.push(name.as_str());
            continue;
        }
        let committed = sources.join(name).join("policy.wasm");
        if bless && committed.exists() {
            fs::copy(&component, &committed).with_context(|| format!("writing {}", committed.display()))?;
            println!("{}", committed.display());
        }
    }
    ensure!(failed.is_empty(), "not built: {}", failed.join(", "));
    Ok(())
}

/// The guests: folders that are called by language and pattern.
pub fn names(sources: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(sources).with_context(|| format!("reading {}", sources.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with("-based") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The sources of a guest: its directory, its language's SDK, the interface, and the code that builds it.
fn inputs(root: &Path, name: &str) -> [PathBuf; 6] {
    // Policies in Zig use the SDK for C.
    let language = match name.split('-').next() {
        Some("zig") => "c",
        language => language.unwrap_or_default(),
    };
    let sdk = root.join("sdk").join(language);
    let lock = root.join("guest-examples/Cargo.lock");
    let prepared = root.join("sdk/prepared.wit");
    [
        root.join("guest-examples").join(name),
        sdk,
        prepared,
        root.join("wit"),
        root.join("src/commands/policy/build"),
        lock,
    ]
}

/// Whether a file is there, and none of the inputs was changed after it.
fn is_newer(file: &Path, inputs: &[PathBuf]) -> Result<bool> {
    let Ok(made) = fs::metadata(file).and_then(|about| about.modified()) else { return Ok(false) };
    for input in inputs.iter().filter(|input| input.exists()) {
        if changed(input)? > made {
            return Ok(false);
        }
    }
    Ok(true)
}

/// When a file or anything in a folder was last changed, but for what builds leave there.
fn changed(path: &Path) -> Result<SystemTime> {
    let about = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    if !about.is_dir() {
        return Ok(about.modified()?);
    }
    let mut last = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        let entry = entry?;
        if !LEFT_BY_BUILDS.iter().any(|name| entry.file_name() == *name) {
            last = last.max(changed(&entry.path())?);
        }
    }
    Ok(last)
}

fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
