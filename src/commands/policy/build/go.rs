//! Builds policies in Go with the ordinary compiler's target `wasip1`, and an adapter for WASI preview 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::commands::policy::build::tools::Adapter;
use crate::commands::policy::build::{Job, MAX_MANIFEST_BYTES, tools};
use crate::util::files;

/// The functions of WASI preview 1 that Go's runtime imports; `cargo xtask bindings` compiles the module. The world has the export for
/// prewarmed instances, because Go takes long to start.
const ADAPTER: Adapter = Adapter {
    world: "prepared-policy",
    module: include_bytes!("../../../../sdk/go/adapter/wasi_snapshot_preview1.wasm"),
};

const REMEDY: &str = "install Go 1.24 or newer: https://go.dev/dl, or your system's package `golang`";

/// What a policy uses instead of a network, in a string of Go.
const NO_NETWORK: &str = "a policy has no network: use policy.VerifyToken for tokens (the gateway fetches their keys) and policy.Get \
                          for values in Redis";

/// Packages of the standard library that connect or listen, with those below `net/http`.
const NETWORK: [&str; 8] =
    ["net", "net/http", "net/rpc", "net/rpc/jsonrpc", "net/smtp", "crypto/tls", "log/syslog", "expvar"];

/// Importers of the network that the note of a build names.
const MAX_NAMED_IMPORTERS: usize = 5;

pub fn build(job: &Job) -> Result<()> {
    let go = tools::need(&["go"], REMEDY)?;
    let about = tools::output(Command::new(&go).args(["env", "GOVERSION", "GOROOT"]).current_dir(&job.project))?;
    let (version, root) = about.split_once('\n').context("go env: its output has no two lines")?;
    ensure!(is_new_enough(version), "{version} is too old for policies: {REMEDY}");
    ensure!(
        job.project.join("go.mod").is_file(),
        "{} has no go.mod: a policy in Go is a module (`tidegate policy new <folder> --lang go` writes one)",
        job.project.display()
    );

    let folder = tools::temporary_folder()?;
    let module = folder.path().join("policy.core.wasm");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(&go);
        command.current_dir(&job.project).env("GOOS", "wasip1").env("GOARCH", "wasm").args(arguments);
        command
    };
    let source = job.source.as_deref().unwrap_or(Path::new("."));
    let mut compiler = command(&["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o"]);
    compiler.arg(&module);
    if let Some(overlay) = overlay(Path::new(root), folder.path())? {
        compiler.arg("-overlay").arg(overlay);
    }
    tools::run(compiler.arg(source))?;
    let mut list = command(&["list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}} {{join .Imports \" \"}}"]);
    let packages = tools::output(list.arg(source))?;
    let importers = network_importers(&packages);
    if !importers.is_empty() {
        eprintln!("{}", network_note(&importers));
    }
    let mistake = "the compiled module is not a policy: does an init function call policy.Handle?";
    tools::write_component(job, &module, Some(&ADAPTER), mistake)
}

/// Go's package `net` has a network within the process for this target, so connections are refused as if the other side was down. An
/// overlay for the compiler replaces a file of the package, and every socket fails with an error that names the alternatives. `None` if the
/// package of this version of Go is not known.
fn overlay(root: &Path, work: &Path) -> Result<Option<PathBuf>> {
    let original = root.join("src/net/net_fake.go");
    let Ok(source) = files::read_text(&original, MAX_MANIFEST_BYTES) else { return Ok(None) };
    let Some(source) = without_sockets(&source) else { return Ok(None) };
    let (replacement, overlay) = (work.join("net_fake.go"), work.join("overlay.json"));
    let replace = serde_json::json!({ "Replace": { original.to_string_lossy(): replacement.to_string_lossy() } });
    let written = fs::write(&replacement, source).and_then(|()| fs::write(&overlay, replace.to_string()));
    written.with_context(|| format!("writing to {}", work.display()))?;
    Ok(Some(overlay))
}

/// The source of Go's package, with an error at the start of the function that makes sockets.
fn without_sockets(source: &str) -> Option<String> {
    if !source.contains("\t\"errors\"\n") {
        return None;
    }
    let body = source.find("\nfunc socket(")?;
    let body = body + source[body..].find("{\n")? + 2;
    let error = format!("\treturn nil, errors.New(\"{NO_NETWORK}\")\n");
    Some([&source[..body], &error, &source[body..]].concat())
}

/// The modules that import the network, of a list of packages with their imports: `<module> <imports>`. Packages of the standard library
/// have no module. Packages that only parse, such as `net/url` and `crypto/x509`, are no network.
fn network_importers(packages: &str) -> Vec<&str> {
    let is_network = |import: &str| NETWORK.contains(&import) || import.starts_with("net/http/");
    let mut importers = Vec::new();
    for (module, imports) in packages.lines().filter_map(|package| package.split_once(' ')) {
        if !module.is_empty() && imports.split(' ').any(is_network) && !importers.contains(&module) {
            importers.push(module);
        }
    }
    importers
}

fn network_note(importers: &[&str]) -> String {
    let named = &importers[importers.len().saturating_sub(MAX_NAMED_IMPORTERS)..];
    let more = match importers.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("note: net or net/http is imported by {}{more}. Their types work, but {NO_NETWORK}", named.join(", "))
}

/// Whether a version of Go can export functions, as releases do since 1.24. Versions that are not releases are taken for newer.
fn is_new_enough(version: &str) -> bool {
    tools::version(version).is_none_or(|version| version >= (1, 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_replaced_by_an_error() {
        let source = "package net\n\nimport (\n\t\"errors\"\n)\n\n// socket returns\nfunc socket(ctx context.Context, f func() error) (*netFD, error) {\n\treturn nil, nil\n}\n";
        let replaced = without_sockets(source).expect("the function is found");
        let expected =
            format!("(*netFD, error) {{\n\treturn nil, errors.New(\"{NO_NETWORK}\")\n\treturn nil, nil\n}}\n");
        assert!(replaced.ends_with(&expected), "{replaced}");
        assert_eq!(without_sockets("package net\n\nfunc sockets() {\n}\n"), None);
    }

    #[test]
    fn modules_that_import_the_network_are_named() {
        let packages = " internal/reflectlite\n net net/url\nexample.com/urls net/url crypto/x509\nexample.com/keys/v2 errors net\n\
                        example.com/keys/v2 net/http\nexample.com/cookies net/http/cookiejar\nexample.com/user example.com/keys/v2\n\
                        my-policy net";
        let importers = network_importers(packages);
        assert_eq!(importers, ["example.com/keys/v2", "example.com/cookies", "my-policy"]);
        let note = network_note(&importers);
        let expected =
            "net or net/http is imported by example.com/keys/v2, example.com/cookies, my-policy. Their types work";
        assert!(note.contains(expected), "{note}");
        assert!(network_note(&["a", "b", "c", "d", "e", "f", "g"]).contains(" by c, d, e, f, g and 2 more. "));
    }

    #[test]
    fn go_1_24_or_newer_is_required() {
        for (version, expected) in [
            ("go1.19.8", false),
            ("go1.23.12", false),
            ("go1.24.0", true),
            ("go1.26.8", true),
            ("go1.27rc1", true),
            ("go2.0", true),
            ("devel +1234", true),
        ] {
            assert_eq!(is_new_enough(version), expected, "{version}");
        }
    }
}
