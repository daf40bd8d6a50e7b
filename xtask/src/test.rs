//! `cargo xtask test`: all suites, on a fresh machine too. With `--full`, at their full size, and with a report.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{self, skip, step};
use crate::{bindings, clients, control, faults, full_run, guests, root, runtime, sdks, words};

/// Programs that the tests run, each with the package of Debian and Ubuntu that brings it.
const PROGRAMS: [(&str, &[&str]); 7] = [
    ("redis-server", &["/usr/bin/redis-server"]),
    ("chromium", &["/usr/bin/chromium"]),
    ("openssl", &["/usr/bin/openssl"]),
    ("curl", &["/usr/bin/curl"]),
    ("nginx", &["/usr/sbin/nginx"]),
    ("nodejs", &["/usr/bin/node", "/usr/local/bin/node"]),
    ("npm", &["/usr/bin/npm", "/usr/local/bin/npm"]),
];

/// How much a suite runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Once, for each change.
    Quick,
    /// With long faults, many more mutations, and guests that are built again.
    Full,
}

/// A part of the tests that `--full AREA` selects.
pub struct Area {
    pub name: &'static str,
    run: fn(Size) -> Result<()>,
}

/// All areas, the quick ones first. `guests` builds components that `rust` and `e2e` load.
pub const AREAS: [Area; 8] = [
    Area { name: "style", run: style },
    Area { name: "runtime", run: javascript_runtime },
    Area { name: "guests", run: guests },
    Area { name: "rust", run: rust },
    Area { name: "packages", run: packages },
    Area { name: "faults", run: store_faults },
    Area { name: "control", run: |_| control::run().and_then(|()| control::protocol()) },
    Area { name: "e2e", run: end_to_end },
];

/// Mutations of each seed in a full run; the quick run has fewer.
const FULL_MUTATIONS: &str = "500000";

/// Faults after which new masters use ids again, and gateways that do not know the lost entries.
const SLOW_CLOCKS: &str = "xtask/src/faults/scenarios/slow-clocks.log";

/// The tests that build policies with packages.
const PACKAGES: &str = "packages_behave_as_documented";
/// The test that builds components with other toolchains.
const TOOLCHAINS: &str = "components_of_other_toolchains";

/// Runs `cargo xtask test` with these options.
pub fn run(options: &[&str]) -> Result<()> {
    let (size, areas): (_, Vec<&Area>) = match options {
        [] => (Size::Quick, AREAS.iter().collect()),
        ["--full"] => (Size::Full, AREAS.iter().collect()),
        ["--full", name] if AREAS.iter().any(|area| area.name == *name) => {
            (Size::Full, AREAS.iter().filter(|area| area.name == *name).collect())
        }
        _ => bail!("usage: cargo xtask test [--full [{}]]", AREAS.map(|area| area.name).join("|")),
    };
    set_up()?;
    let skipped = match size {
        Size::Quick => {
            areas.iter().try_for_each(|area| (area.run)(size))?;
            full_run::skipped(&step::take())
        }
        Size::Full => full_run::run(&areas, |area| (area.run)(size))?,
    };
    match skipped.as_slice() {
        [] => println!("== all passed"),
        skipped => println!("== all passed, except for skipped steps: {}", skipped.join("; ")),
    }
    Ok(())
}

