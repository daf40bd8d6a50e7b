//! `tidegate policy inspect`: shows what a file is, what it imports, and whether the gateway can load it.

mod contents;

use std::io::Read;
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::commands::policy::component_args::default_limits;
use crate::commands::policy::inspect::contents::{Contents, Kind};
use crate::commands::print_text;
use crate::config;
use crate::util::files;
use crate::util::printable::{printable, printable_json};
use crate::wasm::compile::Compiler;
use crate::wasm::component::Policy;
use crate::wasm::load_error::{LoadError, MAX_COMPONENT_BYTES};

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Component file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The output.
#[derive(Debug, Serialize)]
struct InspectReport {
    file: String,
    kind: Kind,
    /// In bytes.
    size: u64,
    digest: String,
    /// The version of `tidegate:policy` that it uses.
    interface: Option<String>,
    imports: Imports,
    exports: Vec<String>,
    language: Option<&'static str>,
    /// Names and versions of the tools that built it.
    toolchain: Vec<String>,
    /// Why the gateway cannot load it; none if it can.
    refused: Option<String>,
}

/// Names of imports, by their package.
#[derive(Debug, Serialize)]
struct Imports {
    tidegate: Vec<String>,
    wasi: Vec<String>,
    others: Vec<String>,
}

pub fn run(args: &InspectArgs) -> Result<()> {
    let compiler = Compiler::new(&default_limits(), config::cache_dir().as_deref())?;
    let report = inspect(&compiler, &args.file)?;
    if args.json {
        serde_json::to_string_pretty(&report)?
            .lines()
            .try_for_each(|line| print_text(&format!("{}\n", printable_json(line))))?;
    } else {
        print_text(&report.text())?;
    }
    match report.refused {
        None => Ok(()),
        Some(reason) => bail!("{} cannot be loaded: it {}", args.file.display(), printable(&reason)),
    }
}

fn inspect(compiler: &Compiler, path: &Path) -> Result<InspectReport> {
    let open = || format!("policy inspect: component {}: cannot be read", path.display());
    let mut file = files::open(path).with_context(open)?;
    let size = file.metadata().with_context(open)?.len();
    // Of a file that is too large only the beginning is parsed; the digest is that of the whole file.
    let (mut bytes, mut digest) = (Vec::new(), Sha256::new());
    file.by_ref().take(MAX_COMPONENT_BYTES).read_to_end(&mut bytes).with_context(open)?;
    digest.update(&bytes);
    let mut chunk = vec![0; 64 << 10];
    while let read @ 1.. = file.read(&mut chunk).with_context(open)? {
        digest.update(&chunk[..read]);
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();

    let contents = Contents::of(&bytes);
    let loaded =
        if size > MAX_COMPONENT_BYTES { Err(LoadError::TooLarge(size)) } else { Policy::new(compiler, &bytes) };
    Ok(InspectReport {
        file: path.display().to_string(),
        kind: contents.kind,
        size,
        digest: format!("sha256:{digest}"),
        interface: contents.interface(),
        language: contents.language(),
        toolchain: contents.toolchain(),
        imports: Imports::grouped(contents.imports),
        exports: contents.exports,
        refused: loaded.err().map(|error| error.to_string()),
    })
}

impl Imports {
    fn grouped(names: Vec<String>) -> Self {
        let (tidegate, rest): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.starts_with("tidegate:"));
        let (wasi, others) = rest.into_iter().partition(|name| name.starts_with("wasi:"));
        Self { tidegate, wasi, others }
    }
}

impl InspectReport {
    fn text(&self) -> String {
        let one = |name: &str, value: &str| section(name, &[value.to_owned()]);
        let interface = self.interface.as_ref().map(|version| format!("tidegate:policy {version}"));
        let refused = self.refused.as_ref().map(|reason| format!("no: it {reason}"));
        [
            one("file", &self.file),
            one("kind", self.kind.title()),
            one("size", &format!("{} bytes", self.size)),
            one("digest", &self.digest),
            one("interface", interface.as_deref().unwrap_or("none")),
            one("language", self.language.unwrap_or("unknown")),
            section("toolchain", &self.toolchain),
            section("imports", &[&self.imports.tidegate[..], &self.imports.wasi, &self.imports.others].concat()),
            section("exports", &self.exports),
            one("loads", refused.as_deref().unwrap_or("yes")),
        ]
        .concat()
    }
}

/// A line for each value; the first one begins with the name.
fn section(name: &str, values: &[String]) -> String {
    let names = iter::once(name).chain(iter::repeat(""));
    names.zip(values).map(|(name, value)| format!("{name:<10} {}\n", printable(value))).collect()
}

#[cfg(test)]
mod tests;
