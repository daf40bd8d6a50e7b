//! The resolution of imports that differ from those of a bundler for browsers.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;
use rust_embed::RustEmbed;

use crate::commands::policy::build::typescript::esbuild::{Import, Kind, Loaded, Plugin, Resolution, Resolved, Step};
use crate::commands::policy::build::typescript::{MAX_SOURCE_BYTES, unavailable};
use crate::util::files;

/// The package `@tidegate/policy`.
#[derive(RustEmbed)]
#[folder = "sdk/typescript"]
#[include = "src/*"]
struct Sdk;

/// Substitutes for modules of Node, one file for each, with `-` for `/`.
#[derive(RustEmbed)]
#[folder = "sdk/typescript/engine/js/node"]
struct Substitutes;

/// The namespace with its separator, as in a metafile.
pub const PREFIX: &str = "tidegate:";
/// The installed `@upstash/realtime` with another `handle`: that of the package serves streams, which is the gateway's task.
const REALTIME: &str = "installed/realtime";
/// In a source of the namespace: the installed package.
const INSTALLED_REALTIME: &str = "tidegate:installed/realtime-itself";
const EMPTY: &str = "empty";
/// Modules of the runtime itself, `tidegate:policy` for instance. There is one copy of their classes.
pub const BUILT_INS: [&str; 4] =
    ["tidegate:policy", "tidegate:realtime", "tidegate:next/headers", "tidegate:next/server"];
const BUILT_IN: &str = "built-in/";
const SUBSTITUTE: &str = "substitute/";

/// The identifier that `process.env.NODE_ENV` is replaced with in packages. Unlike a string, it changes nothing in a string.
pub const NODE_ENV: &str = "__tidegate_node_env__";
static NODE_ENV_USE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let pattern = concat!(
        r"(?:(?-u:\b)(?:globalThis|global)[ \t\r\n]*\.[ \t\r\n]*)?(?-u:\b)process[ \t\r\n]*\.[ \t\r\n]*env[ \t\r\n]*",
        r#"(?:\.[ \t\r\n]*NODE_ENV(?-u:\b)|\[[ \t\r\n]*["']NODE_ENV["'][ \t\r\n]*\])"#
    );
    Regex::new(pattern).ok()
});

/// Resolves the imports of an app.
#[derive(Debug, Default)]
pub struct Resolver {
    /// The file of the installed `@upstash/realtime`.
    realtime: Option<String>,
    /// Packages whose code depends on `NODE_ENV`.
    pub uses_of_node_env: BTreeSet<String>,
}

impl Plugin for Resolver {
    fn resolve(&mut self, import: &Import) -> Step {
        let provided = |path: &str| Step::Answer(Resolution::Provided(path.to_owned()));
        let name = &*import.path;
        if name == INSTALLED_REALTIME
            && let Some(path) = &self.realtime
        {
            return Step::Answer(Resolution::File(path.clone()));
        }
        if import.importer.starts_with(BUILT_IN) {
            return Step::Answer(Resolution::External(name.to_owned()));
        }
        if let Some(path) = name.strip_prefix(PREFIX) {
            return provided(path);
        }
        if import.namespace == PREFIX.trim_end_matches(':') && name.starts_with('.') {
            return provided(&joined(&import.importer, name));
        }
        if import.kind == Kind::EntryPoint {
            return Step::Default;
        }
        match name.trim_end_matches(".js") {
            "@upstash/realtime" | "@tidegate/policy" | "@tidegate/policy/testing" => return Step::Ask,
            // Next.js itself needs its server, and `server-only` throws without it.
            "server-only" | "client-only" => return provided(EMPTY),
            module @ ("next/headers" | "next/server") => return provided(&format!("{BUILT_IN}{module}")),
            module => {
                let file = format!("src/{module}.ts");
                if module.starts_with("next/") && Sdk::get(&file).is_some() {
                    return provided(&file);
                }
            }
        }
        if let Some(package) = unavailable::package(name) {
            return provided(&format!("{}{package}", unavailable::PACKAGE));
        }
        match unavailable::builtin(name) {
            // There may be a package with the same name, such as `buffer`.
            Some(_) if !name.starts_with("node:") => Step::Ask,
            Some(builtin) => Step::Answer(without_node(builtin)),
            None => Step::Default,
        }
    }

