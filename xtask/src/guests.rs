//! `cargo xtask guests`: the policies in Rust under `guest-examples`, built and made components.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use wit_component::ComponentEncoder;

const TARGET: &str = "wasm32-unknown-unknown";

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-22";

/// What Debian calls a Rust toolchain for the target.
pub const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-22"];

/// Whether a toolchain for the target is installed.
pub fn can_build() -> bool {
    Toolchain::find(&crate::root().join("guest-examples")).is_ok()
}

/// Builds every Rust guest into `target/guests/<name>.wasm`; `--bless` copies each over its committed `policy.wasm`.
pub fn run(options: &[&str]) -> Result<()> {
    let bless = match options {
        [] => false,
        ["--bless"] => true,
        _ => bail!("usage: cargo xtask guests [--bless]"),
    };
    let root = crate::root().canonicalize().context("finding the repository")?;
    let sources = root.join("guest-examples");
    let components = root.join("target/guests");
    fs::create_dir_all(&components).with_context(|| format!("creating {}", components.display()))?;

    let modules = compile(&root, &sources)?;
    for name in names(&sources)? {
        let component = encode(&modules.join(format!("{}.wasm", name.replace('-', "_"))))?;
        let mut places = vec![components.join(format!("{name}.wasm"))];
        if bless {
            places.push(sources.join(&name).join("policy.wasm"));
        }
        for place in places {
            fs::write(&place, &component).with_context(|| format!("writing {}", place.display()))?;
            println!("{} ({} bytes)", place.strip_prefix(&root).unwrap_or(&place).display(), component.len());
        }
    }
    Ok(())
}

/// The guests in Rust: the folders with a `Cargo.toml`, whose package has the folder's name.
fn names(sources: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(sources).with_context(|| format!("reading {}", sources.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Compiles the workspace of the guests and returns the folder of their core modules.
fn compile(root: &Path, sources: &Path) -> Result<PathBuf> {
    let toolchain = Toolchain::find(sources)?;
    // What is remapped below exists only once it has been downloaded.
    execute(toolchain.cargo(sources).args(["fetch", "--locked"]))?;

    let target_dir = root.join("target/guests-build");
    let mut build = toolchain.cargo(sources);
    build.args(["build", "--workspace", "--release", "--locked", "--target", TARGET]);
    build.args(toolchain.build_options());
    build.env("CARGO_TARGET_DIR", &target_dir);
    build.env("CARGO_ENCODED_RUSTFLAGS", remappings(root)?.join("\u{1f}"));
    execute(&mut build)?;
    Ok(target_dir.join(TARGET).join("release"))
}

/// Where the target's standard library comes from.
enum Toolchain {
    /// The user's own toolchain has it.
    Installed,
    /// Debian's packages have its source, which has to be compiled by their compiler.
    Debian,
}

impl Toolchain {
    fn find(sources: &Path) -> Result<Self> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let libraries =
            output(Command::new(rustc).current_dir(sources).args(["--print", "target-libdir", "--target", TARGET]));
        if libraries.is_ok_and(|path| Path::new(&path).is_dir()) {
            return Ok(Self::Installed);
        }
        let has_source = output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))
            .is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").is_dir());
        if has_source && Path::new(DEBIAN_CARGO).exists() && Path::new(DEBIAN_LINKER).exists() {
            return Ok(Self::Debian);
        }
        bail!(
            "no Rust toolchain for {TARGET} is installed; either of these cures it:\n  \
             rustup target add {TARGET}\n  \
             apt-get install --no-install-recommends {}",
            DEBIAN_PACKAGES.join(" ")
        )
    }

    fn cargo(&self, sources: &Path) -> Command {
        let mut cargo = match self {
            Self::Installed => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            Self::Debian => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC);
                // The packages are a stable release; building the standard library is not a stable option.
                cargo.env("RUSTC_BOOTSTRAP", "1");
                cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
                cargo
            }
        };
        cargo.current_dir(sources);
        cargo
    }

    fn build_options(&self) -> &'static [&'static str] {
        match self {
            Self::Installed => &[],
            Self::Debian => &["-Zbuild-std=std,panic_abort"],
        }
    }
}

/// Flags that keep the builder's own paths out of the components: panic messages hold the paths of sources.
fn remappings(root: &Path) -> Result<Vec<String>> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let registries = cargo_home.context("finding cargo's home directory")?.join("registry/src");
    let mut flags = vec![format!("--remap-path-prefix={}=/tidegate", root.display())];
    for registry in fs::read_dir(&registries).with_context(|| format!("reading {}", registries.display()))? {
        flags.push(format!("--remap-path-prefix={}=/crates", registry?.path().display()));
    }
    Ok(flags)
}

fn encode(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("reading {}", module.display()))?;
    ComponentEncoder::default()
        .module(&bytes)
        .and_then(|encoder| encoder.validate(true).encode())
        .with_context(|| format!("making a component of {}", module.display()))
}

fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {:?}", command.get_program()))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {:?}", command.get_program()))?;
    ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
