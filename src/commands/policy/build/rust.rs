//! Builds policies in Rust: packages with a `cdylib` library, with the user's cargo or Debian's.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::commands::policy::build::{Job, tools};

const TARGET: &str = "wasm32-unknown-unknown";

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-22";
/// Debian's packages of a Rust toolchain for the target.
const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src lld-22";

/// Policies recurse little, and a small stack reduces the memory that each new instance touches. A build script of the policy can
/// override it, because the linker uses the last option.
const STACK_SIZE_FLAG: &str = "-Clink-arg=-zstack-size=65536";

pub fn build(job: &Job) -> Result<()> {
    if let Some(source) = &job.source {
        bail!("{} is a file of a package: build the folder that has its Cargo.toml", source.display());
    }
    let toolchain = Toolchain::find(&job.project)?;
    let project = Project::read(&toolchain, &job.project)?;

    let mut cargo = toolchain.cargo(&job.project);
    cargo.args(["build", "--release", "--lib", "--target", TARGET, "--package", &project.package]);
    cargo.args(project.locked);
    if let Toolchain::Debian = toolchain {
        cargo.arg("-Zbuild-std=std,panic_abort");
    }
    add_flags(&mut cargo, &project.remappings()?);
    tools::run(&mut cargo)?;

    let mistake = "the library is not a policy: does it call `tidegate_policy::policy!(…)`, or export the interface in another way?";
    tools::write_component(job, &project.module, None, mistake)
}

/// The source of the target's standard library.
enum Toolchain {
    /// The user's own toolchain has the compiled library.
    Installed,
    /// Debian's packages have the library's source, which their compiler has to compile.
    Debian,
}

impl Toolchain {
    fn find(project: &Path) -> Result<Self> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut rustc = Command::new(rustc);
        rustc.current_dir(project).args(["--print", "target-libdir", "--target", TARGET]);
        if tools::output(&mut rustc).is_ok_and(|path| Path::new(&path).is_dir()) {
            return Ok(Self::Installed);
        }
        let has_source = tools::output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))
            .is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").is_dir());
        if has_source && Path::new(DEBIAN_CARGO).exists() && Path::new(DEBIAN_LINKER).exists() {
            return Ok(Self::Debian);
        }
        bail!(
            "no Rust toolchain for {TARGET} is installed: run either of\n  \
             rustup target add {TARGET}\n  \
             apt-get install --no-install-recommends {DEBIAN_PACKAGES}"
        )
    }

    fn cargo(&self, project: &Path) -> Command {
        let mut cargo = match self {
            Self::Installed => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC);
                // The packages are a stable release, but building the standard library is an unstable option.
                cargo.env("RUSTC_BOOTSTRAP", "1");
                cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
                cargo
            }
        };
        cargo.current_dir(project);
        cargo
    }
}

/// A project, described by cargo.
struct Project {
    /// Cargo's id of the package.
    package: String,
    /// Output file of the core module.
    module: PathBuf,
    /// `--locked` if there is a lock file.
    locked: Option<&'static str>,
    /// The package's dependencies, and the folder of the workspace.
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    /// None for a local package.
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

impl Project {
    fn read(toolchain: &Toolchain, project: &Path) -> Result<Self> {
        let root =
            tools::output(toolchain.cargo(project).args(["locate-project", "--workspace", "--message-format=plain"]))?;
        let locked = Path::new(&root).with_file_name("Cargo.lock").is_file().then_some("--locked");
        let mut cargo = toolchain.cargo(project);
        cargo.args(["metadata", "--format-version=1", "--filter-platform", TARGET]).args(locked);
        let metadata = tools::output(&mut cargo).with_context(|| match locked {
            Some(_) => "the build uses Cargo.lock: if Cargo.toml has changed since, run `cargo update --workspace`",
            None => "cargo cannot read the project's metadata",
        })?;
        let metadata: Metadata =
            serde_json::from_str(&metadata).context("parsing the project's metadata from cargo")?;

        let manifest = project.join("Cargo.toml");
        let package = metadata.packages.iter().find(|package| package.manifest_path == manifest);
        let package = package.with_context(|| {
            format!("{} is a workspace and not a package: build the folder of one of its members", manifest.display())
        })?;
        let library = package.targets.iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"));
        let library = library.with_context(|| {
            format!(
                "{}: a policy is a library of type cdylib:\n  [lib]\n  crate-type = [\"cdylib\"]",
                manifest.display()
            )
        })?;
        let file = format!("{}.wasm", library.name.replace('-', "_"));
        let module = metadata.target_directory.join(TARGET).join("release").join(file);
        Ok(Self { package: package.id.clone(), module, locked, metadata })
    }

    /// Flags that keep local paths out of the component, because panic messages contain the paths of sources. Paths within the workspace
    /// are relative already.
    fn remappings(&self) -> Result<Vec<String>> {
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
        let cargo_home = cargo_home.context("finding cargo's home directory: neither CARGO_HOME nor HOME is set")?;
        let mut pairs =
            vec![(cargo_home, "cargo".to_owned()), (self.metadata.target_directory.clone(), "target".into())];
        for Package { name, source, manifest_path, .. } in &self.metadata.packages {
            let folder = manifest_path.parent().unwrap_or(manifest_path);
            let pair = match source {
                Some(_) => (folder.parent().unwrap_or(folder).to_path_buf(), "crates".to_owned()),
                None if folder.starts_with(&self.metadata.workspace_root) => continue,
                None => (folder.to_path_buf(), name.clone()),
            };
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        let flag = |(path, name): &(PathBuf, String)| format!("--remap-path-prefix={}=/{name}", path.display());
        Ok(pairs.iter().map(flag).collect())
    }
}

/// Adds compiler flags to the user's own in the environment or in cargo's configuration, because cargo only uses one of them.
fn add_flags(cargo: &mut Command, remappings: &[String]) {
    let own = env::var("CARGO_ENCODED_RUSTFLAGS").ok();
    let own = own.or_else(|| Some(env::var("RUSTFLAGS").ok()?.split_whitespace().collect::<Vec<_>>().join("\u{1f}")));
    let flags = std::iter::once(STACK_SIZE_FLAG).chain(remappings.iter().map(String::as_str));
    match own.filter(|own| !own.is_empty()) {
        Some(own) => {
            let flags: Vec<&str> = std::iter::once(&*own).chain(flags).collect();
            cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        }
        None => {
            let flags = toml::Value::Array(flags.map(Into::into).collect());
            cargo.arg("--config").arg(format!("target.{TARGET}.rustflags={flags}"));
            cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
        }
    }
}
