//! Builds policies in Rust: packages with a `cdylib` library, with the user's cargo or Debian's.

mod browser_clock;
mod diagnosis;
mod module;
mod project;
mod toolchain;

use std::env;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::commands::policy::build::rust::module::Contents;
use crate::commands::policy::build::rust::project::CargoProject;
use crate::commands::policy::build::rust::toolchain::RustToolchain;
use crate::commands::policy::build::{Job, tools};

/// Policies recurse little, and a small stack reduces the memory that each new instance touches. A build script of the policy can
/// override it, because the linker uses the last option.
const STACK_SIZE_FLAG: &str = "-Clink-arg=-zstack-size=65536";

/// getrandom 0.3 and 0.4 call the SDK, as the project's `.cargo/config.toml` has it too.
const RANDOM_FLAG: &str = "--cfg=getrandom_backend=\"custom\"";

/// A module without operating system, as opposed to the component that the linker for WASI makes.
const MODULE_HEADER: &[u8] = b"\0asm\x01\0\0\0";

const MISTAKE: &str =
    "the library is not a policy: does it call `tidegate_policy::policy!(…)`, or export the interface in another way?";

pub fn build(job: &Job) -> Result<()> {
    if let Some(source) = &job.source {
        bail!("{} is a file of a package: build the folder that has its Cargo.toml", source.display());
    }
    let toolchain = RustToolchain::find(&job.project)?;
    let project = CargoProject::read(toolchain, &job.project)?;
    diagnosis::check(toolchain, &project)?;

    let mut cargo = toolchain.cargo_build(&job.project);
    cargo.args(["--package", &project.package]).args(project.locked);
    add_flags(&mut cargo, toolchain, &project)?;
    if let Err(output) = tools::run_with_output(&mut cargo)? {
        match diagnosis::explain_failure(toolchain, &project, &output) {
            Some(explanation) => bail!("{explanation}"),
            None => bail!("cargo failed; its output is above"),
        }
    }
    write_policy(job, &project)
}

/// Converts the linker's output to the component, which it is already with WASI.
fn write_policy(job: &Job, project: &CargoProject) -> Result<()> {
    let bytes = tools::read_module(&project.module)?;
    if !bytes.starts_with(MODULE_HEADER) {
        return tools::write_output(job, &bytes);
    }
    let contents = Contents::read(&bytes).context("reading the linked module")?;
    ensure!(contents.is_policy(), "{MISTAKE}");
    let undefined = contents.undefined();
    ensure!(undefined.is_empty(), "{}", diagnosis::explain_undefined(&undefined));
    let module = match browser_clock::rewrite(&bytes, &contents)? {
        None => bytes,
        Some(rewritten) => {
            let missing = &rewritten.missing;
            ensure!(missing.is_empty(), "{}", diagnosis::explain_browser(project, missing));
            rewritten.module
        }
    };
    if let Some(warning) = diagnosis::warn_of_clock(project, &module) {
        eprintln!("{warning}");
    }
    tools::write_module(job, module, None, "the linked module does not fit the interface")
}

/// Adds compiler flags to the user's own in the environment or in cargo's configuration, because cargo only uses one of them.
fn add_flags(cargo: &mut Command, toolchain: RustToolchain, project: &CargoProject) -> Result<()> {
    let own = env::var("CARGO_ENCODED_RUSTFLAGS").ok();
    let own = own.or_else(|| Some(env::var("RUSTFLAGS").ok()?.split_whitespace().collect::<Vec<_>>().join("\u{1f}")));
    let own = own.filter(|own| !own.is_empty());
    let mut flags = project.remappings()?;
    flags.push(STACK_SIZE_FLAG.to_owned());
    let has_browser_randomness = project.has_browser_randomness();
    if toolchain != RustToolchain::Wasip2 && !has_browser_randomness {
        flags.push(RANDOM_FLAG.to_owned());
    }
    if own.is_some() || has_browser_randomness {
        // The environment replaces cargo's configuration, where the project has the flag for randomness.
        flags.splice(0..0, own);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    } else {
        let flags = toml::Value::from(flags);
        cargo.arg("--config").arg(format!("target.{}.rustflags={flags}", toolchain.target()));
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
    }
    Ok(())
}
