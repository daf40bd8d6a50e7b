//! `tidegate policy inspect`: shows what a file is, what it imports, and whether the gateway can load it.

mod contents;
mod language;

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::commands::policy::inspect::contents::{Contents, Kind};
use crate::config;
use crate::policy::Limits;
use crate::util::files;
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
struct Report {
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
#[derive(Debug, Default, Serialize)]
struct Imports {
    tidegate: Vec<String>,
    wasi: Vec<String>,
    others: Vec<String>,
}

pub fn run(args: &InspectArgs) -> Result<()> {
    let compiler = Compiler::new(&Limits::default(), config::cache_dir().as_deref())?;
    let report = inspect(&compiler, &args.file)?;
    if args.json {
        crate::commands::policy::print_text(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        crate::commands::policy::print_text(&report.text())?;
    }
    match report.refused {
        None => Ok(()),
        Some(reason) => Err(anyhow!("{} cannot be loaded: it {}", args.file.display(), plain(&reason))),
    }
}

fn inspect(compiler: &Compiler, path: &Path) -> Result<Report> {
    let open = || format!("policy inspect: {}", path.display());
    let mut file = files::open(path).with_context(open)?;
    let size = file.metadata().with_context(open)?.len();
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_COMPONENT_BYTES).read_to_end(&mut bytes).with_context(open)?;
    // Of a file that is too large only the beginning is parsed; the digest is that of the whole file.
    let mut digest = Sha256::new();
    digest.update(&bytes);
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk).with_context(open)? {
            0 => break,
            read => digest.update(&chunk[..read]),
        }
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();

    let contents = Contents::of(&bytes);
    let loaded =
        if size > MAX_COMPONENT_BYTES { Err(LoadError::TooLarge(size)) } else { Policy::new(compiler, &bytes) };
    let (language, toolchain) = language::detect(&contents);
    Ok(Report {
        file: path.display().to_string(),
        kind: contents.kind,
        size,
        digest: format!("sha256:{digest}"),
        interface: contents.interface(),
        imports: Imports::grouped(contents.imports),
        exports: contents.exports,
        language,
        toolchain,
        refused: loaded.err().map(|error| error.to_string()),
    })
}

impl Imports {
    fn grouped(names: Vec<String>) -> Self {
        let mut imports = Self::default();
        for name in names {
            let group = match name.split_once(':') {
                Some(("tidegate", _)) => &mut imports.tidegate,
                Some(("wasi", _)) => &mut imports.wasi,
                _ => &mut imports.others,
            };
            group.push(name);
        }
        imports
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, values: &[String]| {
            for (index, value) in values.iter().enumerate() {
                let name = if index == 0 { name } else { "" };
                text += &format!("{name:<10} {}\n", plain(value));
            }
        };
        line("file", std::slice::from_ref(&self.file));
        line("kind", &[self.kind.to_string()]);
        line("size", &[format!("{} bytes", self.size)]);
        line("digest", std::slice::from_ref(&self.digest));
        line(
            "interface",
            &[self.interface.as_ref().map_or("none".into(), |version| format!("tidegate:policy {version}"))],
        );
        line("language", &[self.language.unwrap_or("unknown").to_owned()]);
        line("toolchain", &self.toolchain);
        line("imports", &[&self.imports.tidegate[..], &self.imports.wasi, &self.imports.others].concat());
        line("exports", &self.exports);
        line("loads", &[self.refused.as_ref().map_or("yes".into(), |reason| format!("no: it {reason}"))]);
        text
    }
}

/// Replaces control characters, which a file from others may have in any text.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests;