    fn resolved(&mut self, import: &Import, found: &Resolved) -> Resolution {
        let provided = |path: &str| Resolution::Provided(path.to_owned());
        match (&*import.path, &found.path) {
            ("@upstash/realtime", Some(path)) => {
                self.realtime = Some(path.clone());
                provided(REALTIME)
            }
            ("@upstash/realtime", None) => provided(&format!("{BUILT_IN}realtime")),
            (name, None) if name.starts_with("@tidegate/policy/testing") => provided("src/testing.ts"),
            (name, None) if name.starts_with("@tidegate/policy") => provided(&format!("{BUILT_IN}policy")),
            // esbuild "finds" a module that a package's `browser` map sets to false, without a file.
            (_, Some(path)) if !Path::new(path).is_file() => provided(EMPTY),
            (_, Some(path)) => Resolution::File(path.clone()),
            (name, None) => unavailable::builtin(name).map_or(Resolution::Default, without_node),
        }
    }

    fn load(&mut self, path: &str, namespace: &str) -> Result<Option<Loaded>> {
        if namespace != PREFIX.trim_end_matches(':') {
            return self.load_package(path);
        }
        let module = |text: String| Ok(Some(Loaded { content: text.into_bytes(), loader: "js" }));
        match path {
            EMPTY => return module("module.exports = {};\n".to_owned()),
            REALTIME => {
                return module(format!(
                    "export * from \"{INSTALLED_REALTIME}\";\nexport {{ handle }} from \"{PREFIX}{BUILT_IN}realtime\";\n"
                ));
            }
            _ => {}
        }
        if let Some(name) = path.strip_prefix(BUILT_IN) {
            return module(format!("module.exports = require(\"{PREFIX}{name}\");\n"));
        }
        if let Some(text) = unavailable::stand_in(path) {
            return module(text);
        }
        let file = match path.strip_prefix(SUBSTITUTE) {
            Some(name) => Substitutes::get(name),
            None => Sdk::get(path),
        };
        let content = file.with_context(|| format!("{path} is missing in the program"))?.data.into_owned();
        Ok(Some(Loaded { content, loader: "ts" }))
    }
}

impl Resolver {
    /// A file of a package, if its code depends on `NODE_ENV`. That of the app itself reads the setting.
    fn load_package(&mut self, path: &str) -> Result<Option<Loaded>> {
        let Some(loader) = loader(path) else { return Ok(None) };
        let source = files::read(Path::new(path), MAX_SOURCE_BYTES).with_context(|| format!("reading {path}"))?;
        let Some(pattern) = &*NODE_ENV_USE else { return Ok(None) };
        let Ok(text) = String::from_utf8(source) else { return Ok(None) };
        if !text.contains("NODE_ENV") || !pattern.is_match(&text) {
            return Ok(None);
        }
        self.uses_of_node_env.extend(package_of(path));
        Ok(Some(Loaded { content: pattern.replace_all(&text, NODE_ENV).into_owned().into_bytes(), loader }))
    }
}

/// The substitute for a module of Node, or a stand-in.
fn without_node(builtin: &str) -> Resolution {
    let file = format!("{}.ts", builtin.replace('/', "-"));
    Resolution::Provided(match Substitutes::get(&file) {
        Some(_) => format!("{SUBSTITUTE}{file}"),
        None => format!("{}{builtin}", unavailable::NODE),
    })
}

/// The package of a file: the last one in its path.
pub fn package_of(path: &str) -> Option<String> {
    let path = path.replace('\\', "/");
    let (_, rest) = path.rsplit_once("node_modules/")?;
    let parts = if rest.starts_with('@') { 2 } else { 1 };
    Some(rest.split('/').take(parts).collect::<Vec<_>>().join("/"))
}

fn loader(path: &str) -> Option<&'static str> {
    Some(match Path::new(path).extension()?.to_str()? {
        "js" | "mjs" | "cjs" => "js",
        "jsx" => "jsx",
        "ts" | "mts" | "cts" => "ts",
        "tsx" => "tsx",
        _ => return None,
    })
}

/// A path relative to a module of the namespace.
fn joined(importer: &str, path: &str) -> String {
    let mut parts: Vec<&str> = importer.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
