//! Which cargo compiles a policy, and for which target.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::commands::policy::build::{c, tools};

const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-22";
/// Debian's packages of a Rust toolchain for WebAssembly.
const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src lld-22";

/// The source of the target's standard library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RustToolchain {
    /// The user's own toolchain has the compiled library with the system functions of WASI.
    Wasip2,
    /// The user's own toolchain has the compiled library without system functions.
    Unknown,
    /// Debian's packages have the library's source, which their compiler has to compile.
    Debian,
}

impl RustToolchain {
    pub fn find(project: &Path) -> Result<Self> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        for toolchain in [Self::Wasip2, Self::Unknown] {
            let mut rustc = Command::new(&rustc);
            rustc.current_dir(project).args(["--print", "target-libdir", "--target", toolchain.target()]);
            if tools::output(&mut rustc).is_ok_and(|path| Path::new(&path).is_dir()) {
                return Ok(toolchain);
            }
        }
        let has_source = tools::output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))
            .is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").is_dir());
        if has_source && Path::new(DEBIAN_CARGO).exists() && Path::new(DEBIAN_LINKER).exists() {
            return Ok(Self::Debian);
        }
        bail!(
            "no Rust toolchain for WebAssembly is installed: run either of\n  \
             rustup target add {}\n  \
             apt-get install --no-install-recommends {DEBIAN_PACKAGES}",
            Self::Wasip2.target()
        )
    }

    pub const fn target(self) -> &'static str {
        match self {
            Self::Wasip2 => "wasm32-wasip2",
            Self::Unknown | Self::Debian => "wasm32-unknown-unknown",
        }
    }

    /// A command of cargo in the project's folder.
    pub fn cargo(self, project: &Path) -> Command {
        let mut cargo = match self {
            Self::Wasip2 | Self::Unknown => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
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

    /// The command that compiles, without the options of the project.
    pub fn cargo_build(self, project: &Path) -> Command {
        let mut cargo = self.cargo(project);
        cargo.args(["build", "--release", "--lib", "--target", self.target()]);
        if self == Self::Debian {
            cargo.arg("-Zbuild-std=std,panic_abort");
        }
        // For crates with parts in C. The system's `cc` has only its own target.
        if self != Self::Wasip2
            && !has_variable(&["CC_wasm32-unknown-unknown", "CC_wasm32_unknown_unknown", "TARGET_CC"])
            && let Some(clang) = c::find_clang()
        {
            cargo.env("CC_wasm32_unknown_unknown", clang);
        }
        cargo
    }
}

fn has_variable(names: &[&str]) -> bool {
    names.iter().any(|name| env::var_os(name).is_some_and(|value: OsString| !value.is_empty()))
}
