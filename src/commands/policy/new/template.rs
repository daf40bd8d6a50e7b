//! The files of a new project: an example policy of this repository, the SDK of its language, the interface and the test cases.

use anyhow::{Context, Result, ensure};
use rust_embed::RustEmbed;

use crate::commands::policy::language::Language;
use crate::commands::policy::new::{Pattern, value_name};

/// The example policies, without build products and without files that are generated for a project.
#[derive(RustEmbed)]
#[folder = "guest-examples"]
#[exclude = "target/*"]
#[exclude = "*/target/*"]
#[exclude = "*/node_modules/*"]
#[exclude = "*/__pycache__/*"]
#[exclude = "*/.venv/*"]
#[exclude = "*/build/*"]
#[exclude = "*/.*cache/*"]
#[exclude = "*.wasm"]
#[exclude = "*.lock"]
#[exclude = "*/package-lock.json"]
#[exclude = "*/go.sum"]
#[exclude = "*/README.md"]
struct Examples;

/// The SDKs, without their own tests and without files that only `policy build` needs.
#[derive(RustEmbed)]
#[folder = "sdk"]
#[exclude = "*/target/*"]
#[exclude = "*/node_modules/*"]
#[exclude = "*/__pycache__/*"]
#[exclude = "*/.venv/*"]
#[exclude = "*/.*cache/*"]
#[exclude = "c/build/*"]
#[exclude = "c/Makefile"]
#[exclude = "c/test_sdk.c"]
#[exclude = "go/*_test.go"]
#[exclude = "python/tests/*"]
#[exclude = "typescript/bundler/*"]
#[exclude = "typescript/engine/*"]
#[exclude = "typescript/engine.wasm"]
#[exclude = "typescript/engine.toml"]
#[exclude = "typescript/refused.json"]
#[exclude = "typescript/test/*"]
#[exclude = "typescript/tests/*"]
struct EmbeddedSdk;

/// The interface, for reference.
const WIT: &str = include_str!("../../../../wit/policy.wit");

/// Settings of cargo, in the workspace of the examples in Rust.
const CARGO_CONFIG: &str = ".cargo/config.toml";

/// A file of a project: its path in the project, and its content.
type TemplateFile = (String, Vec<u8>);

/// The files of a project with that name.
pub fn files(language: Language, pattern: Pattern, name: &str) -> Result<Vec<TemplateFile>> {
    let (folder, kind) = (value_name(language), value_name(pattern));
    // Policies in Zig use the SDK for C.
    let sdk = if language == Language::Zig { value_name(Language::C) } else { folder.clone() };
    let example = format!("{folder}-{kind}-based");
    let mut files = Vec::new();
    for (path, mut bytes) in folder_files::<Examples>(&example)? {
        if let Ok(text) = std::str::from_utf8(&bytes) {
            bytes = renamed(text, &sdk, &example, name).into_bytes();
        }
        files.push((path, bytes));
    }
    ensure!(
        !files.is_empty(),
        "policy new: there is no {kind}-based example in {}: select another one with --pattern",
        language.title()
    );
    files.extend(folder_files::<EmbeddedSdk>(&sdk)?.into_iter().map(|(path, bytes)| (format!("sdk/{path}"), bytes)));
    files.push(("sdk/wit/policy.wit".to_owned(), WIT.into()));
    files.push(("cases.toml".to_owned(), bytes::<Examples>(&format!("cases/{kind}.toml"))?));
    files.push(("README.md".to_owned(), readme(language, pattern, name).into_bytes()));
    // An example may have its own.
    if !files.iter().any(|(path, _)| path == ".gitignore") {
        files.push((".gitignore".to_owned(), format!("{}/policy.wasm\n", details(language).2).into()));
    }
    if language == Language::Rust {
        let manifest =
            files.iter_mut().find(|(path, _)| path == "Cargo.toml").context("the example has no manifest")?;
        manifest.1.extend(format!("\n[workspace]\n\n{}", profile()?).into_bytes());
        files.push((CARGO_CONFIG.to_owned(), bytes::<Examples>(CARGO_CONFIG)?));
    }
    Ok(files)
}

