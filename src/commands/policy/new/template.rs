//! The files of a new project: an example policy of this repository, the SDK of its language, the interface and the test cases.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use rust_embed::RustEmbed;

use crate::commands::policy::new::{Lang, Pattern};

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
#[exclude = "typescript/build/*"]
#[exclude = "typescript/platform/*"]
#[exclude = "typescript/runtime/*"]
#[exclude = "typescript/test/*"]
#[exclude = "typescript/tests/*"]
#[exclude = "typescript/toolchain/*"]
struct Sdk;

/// The interface, for reference.
const WIT: &str = include_str!("../../../../wit/policy.wit");

/// A file of a project: its path in the project, and its content.
type File = (String, Vec<u8>);

/// The files of a project with that name.
pub fn files(lang: Lang, pattern: Pattern, name: &str) -> Result<Vec<File>> {
    let (sdk, kind) = (lang.sdk(), pattern.name());
    let example = format!("{}-{kind}-based", lang.name());
    let mut files = Vec::new();
    for path in Examples::iter().filter(|path| path.starts_with(&format!("{example}/"))) {
        let mut bytes = bytes::<Examples>(&path)?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            bytes = renamed(text, sdk, &example, name).into_bytes();
        }
        files.push((path[example.len() + 1..].to_owned(), bytes));
    }
    ensure!(
        !files.is_empty(),
        "policy new: there is no {kind}-based example in {}: select another one with --pattern",
        lang.title()
    );
    for path in Sdk::iter().filter(|path| path.starts_with(&format!("{sdk}/"))) {
        files.push((format!("sdk/{}", &path[sdk.len() + 1..]), bytes::<Sdk>(&path)?));
    }
    files.push(("sdk/wit/policy.wit".to_owned(), WIT.into()));
    files.push(("cases.toml".to_owned(), bytes::<Examples>(&format!("cases/{kind}.toml"))?));
    files.push(("README.md".to_owned(), readme(lang, pattern, name).into_bytes()));
    // An example may have its own.
    if !files.iter().any(|(path, _)| path == ".gitignore") {
        files.push((".gitignore".to_owned(), gitignore(lang).into()));
    }
    if lang == Lang::Rust {
        let manifest =
            files.iter_mut().find(|(path, _)| path == "Cargo.toml").context("the example has no manifest")?;
        manifest.1.extend(b"\n[workspace]\n\n");
        manifest.1.extend(profile()?.into_bytes());
    }
    Ok(files)
}

fn bytes<E: RustEmbed>(path: &str) -> Result<Vec<u8>> {
    let file = E::get(path).with_context(|| format!("{path} is missing in the program"))?;
    Ok(match file.data {
        Cow::Borrowed(bytes) => bytes.to_vec(),
        Cow::Owned(bytes) => bytes,
    })
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

fn gitignore(lang: Lang) -> &'static str {
    match lang {
        Lang::Rust => "/target\n/policy.wasm\n",
        Lang::TypeScript => "node_modules\n/policy.wasm\n",
        Lang::Python => "__pycache__\n/.venv\n/policy.wasm\n",
        Lang::Go => "/policy.wasm\n",
        Lang::C => "/build\n/policy.wasm\n",
        Lang::Zig => "/.zig-cache\n/policy.wasm\n",
    }
}

fn readme(lang: Lang, pattern: Pattern, name: &str) -> String {
    let decides = match pattern {
        Pattern::Session => "Clients with a session may read every channel.",
        Pattern::User => {
            "Users may read `default`, the channel with their\nid as its name, and channels that begin with their id and `-`."
        }
        Pattern::Role => {
            "Users may read `default`, the channel with their\nid as its name, channels that begin with their id and `-`, and the channels `team-…` of their teams. Users with the\nrole `admin` may also read `admin-…`."
        }
    };
    let (file, test) = match lang {
        Lang::Rust => ("src/lib.rs", "cargo test"),
        Lang::TypeScript => ("policy.ts", "npm install && npm test"),
        Lang::Python => ("app.py", "python3 -m unittest"),
        Lang::Go => ("main.go", "go test ./..."),
        Lang::C => ("policy.c", "make test"),
        Lang::Zig => ("policy.zig", "make test"),
    };
    let prefixes = if pattern == Pattern::Role { r#"["session:", "team:"]"# } else { r#"["session:"]"# };
    let title = lang.title();
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
