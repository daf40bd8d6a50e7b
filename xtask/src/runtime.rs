//! `cargo xtask runtime`: the JavaScript runtime of policies in TypeScript, from its sources, with the record of what it was built from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::root;

/// Debian's packages of the toolchain, each with a file that it contains.
const DEBIAN: [(&str, &str); 6] = [
    ("rustc-web", "/usr/bin/rustc"),
    ("cargo-web", "/usr/bin/cargo"),
    ("rust-web-src", "/usr/lib/rustlib/src/rust/library/std"),
    ("lld-22", "/usr/bin/wasm-ld-22"),
    ("clang-22", "/usr/bin/clang-22"),
    ("binaryen", WASM_OPT),
];
const WASM_OPT: &str = "/usr/bin/wasm-opt";
/// The compiler next to Debian's cargo, whose standard library is built with it, which is not stable.
const DEBIAN_CARGO: [(&str, &str); 2] = [("RUSTC", "/usr/bin/rustc"), ("RUSTC_BOOTSTRAP", "1")];
const TARGET: &str = "wasm32-unknown-unknown";
/// The linker has the stack first, so that an overflow traps and does not overwrite data.
/// Nothing reads the message of a panic, so it has none.
const RUSTFLAGS: [&str; 7] = [
    "-Clinker=wasm-ld-22",
    "-Clink-arg=-zstack-size=393216",
    "-Clink-arg=--stack-first",
    "-Clink-arg=--strip-all",
    "-Zunstable-options",
    "-Cpanic=immediate-abort",
    "-Zlocation-detail=none",
];

/// First for speed, then for size; and the features that the compilers use by default. With more of them wasm-opt would write types that
/// engines do not have by default.
const OPTIMIZATION: [&str; 11] = [
    "-O3",
    "-Oz",
    "--reorder-functions",
    "--reorder-locals",
    "--mvp-features",
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

/// Packages of Debian that the runtime is built with and that are missing.
pub fn missing() -> Vec<&'static str> {
    DEBIAN.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect()
}

/// Builds `sdk/typescript/engine.wasm` and its record `engine.toml`. With `--check`, only compares them with a new build.
pub fn run(options: &[&str]) -> Result<()> {
    let check = match options {
        [] => false,
        ["--check"] => true,
        _ => bail!("usage: cargo xtask runtime [--check]"),
    };
    let missing = missing();
    ensure!(missing.is_empty(), "install with apt-get: {}", missing.join(" "));
    let root = root().canonicalize().context("finding the repository")?;
    let sdk = root.join("sdk/typescript");
    let engine = sdk.join("engine");
    let built = fs::read(build(&root, &engine)?).context("reading the runtime that was built")?;
    let record = record(&engine, &built)?;
    let (module, toml) = (sdk.join("engine.wasm"), sdk.join("engine.toml"));
    if !check {
        fs::write(&module, &built).with_context(|| format!("writing {}", module.display()))?;
        fs::write(&toml, &record).with_context(|| format!("writing {}", toml.display()))?;
        println!("{}: {} bytes", module.display(), built.len());
        return Ok(());
    }
    let committed = fs::read_to_string(&toml).with_context(|| format!("reading {}", toml.display()))?;
    if let Some(difference) = difference(&committed, &record) {
        bail!(
            "the runtime was built from something else than engine.toml says; run `cargo xtask runtime`: {difference}"
        );
    }
    let same = fs::read(&module).with_context(|| format!("reading {}", module.display()))? == built;
    ensure!(same, "{} is not what its sources give: run `cargo xtask runtime`", module.display());
    println!("{} is what its sources give", module.display());
    Ok(())
}

/// Builds the module and returns its path.
fn build(root: &Path, engine: &Path) -> Result<PathBuf> {
    execute(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(engine))?;
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    // No path of this machine gets into the module.
    let prefixes = [(root.to_path_buf(), "tidegate"), (cargo_home, "cargo")];
    let mut flags: Vec<String> = RUSTFLAGS.map(String::from).to_vec();
    flags.extend(prefixes.iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())));
    let c_flags: Vec<String> =
        prefixes.iter().map(|(path, name)| format!("-ffile-prefix-map={}={name}", path.display())).collect();
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo.args(["build", "--release", "--locked", "--target", TARGET]);
    cargo.args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"]);
    cargo.current_dir(engine).envs(DEBIAN_CARGO);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")).env_remove("RUSTFLAGS");
    cargo.env("CC_wasm32_unknown_unknown", "clang-22").env("CFLAGS_wasm32_unknown_unknown", c_flags.join(" "));
    // Other profiles than the one in Cargo.toml would give another module.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PROFILE_")) {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_TARGET_DIR", engine.join("target"));
    execute(&mut cargo)?;
    let linked = engine.join("target").join(TARGET).join("release/tidegate_js.wasm");
    execute(Command::new(WASM_OPT).args(OPTIMIZATION).arg(linked).arg("-o").arg(module_path(engine)))?;
    Ok(module_path(engine))
}

