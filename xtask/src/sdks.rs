//! `cargo xtask sdks`, a part of `cargo xtask test`: tests of the SDKs for C and Go, and of the example policies in C, Zig, Go and
//! TypeScript.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::go::{go, path};
use crate::guests;
use crate::root;
use crate::step::step;

/// Debian packages for these tests, each with files of which one has to exist.
pub const PROGRAMS: [(&str, &[&str]); 4] = [
    ("make", &["/usr/bin/make"]),
    ("gcc", &["/usr/bin/cc"]),
    ("clang-22", &["/usr/bin/clang-22"]),
    ("lld-22", &["/usr/bin/wasm-ld-22"]),
];

/// Runs the tests on this machine. The guests have to be built before.
pub fn run() -> Result<()> {
    for folder in folders("sdk/c", "c-")? {
        make(&folder, &[])?;
    }
    // The Zig that the build of the guest has installed, if any.
    let zig = root().join("target/tmp/toolchains/ziglang-0.16.0/ziglang/zig");
    let zig = zig.canonicalize().unwrap_or_else(|_| "zig".into());
    make(Path::new("guest-examples/zig-role-based"), &[format!("ZIG={}", zig.display())])?;
    for name in guests::names(&root().join("guest-examples"))?.iter().filter(|name| name.starts_with("typescript-")) {
        let folder = root().join("guest-examples").join(name);
        let npm = |args: &[&str]| {
            let mut npm = Command::new("npm");
            npm.args(args).current_dir(&folder);
            npm
        };
        let quietly = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"];
        step(&format!("packages of {name}"), npm(&quietly))?;
        step(&format!("npm test in {name}"), npm(&["test"]))?;
    }
    let go = go()?;
    for folder in folders("sdk/go", "go-")? {
        let name = format!("go test in {}", folder.display());
        let mut test = Command::new(&go);
        // Without downloads: a policy needs no module except the SDK.
        test.args(["test", "./..."]).current_dir(root().join(folder)).env("GOPROXY", "off");
        step(&name, test)?;
    }
    runtime_of_go()
}

/// Tests whether the adapter provides what Go's runtime needs, which only a component can show.
fn runtime_of_go() -> Result<()> {
    let fixture = root().join("tests/fixtures/go-runtime");
    let component = root().join("target/tmp/go-runtime.wasm");
    let mut build = tidegate();
    build.args(["policy", "build"]).arg(&fixture).arg("--output").arg(&component).env("PATH", path()?);
    step("a component that tries Go's runtime", build)?;
    step("its cases", tidegate().args(["policy", "test"]).arg(&component).arg(fixture.join("cases.toml")))
}

fn tidegate() -> Command {
    let mut tidegate = Command::new("cargo");
    tidegate.args(["run", "--quiet", "--locked", "--bin", "tidegate", "--"]);
    tidegate
}

fn make(folder: &Path, settings: &[String]) -> Result<()> {
    let mut make = Command::new("make");
    make.args(["--silent", "test"]).args(settings).current_dir(root().join(folder));
    step(&format!("make test in {}", folder.display()), make)
}

/// An SDK and its examples, as paths in the repository.
fn folders(sdk: &str, prefix: &str) -> Result<Vec<PathBuf>> {
    let names = guests::names(&root().join("guest-examples"))?;
    let examples = names.into_iter().filter(|name| name.starts_with(prefix));
    Ok([sdk.into()].into_iter().chain(examples.map(|name| Path::new("guest-examples").join(name))).collect())
}