fn style(_: Size) -> Result<()> {
    step("formatting", cargo(["fmt", "--all", "--check"]))?;
    step("formatting of the guests", cargo(["fmt", "--all", "--check"]).current_dir(root().join("guest-examples")))?;
    println!("== words");
    words::run()?;
    step("clippy", cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    if succeeds(Command::new("cargo").args(["deny", "--version"])) {
        step("licences and bans", cargo(["deny", "check", "bans", "licenses", "sources"]))
    } else {
        skip("licences and bans", "cargo-deny is not installed (cargo install cargo-deny --locked)");
        Ok(())
    }
}

/// The JavaScript runtime of policies: its tests, and in a full run the committed module against a new build of its sources, and
/// web-platform-tests.
fn javascript_runtime(size: Size) -> Result<()> {
    let engine = root().join("sdk/typescript/engine");
    let mut packages = Command::new("npm");
    packages.args(["ci", "--no-audit", "--no-fund"]).current_dir(&engine);
    step("npm packages of the runtime", packages)?;
    step("formatting of the runtime", cargo(["fmt", "--check"]).current_dir(&engine))?;
    step("tests of the runtime", cargo(["test", "--locked"]).current_dir(&engine))?;
    if size == Size::Full {
        step(
            "web-platform-tests",
            cargo(["test", "--locked", "--test", "wpt", "--", "--ignored"]).current_dir(&engine),
        )?;
        println!("== the runtime from its sources");
        runtime::run(&["--check"])?;
    }
    Ok(())
}

fn guests(size: Size) -> Result<()> {
    println!("== guests");
    if size == Size::Full {
        guests::remove()?;
    }
    guests::run(&[])?;
    let mut tests = cargo(["test", "--locked"]);
    let target = root().join("target/guests-host");
    step("tests of the guests", tests.current_dir(root().join("guest-examples")).env("CARGO_TARGET_DIR", target))?;
    println!("== generated bindings");
    bindings::run(&["--check"])?;
    sdks::run()
}

fn rust(size: Size) -> Result<()> {
    // Ignored tests need what the steps before this one built, except for the process that tests of emitters start.
    let mut tests =
        cargo(["test", "--workspace", "--locked", "--", "--include-ignored", "--skip", "emitter::emitter_process"]);
    if size == Size::Full {
        tests.args(["--skip", PACKAGES]).env("TIDEGATE_SOAK", "full").env("TIDEGATE_FUZZ", FULL_MUTATIONS);
    }
    step("tests in Rust", tests)
}

/// All packages in `tests/packages` and all toolchains, in a full run. In a quick run, those that represent a kind are among the tests in Rust.
fn packages(size: Size) -> Result<()> {
    if size == Size::Quick {
        return Ok(());
    }
    let mut tests =
        cargo(["test", "--workspace", "--locked", "--test", "process", "--", "--include-ignored", PACKAGES]);
    step("packages of each language", tests.env("TIDEGATE_SOAK", "full"))?;
    let mut tests =
        cargo(["test", "--workspace", "--locked", "--test", "process", "--", "--include-ignored", TOOLCHAINS]);
    step("components of other toolchains", tests.env("TIDEGATE_SOAK", "full"))
}

/// The fault suite: a short run with a fixed seed, which a failure repeats, or a long one with a new seed.
fn store_faults(size: Size) -> Result<()> {
    for (name, reason) in faults::unavailable() {
        skip(name, reason);
    }
    let options: &[&str] = match size {
        Size::Quick => &["--seed", "682", "--minutes", "1"],
        Size::Full => &["--minutes", "30", "--write"],
    };
    step("stores that fail", Command::new(env::current_exe()?).arg("faults").args(options))?;
    if size == Size::Full {
        let options = ["--only", "sentinel", "--seed", "902", "--minutes", "2", "--replay", SLOW_CLOCKS];
        let mut faults = Command::new(env::current_exe()?);
        step("masters with slow clocks", faults.current_dir(root()).arg("faults").args(options))?;
    }
    Ok(())
}

fn end_to_end(size: Size) -> Result<()> {
    let directory = root().join("tests/e2e");
    let npm_ci = |name: &str, directory: &Path| {
        step(name, Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(directory))
    };
    npm_ci("npm packages", &directory)?;
    clients::run()?;
    let mut tests = Command::new("npm");
    tests.arg("test").current_dir(&directory);
    if size == Size::Full {
        npm_ci("Next.js", &directory.join("next"))?;
        tests.env("TIDEGATE_SOAK", "full");
    }
    step("tests with the npm package, other clients and a browser", tests)
}

/// Installs missing packages as root on Debian or Ubuntu; elsewhere the error names the command.
fn set_up() -> Result<()> {
    let missing =
        PROGRAMS.iter().chain(&sdks::PROGRAMS).filter(|(_, paths)| !paths.iter().any(|path| Path::new(path).exists()));
    let mut missing: Vec<&str> = missing.map(|(package, _)| *package).collect();
    missing.extend(guests::missing());
    // Debian's Python comes without `venv`.
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        missing.push("python3-venv");
    }
    if !missing.is_empty() {
        let line = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
        if !is_root() || !Path::new("/usr/bin/apt-get").exists() {
            bail!(
                "the tests need programs that are not installed; on Debian or Ubuntu:\n\n  sudo apt-get update && sudo {line}\n"
            );
        }
        let install = format!("apt-get update -qq && DEBIAN_FRONTEND=noninteractive {line} -qq");
        step("installing missing packages", Command::new("sh").args(["-c", &install]))?;
    }
    let version = Command::new("node").arg("--version").output().context("node does not run")?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse::<u32>().ok());
    if major.is_none_or(|major| major < 20) {
        bail!("the tests need Node 20 or newer, but `node` is {version}: see https://nodejs.org/en/download");
    }
    Ok(())
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|out| out.status.success())
}

fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let mut cargo = crate::cargo();
    cargo.args(args).current_dir(root());
    cargo
}