/// The module as wasm-opt writes it.
fn module_path(engine: &Path) -> PathBuf {
    engine.join("target").join(TARGET).join("release/engine.wasm")
}

/// The record: digest, toolchain, and the linked packages, with licenses.
fn record(engine: &Path, module: &[u8]) -> Result<String> {
    let mut text =
        String::from("# What engine.wasm was built from. Written by `cargo xtask runtime`.\n\n[toolchain]\n");
    for (name, program, args) in [
        ("rustc", "/usr/bin/rustc", ["--version"]),
        ("clang", "clang-22", ["--version"]),
        ("linker", "wasm-ld-22", ["--version"]),
        ("optimizer", WASM_OPT, ["--version"]),
    ] {
        let version = output(Command::new(program).args(args))?;
        writeln!(text, "{name} = {:?}", version.lines().next().unwrap_or_default())?;
    }
    let esbuild = output(Command::new(engine.join("node_modules/.bin/esbuild")).arg("--version"))?;
    writeln!(text, "esbuild = {:?}", esbuild.trim())?;

    for (name, version, license) in crates(engine)? {
        writeln!(text, "\n[[crate]]\nname = {name:?}\nversion = {version:?}\nlicense = {license:?}")?;
    }
    for (name, version, license) in npm_packages(engine)? {
        writeln!(text, "\n[[npm]]\nname = {name:?}\nversion = {version:?}\nlicense = {license:?}")?;
    }
    // Last, so that a comparison names another toolchain or dependency before the digest that follows from it.
    let digest = first_word(&output(Command::new("sha256sum").arg(module_path(engine)))?);
    writeln!(text, "\n[module]\nsha256 = {digest:?}\nbytes = {}", module.len())?;
    Ok(text)
}

type Package = (String, String, String);

/// The crates that are linked: the normal dependencies, without build scripts and macros.
fn crates(engine: &Path) -> Result<Vec<Package>> {
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo.args(["metadata", "--format-version=1", "--locked", "--filter-platform", TARGET]).current_dir(engine);
    let metadata: Value = serde_json::from_str(&output(cargo.envs(DEBIAN_CARGO))?).context("cargo metadata")?;
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> =
        list(&metadata, "packages").into_iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"], "nodes").into_iter().map(|node| (text(&node["id"]), node)).collect();
    let is_macro = |id: &String| {
        let targets = packages.get(id).map(|package| list(package, "targets")).unwrap_or_default();
        targets.iter().any(|target| target["kind"].to_string().contains("proc-macro"))
    };
    let mut found = BTreeSet::new();
    let mut queue = vec![text(&metadata["resolve"]["root"])];
    while let Some(id) = queue.pop() {
        if is_macro(&id) || !found.insert(id.clone()) {
            continue;
        }
        let dependencies = nodes.get(&id).map(|node| list(node, "deps")).unwrap_or_default();
        let is_normal = |dependency: &&Value| list(dependency, "dep_kinds").iter().any(|kind| kind["kind"].is_null());
        queue.extend(dependencies.iter().filter(is_normal).map(|dependency| text(&dependency["pkg"])));
    }
    let mut crates: Vec<Package> = found
        .iter()
        .filter_map(|id| packages.get(id))
        .map(|package| (text(&package["name"]), text(&package["version"]), text(&package["license"])))
        .filter(|(name, ..)| name != "tidegate-js")
        .collect();
    crates.sort();
    Ok(crates)
}

/// The packages of npm whose code the platform script contains.
fn npm_packages(engine: &Path) -> Result<Vec<Package>> {
    let lock = fs::read_to_string(engine.join("package-lock.json")).context("reading package-lock.json")?;
    let lock: Value = serde_json::from_str(&lock).context("package-lock.json")?;
    let packages = lock["packages"].as_object().context("package-lock.json has no packages")?;
    let linked = packages.iter().filter(|(path, about)| !path.is_empty() && about["dev"] != Value::Bool(true));
    Ok(linked
        .map(|(path, about)| {
            (path.trim_start_matches("node_modules/").to_owned(), text(&about["version"]), text(&about["license"]))
        })
        .collect())
}

/// The first line that differs, with the recorded one.
fn difference(recorded: &str, current: &str) -> Option<String> {
    let mut lines = current.lines();
    for line in recorded.lines() {
        let now = lines.next().unwrap_or("nothing");
        if now != line {
            return Some(format!("recorded {line}, here {now}"));
        }
    }
    lines.next().map(|line| format!("recorded nothing, here {line}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).with_context(|| format!("the output of {:?}", command.get_program()))
}

fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_the_first_line_that_differs() {
        let check =
            |recorded, current, expected: Option<&str>| assert_eq!(difference(recorded, current).as_deref(), expected);
        check("a\nb", "a\nb", None);
        check("rustc = 1\nb", "rustc = 2\nb", Some("recorded rustc = 1, here rustc = 2"));
        check("a\nb", "a", Some("recorded b, here nothing"));
        check("a", "a\nb", Some("recorded nothing, here b"));
    }
}
