//! The files of a new project: an example of this repository, the library of its language, and what they shared here.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use rust_embed::RustEmbed;

use crate::commands::policy::new::{Lang, Pattern};

/// The example policies, without what is built of them and what is written anew for a project.
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

/// The languages' libraries, without their own tests, and without what only the program needs of them, which carries it.
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

/// The interface, for who wants to read it.
const WIT: &str = include_str!("../../../../wit/policy.wit");

/// A file of a project: where it stands in it, and what is in it.
type File = (String, Vec<u8>);

/// All files of a project of that name.
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
        "policy new: there is no {kind}-based policy in {} to begin with; --pattern names others",
        lang.title()
    );
    for path in Sdk::iter().filter(|path| path.starts_with(&format!("{sdk}/"))) {
        files.push((format!("sdk/{}", &path[sdk.len() + 1..]), bytes::<Sdk>(&path)?));
    }
    files.push(("sdk/wit/policy.wit".to_owned(), WIT.into()));
    files.push(("cases.toml".to_owned(), bytes::<Examples>(&format!("cases/{kind}.toml"))?));
    files.push(("README.md".to_owned(), readme(lang, pattern, name).into_bytes()));
    // An example may bring its own.
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
    let file = E::get(path).with_context(|| format!("{path} is missing in this program"))?;
    Ok(match file.data {
        Cow::Borrowed(bytes) => bytes.to_vec(),
        Cow::Owned(bytes) => bytes,
    })
}

/// The example under its new name, with its library beside it.
fn renamed(text: &str, sdk: &str, example: &str, name: &str) -> String {
    text.replace(&format!("../../sdk/{sdk}"), "./sdk")
        .replace(example, name)
        .replace(&example.replace('-', "_"), &name.replace('-', "_"))
}

/// The profile that the examples in Rust have from their workspace, with the comment before it.
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
        Pattern::Session => "Whoever has a session may read every channel.",
        Pattern::User => {
            "Users may read `default`, the channel that is called as\nthey are, and those that begin with their id and `-`."
        }
        Pattern::Role => {
            "Users may read `default`, the channel that is called as\nthey are, those that begin with their id and `-`, and `team-…` of their teams; who has the role `admin` reads\n`admin-…` too."
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
tidegate policy build                 # compiles it into policy.wasm, or says which tool is missing
tidegate policy test policy.wasm      # asks it every request of cases.toml, and compares what it decides
tidegate dev --policy policy.wasm     # serves it, with a page to try it on
```

`{file}` is the policy, and `{test}` runs its unit tests. `cases.toml` has requests with what they should get; change both as your app
needs it. `sdk` is the library that the policy is written with; `sdk/wit/policy.wit` is the whole of what a policy can ask and answer.

On a gateway of your own, the policy may look up what its configuration allows:

```toml
policy.file = "policy.wasm"
policy.lookup.prefixes = {prefixes}
```
"#
    )
}
