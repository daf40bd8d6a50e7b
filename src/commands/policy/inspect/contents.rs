//! Parses the parts of a WebAssembly file that may be malformed.

use std::collections::BTreeSet;

use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload, ProducersFieldValue, ProducersSectionReader};
use wasmtime::Engine;

/// Maximum number of names of each kind; no policy has as many.
const MAX_NAMES: usize = 1000;
/// Longer names are truncated.
const MAX_NAME_CHARS: usize = 200;

/// Languages, and parts of the names of their producers and libraries. The first match counts: the interpreters of Python and JavaScript
/// are written in Rust and C, and have the traces of those too.
const TOOLCHAIN_TRACES: [(&str, &[&str]); 10] = [
    ("Python", &["componentize-py", "libpython"]),
    ("JavaScript (StarlingMonkey)", &["componentizejs", "componentize-js", "starlingmonkey"]),
    ("JavaScript (QuickJS)", &["componentize-qjs", "quickjs"]),
    ("Go (TinyGo)", &["tinygo"]),
    ("Go", &["wit-bindgen-go"]),
    ("Rust", &["wit-bindgen-rust"]),
    ("C", &["wit-bindgen-c"]),
    ("MoonBit", &["moonbit"]),
    ("AssemblyScript", &["assemblyscript"]),
    ("Zig", &["zig"]),
];

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Component,
    CoreModule,
    Precompiled,
    NotWasm,
}

/// The parsed parts of a file.
#[derive(Debug)]
pub struct Contents {
    pub kind: Kind,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Field, name and version of all `producers` sections, including those of nested modules.
    pub producers: BTreeSet<(String, String, String)>,
    /// Shared libraries linked into the component, such as `libpython3.14.so`.
    pub libraries: BTreeSet<String>,
}

impl Contents {
    /// Parses as much as is valid.
    pub fn of(bytes: &[u8]) -> Self {
        let kind = match bytes {
            _ if Engine::detect_precompiled(bytes).is_some() => Kind::Precompiled,
            [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => Kind::CoreModule,
            [0, b'a', b's', b'm', ..] => Kind::Component,
            _ => Kind::NotWasm,
        };
        let (producers, libraries) = (BTreeSet::new(), BTreeSet::new());
        let mut contents = Self { kind, imports: vec![], exports: vec![], producers, libraries };
        if matches!(kind, Kind::Component | Kind::CoreModule) {
            // Loading the component reports the invalid part.
            let _ = contents.read(bytes);
        }
        contents
    }

    fn read(&mut self, bytes: &[u8]) -> wasmparser::Result<()> {
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CustomSection(section) if section.name() == "producers" => {
                    let reader = wasmparser::BinaryReader::new(section.data(), section.data_offset());
                    for field in ProducersSectionReader::new(reader)? {
                        let field = field?;
                        for value in field.values {
                            self.add_producer(field.name, &value?);
                        }
                    }
                }
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        add(&mut self.imports, import?.name.name);
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        add(&mut self.exports, export?.name.name);
                    }
                }
                Payload::ImportSection(section) if depth == 1 => {
                    for import in section.into_imports() {
                        let import = import?;
                        add(&mut self.imports, &format!("{} {}", import.module, import.name));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let name = export?.name;
                        self.add_library(name);
                        if depth == 1 {
                            add(&mut self.exports, name);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Toolchains that link shared libraries export names such as `libc.so:environ`.
    fn add_library(&mut self, name: &str) {
        let library = name.split(':').next().unwrap_or_default();
        if library.starts_with("lib") && library.ends_with(".so") && self.libraries.len() < MAX_NAMES {
            self.libraries.insert(truncate(library));
        }
    }

    fn add_producer(&mut self, field: &str, value: &ProducersFieldValue<'_>) {
        if self.producers.len() < MAX_NAMES {
            self.producers.insert((truncate(field), truncate(value.name), truncate(value.version)));
        }
    }

    /// The language, if the traces of its toolchain are known.
    pub fn language(&self) -> Option<&'static str> {
        let producers = self.producers.iter().map(|(_, name, _)| name);
        let names: Vec<String> = producers.chain(&self.libraries).map(|name| name.to_lowercase()).collect();
        let has_trace = |traces: &[&str]| names.iter().any(|name| traces.iter().any(|trace| name.contains(trace)));
        if let Some((language, _)) = TOOLCHAIN_TRACES.iter().find(|(_, traces)| has_trace(traces)) {
            return Some(language);
        }
        // The versions of C are names: `C11`, `C17`.
        let is_named =
            |start: &str| self.producers.iter().any(|(field, name, _)| field == "language" && name.starts_with(start));
        [("Rust", "Rust"), ("Go", "Go"), ("Zig", "Zig"), ("C1", "C")]
            .into_iter()
            .find_map(|(start, language)| is_named(start).then_some(language))
    }

    /// The tools with their versions, and the linked libraries.
    pub fn toolchain(&self) -> Vec<String> {
        let tools = self.producers.iter().filter(|(field, _, _)| field != "language");
        let tools = tools.map(|(_, name, version)| format!("{name} {version}").trim_end().to_owned());
        tools.chain(self.libraries.iter().cloned()).collect()
    }

    /// The version of `tidegate:policy` that it exports, else imports.
    pub fn interface(&self) -> Option<String> {
        let version = |name: &String| Some(name.strip_prefix("tidegate:policy/")?.split_once('@')?.1.to_owned());
        self.exports.iter().chain(&self.imports).find_map(version)
    }
}

fn add(names: &mut Vec<String>, name: &str) {
    if names.len() < MAX_NAMES {
        names.push(truncate(name));
    }
}

fn truncate(text: &str) -> String {
    text.chars().take(MAX_NAME_CHARS).collect()
}

impl Kind {
    /// The name in texts.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::CoreModule => "core module",
            Self::Precompiled => "precompiled machine code",
            Self::NotWasm => "not WebAssembly",
        }
    }
}
