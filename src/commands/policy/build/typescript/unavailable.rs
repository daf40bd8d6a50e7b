//! Modules that a policy cannot use: those of Node without a substitute, and packages that need sockets or native code.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// The modules of Node.
const BUILTIN: &[&str] = &[
    "assert",
    "assert/strict",
    "async_hooks",
    "buffer",
    "child_process",
    "cluster",
    "console",
    "constants",
    "crypto",
    "dgram",
    "diagnostics_channel",
    "dns",
    "dns/promises",
    "domain",
    "events",
    "fs",
    "fs/promises",
    "http",
    "http2",
    "https",
    "inspector",
    "inspector/promises",
    "module",
    "net",
    "os",
    "path",
    "path/posix",
    "path/win32",
    "perf_hooks",
    "process",
    "punycode",
    "querystring",
    "readline",
    "readline/promises",
    "repl",
    "sea",
    "sqlite",
    "stream",
    "stream/consumers",
    "stream/promises",
    "stream/web",
    "string_decoder",
    "sys",
    "test",
    "test/reporters",
    "timers",
    "timers/promises",
    "tls",
    "trace_events",
    "tty",
    "url",
    "util",
    "util/types",
    "v8",
    "vm",
    "wasi",
    "worker_threads",
    "zlib",
];

const FILES: &str = "a policy has no files: import the file, or read a setting from process.env";
const FETCH: &str = "use `fetch`, which reaches the hosts that the operator allows";
const SOCKETS: &str = "a policy has no sockets: use `fetch`, which reaches the hosts that the operator allows";
const CRYPTO: &str = "use `crypto.subtle`, `crypto.randomUUID()` and `crypto.getRandomValues()`";
const TIMERS: &str = "`setTimeout` is available without an import";

/// Alternatives to modules of Node.
const ALTERNATIVES: &[(&str, &str)] = &[
    ("crypto", CRYPTO),
    ("fs", FILES),
    ("fs/promises", FILES),
    ("path", "a policy has no files"),
    ("http", FETCH),
    ("https", FETCH),
    ("http2", FETCH),
    ("net", SOCKETS),
    ("tls", SOCKETS),
    ("dgram", SOCKETS),
    ("dns", SOCKETS),
    ("child_process", "a policy cannot start programs"),
    ("worker_threads", "a policy has one thread, for one decision"),
    ("url", "`URL` and `URLSearchParams` are available without an import"),
    ("util", "`TextEncoder`, `TextDecoder` and `structuredClone` are available without an import"),
    ("timers", TIMERS),
    ("timers/promises", TIMERS),
    ("zlib", "decompress the data before it gets into the store"),
];

/// Packages that cannot work in a policy.
const REFUSED: &str = include_str!("../../../../../sdk/typescript/refused.json");
static PACKAGES: LazyLock<BTreeMap<String, Package>> =
    LazyLock::new(|| serde_json::from_str(REFUSED).unwrap_or_default());

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    /// Completes "the package …", with the alternative.
    why: String,
    /// Endings of imports that work.
    #[serde(default)]
    usable: Vec<String>,
}

/// The name of the error that a stand-in throws, before its id in brackets: the report of an evaluation has the names of errors.
const ERROR_NAME: &str = "UnavailableModuleError";

/// The ids of the stand-ins, in the namespace of the plugin.
pub const NODE: &str = "node/";
pub const PACKAGE: &str = "package/";

/// The name of a module of Node, without `node:`.
pub fn builtin(import: &str) -> Option<&str> {
    let name = import.strip_prefix("node:").unwrap_or(import);
    BUILTIN.contains(&name).then_some(name)
}

/// The name of the package that cannot work, or of its part, of an import.
pub fn package(import: &str) -> Option<&'static str> {
    let is_part = |name: &str, usable: &[String]| {
        let rest = import.strip_prefix(name)?;
        let ending = rest.strip_suffix(".js").unwrap_or(rest);
        ((rest.is_empty() || rest.starts_with('/')) && !usable.iter().any(|it| it == ending)).then_some(())
    };
    PACKAGES.iter().find(|(name, package)| is_part(name, &package.usable).is_some()).map(|(name, _)| &**name)
}