/// The files below a folder that the program contains, with their paths in it.
fn folder_files<E: RustEmbed>(folder: &str) -> Result<Vec<TemplateFile>> {
    let below = |path: &str| Some(path.strip_prefix(folder)?.strip_prefix('/')?.to_owned());
    let paths = E::iter().filter_map(|path| Some((below(&path)?, path)));
    paths.map(|(below, path)| Ok((below, bytes::<E>(&path)?))).collect()
}

fn bytes<E: RustEmbed>(path: &str) -> Result<Vec<u8>> {
    Ok(E::get(path).with_context(|| format!("{path} is missing in the program"))?.data.into_owned())
}

/// Replaces the example's name by the project's, and the path of the SDK by that in the project.
fn renamed(text: &str, sdk: &str, example: &str, name: &str) -> String {
    text.replace(&format!("../../sdk/{sdk}"), "./sdk")
        .replace(example, name)
        .replace(&example.replace('-', "_"), &name.replace('-', "_"))
}

/// The release profile of the workspace of the examples in Rust, with the preceding comment.
fn profile() -> Result<String> {
    let manifest = String::from_utf8(bytes::<Examples>("Cargo.toml")?)?;
    let (before, profile) = manifest.split_once("[profile.release]").context("the workspace has no release profile")?;
    let comment: Vec<&str> = before.lines().rev().take_while(|line| line.starts_with('#')).collect();
    let comment: String = comment.iter().rev().map(|line| format!("{line}\n")).collect();
    Ok(format!("{comment}[profile.release]{profile}"))
}

/// The policy's source file, the command that runs its unit tests, and the products of a language's tools, for `.gitignore`.
const fn details(language: Language) -> (&'static str, &'static str, &'static str) {
    match language {
        Language::Rust => ("src/lib.rs", "cargo test", "/target\n"),
        Language::TypeScript => ("policy.ts", "npm install && npm test", "node_modules\n"),
        Language::Python => ("app.py", "python3 -m unittest", "__pycache__\n/.venv\n"),
        Language::Go => ("main.go", "go test ./...", ""),
        Language::C => ("policy.c", "make test", "/build\n"),
        Language::Zig => ("policy.zig", "make test", "/.zig-cache\n"),
    }
}

fn readme(language: Language, pattern: Pattern, name: &str) -> String {
    let decides = match pattern {
        Pattern::Session => "Clients with a session may read every channel.",
        Pattern::User => {
            "Users may read `default`, the channel with their\nid as its name, and channels that begin with their id and `-`."
        }
        Pattern::Role => {
            "Users may read `default`, the channel with their\nid as its name, channels that begin with their id and `-`, and the channels `team-…` of their teams. Users with the\nrole `admin` may also read `admin-…`."
        }
    };
    let (file, test, _) = details(language);
    let prefixes = if pattern == Pattern::Role { r#"["session:", "team:"]"# } else { r#"["session:"]"# };
    let title = language.title();
    format!(
        r#"# {name}

A policy for the Tidegate gateway, in {title}. {decides}

```sh
tidegate policy build                 # compiles it to policy.wasm; an error names missing tools
tidegate policy test policy.wasm      # runs the test cases of cases.toml
tidegate dev --policy policy.wasm     # starts a gateway with the policy and a page to try it
```

`{file}` is the policy, and `{test}` runs its unit tests. `cases.toml` has requests and the expected decisions. Change both for your
app. `sdk` is the SDK of the policy; `sdk/wit/policy.wit` is the whole interface of policies.

On your own gateway, the configuration has to allow the look-ups of the policy:

```toml
policy.file = "policy.wasm"
policy.lookup.prefixes = {prefixes}
```
"#
    )
}
