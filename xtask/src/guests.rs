//! `cargo xtask guests`: the example policies, built as their authors build them, by `tidegate policy build`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const TARGET: &str = "wasm32-unknown-unknown";

/// What Debian calls a Rust toolchain for the target, each with a file that it brings.
const DEBIAN: [(&str, &str); 4] = [
    ("rustc-web", "/usr/bin/rustc"),
    ("cargo-web", "/usr/bin/cargo"),
    ("rust-web-src", "/usr/lib/rustlib/src/rust/library/std"),
    ("lld-22", "/usr/bin/wasm-ld-22"),
];

/// Packages of Debian that the guests in Rust are built with and that are missing; none where rustup has the target.
pub fn missing() -> Vec<&'static str> {
    let rustc = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    if rustc.is_ok_and(|out| Path::new(String::from_utf8_lossy(&out.stdout).trim()).is_dir()) {
        return Vec::new();
    }
    DEBIAN.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect()
}

/// Builds every guest into `target/guests/<name>.wasm`; `--bless` copies over the `policy.wasm` that is committed.
pub fn run(options: &[&str]) -> Result<()> {
    let bless = match options {
        [] => false,
        ["--bless"] => true,
        _ => bail!("usage: cargo xtask guests [--bless]"),
    };
    let root = crate::root().canonicalize().context("finding the repository")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    execute(Command::new("cargo").args(["build", "--quiet", "--locked", "--bin", "tidegate"]).current_dir(&root))?;

    let components = root.join("target/guests");
    fs::create_dir_all(&components).with_context(|| format!("creating {}", components.display()))?;
    let sources = root.join("guest-examples");
    for name in names(&sources)? {
        let component = components.join(format!("{name}.wasm"));
        let mut build = Command::new(target.join("debug/tidegate"));
        build.args(["policy", "build"]).arg(sources.join(&name)).arg("--output").arg(&component);
        // One for all of them, so that the standard library is compiled once; and not the one of the host's tests.
        build.env("CARGO_TARGET_DIR", root.join("target/guests-build"));
        // Toolchains are installed within the checkout, where the tests have theirs.
        execute(build.env("TIDEGATE_CACHE_DIR", root.join("target/tmp")))?;
        let committed = sources.join(&name).join("policy.wasm");
        if bless && committed.exists() {
            fs::copy(&component, &committed).with_context(|| format!("writing {}", committed.display()))?;
            println!("{}", committed.display());
        }
    }
    Ok(())
}

/// The guests of the languages that are built here: the folders with such a manifest.
fn names(sources: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(sources).with_context(|| format!("reading {}", sources.display()))? {
        let entry = entry?;
        if ["Cargo.toml", "pyproject.toml"].iter().any(|manifest| entry.path().join(manifest).is_file()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