/// Says why a stand-in does not work, and what does. `id` is its name in the namespace of the plugin.
pub fn explain(id: &str) -> Option<String> {
    if let Some(name) = id.strip_prefix(NODE) {
        let more = alternative(name).map_or_else(String::new, |text| format!(": {text}"));
        return Some(format!("\"node:{name}\" is a module of Node, and a policy does not run on Node{more}"));
    }
    let name = id.strip_prefix(PACKAGE)?;
    PACKAGES.get(name).map(|package| format!("\"{name}\" {}", package.why))
}

/// The id of the stand-in that threw an error, by the error's name.
pub fn thrown_by(name: &str) -> Option<&str> {
    name.strip_prefix(ERROR_NAME)?.strip_prefix(" [")?.strip_suffix(']')
}

/// The source of a stand-in, as a CommonJS module. That of a module of Node throws when a member is called, because a package may not
/// do that in a policy. That of a package throws at once.
pub fn stand_in(id: &str) -> Option<String> {
    let why = serde_json::Value::from(explain(id)?);
    let error = format!("(text) => Object.assign(new Error(text), {{ name: \"{ERROR_NAME} [{id}]\" }})");
    Some(if id.starts_with(NODE) {
        STAND_IN.replace("ERROR", &error).replace("WHY", &why.to_string())
    } else {
        format!("throw ({error})({why});\n")
    })
}

/// Packages test for the existence of members, copy them and extend them. None of that is a use.
const STAND_IN: &str = r#"const error = ERROR;
const why = WHY;
const plain = new Set(["__esModule", "then", "default"]);
const member = (name) => function () {
  throw error(`${name} of ${why}`);
};
module.exports = new Proxy({}, {
  get(_, name) {
    if (name === "default") return module.exports;
    return typeof name === "symbol" || plain.has(name) ? undefined : member(name);
  },
});
"#;

fn alternative(builtin: &str) -> Option<&'static str> {
    ALTERNATIVES.iter().find(|(name, _)| *name == builtin).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_packages_are_found_by_import() {
        for (import, found) in [
            ("pg", Some("pg")),
            ("pg/lib/client", Some("pg")),
            ("pg-promise", None),
            ("@prisma/client", Some("@prisma/client")),
            ("@prisma/client/edge", None),
            ("@prisma/client/edge.js", None),
            ("redis", Some("redis")),
            ("@upstash/redis", None),
        ] {
            assert_eq!(package(import), found, "{import}");
        }
    }

    #[test]
    fn builtins_are_found_with_and_without_prefix() {
        for (import, found) in
            [("node:fs", Some("fs")), ("fs/promises", Some("fs/promises")), ("fs-extra", None), ("node:nothing", None)]
        {
            assert_eq!(builtin(import), found, "{import}");
        }
    }

    #[test]
    fn refused_packages_are_valid() {
        let packages: BTreeMap<String, Package> = serde_json::from_str(REFUSED).expect("valid");
        for (name, Package { why, .. }) in packages {
            assert!(!why.is_empty() && !why.ends_with('.'), "{name}: {why}");
        }
    }

    #[test]
    fn stand_ins_say_what_to_write_instead() {
        for id in BUILTIN
            .iter()
            .map(|name| format!("{NODE}{name}"))
            .chain(PACKAGES.keys().map(|name| format!("{PACKAGE}{name}")))
        {
            let source = stand_in(&id).expect("a source");
            let name = source.split_once("name: \"").and_then(|(_, rest)| rest.split_once('"')).expect("a name").0;
            assert_eq!(thrown_by(name), Some(&*id), "{source}");
        }
        let text = explain("package/pg").expect("a text");
        assert!(text.starts_with("\"pg\" connects to a database") && text.contains("`lookup`"), "{text}");
        assert_eq!(explain("src/index.ts"), None);
        for name in ["Error", "UnavailableModuleError", "UnavailableModuleError [node/fs"] {
            assert_eq!(thrown_by(name), None, "{name}");
        }
    }
}
