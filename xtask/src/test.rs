//! `cargo xtask test`: all checks that a change has to pass, on a fresh machine, too.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::step;
use crate::{bindings, control, guests, root, sdks};

/// Debian and Ubuntu packages of programs that the tests run, each with files of which one has to exist.
const PROGRAMS: [(&str, &[&str]); 5] = [
    ("redis-server", &["/usr/bin/redis-server"]),
    ("chromium", &["/usr/bin/chromium"]),
    ("openssl", &["/usr/bin/openssl"]),
    ("nodejs", &["/usr/bin/node", "/usr/local/bin/node"]),
    ("npm", &["/usr/bin/npm", "/usr/local/bin/npm"]),
];

/// Runs all tests, the quick ones first.
pub fn run() -> Result<()> {
    set_up()?;
    step("formatting", cargo(["fmt", "--all", "--check"]))?;
    step("formatting of the guests", cargo(["fmt", "--all", "--check"]).current_dir(root().join("guest-examples")))?;
    step("clippy", cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    if succeeds(Command::new("cargo").args(["deny", "--version"])) {
        step("licences and bans", cargo(["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        println!("== licences and bans: skipped, cargo-deny is not installed (cargo install cargo-deny --locked)");
    }
    println!("== guests");
    guests::run(&[])?;
    let mut guests = cargo(["test", "--locked"]);
    step(
        "tests of the guests",
        guests.current_dir(root().join("guest-examples")).env("CARGO_TARGET_DIR", root().join("target/guests-host")),
    )?;
    println!("== generated bindings");
    bindings::run(&["--check"])?;
    sdks::run()?;
    step("tests in Rust", cargo(["test", "--workspace", "--locked"]).env("TIDEGATE_REQUIRE_GUESTS", "1"))?;
    control::run()?;
    let e2e = root().join("tests/e2e");
    step("npm packages", Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&e2e))?;
    step("tests with the npm package and a browser", Command::new("npm").arg("test").current_dir(&e2e))?;
    println!("== all passed");
    Ok(())
}

/// Installs missing requirements as root on Debian, or fails with the command to install them.
fn set_up() -> Result<()> {
    let missing =
        PROGRAMS.iter().chain(&sdks::PROGRAMS).filter(|(_, paths)| !paths.iter().any(|path| Path::new(path).exists()));
    let mut missing: Vec<&str> = missing.map(|(package, _)| *package).collect();
    missing.extend(guests::missing());
    // Debian's Python lacks the modules for virtual environments.
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        missing.push("python3-venv");
    }
    if !missing.is_empty() {
        let line = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
        if !is_root() || !Path::new("/usr/bin/apt-get").exists() {
            bail!(
                "some requirements of the tests are not installed; on Debian or Ubuntu run:\n\n  sudo apt-get update && sudo {line}\n"
            );
        }
        let install = format!("apt-get update -qq && DEBIAN_FRONTEND=noninteractive {line} -qq");
        step("installing missing packages", Command::new("sh").args(["-c", &install]))?;
    }
    let version = Command::new("node").arg("--version").output().context("node does not run")?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse::<u32>().ok());
    if major.is_none_or(|major| major < 20) {
        bail!("the tests need Node 20 or newer, and {version} is installed; see https://nodejs.org/en/download");
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
