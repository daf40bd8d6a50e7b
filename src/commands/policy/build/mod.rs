//! `tidegate policy build`: runs the toolchain of a policy's language. One file per language.

mod c;
mod go;
mod python;
mod rust;
mod tools;
mod typescript;
mod zig;
mod zig_toolchain;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;

/// A larger manifest or Makefile of a project is a mistake.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The policy's folder, or its source file
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Output file of the component [default: policy.wasm in the policy's folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The input of a language's build. Paths are absolute.
#[derive(Debug)]
struct Job {
    /// The folder of the project.
    project: PathBuf,
    /// The source file, if one was named instead of the folder.
    source: Option<PathBuf>,
    /// The output file of the component. Its folder exists.
    output: PathBuf,
}

/// The supported languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    TypeScript,
    Python,
    Go,
    C,
    Zig,
}

pub fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let (job, language) = plan(&args.path, args.output.as_deref())?;
    let build = match language {
        Language::Rust => rust::build,
        Language::TypeScript => typescript::build,
        Language::Python => python::build,
        Language::Go => go::build,
        Language::C => c::build,
        Language::Zig => zig::build,
    };
    build(&job)?;
    let size = std::fs::metadata(&job.output).with_context(|| format!("reading {}", job.output.display()))?.len();
    println!("{} ({size} bytes)", job.output.display());
    Ok(())
}

fn plan(path: &Path, output: Option<&Path>) -> anyhow::Result<(Job, Language)> {
    let resolved = path.canonicalize().with_context(|| format!("policy build: {}", path.display()))?;
    let source = resolved.is_file().then(|| resolved.clone());
    let project = match &source {
        Some(file) => file.parent().unwrap_or(Path::new("/")).to_path_buf(),
        None => resolved,
    };
    let language = match &source {
        Some(file) => file_language(file),
        None => folder_language(&project)?,
    };
    let Some(language) = language else {
        bail!(
            "policy build: {}: cannot detect the language: a policy has a Cargo.toml (Rust), a package.json or a .ts or .js file \
             (TypeScript, JavaScript), a pyproject.toml or a .py file (Python), a go.mod (Go), a .c file (C) or a .zig file (Zig)",
            path.display()
        );
    };
    let output = match output {
        Some(file) => std::path::absolute(file)?,
        None => project.join("policy.wasm"),
    };
    let folder = output.parent().unwrap_or(Path::new("/"));
    ensure!(folder.is_dir(), "policy build: --output: the folder {} does not exist", folder.display());
    Ok((Job { project, source, output }, language))
}

fn file_language(file: &Path) -> Option<Language> {
    match file.extension()?.to_str()? {
        "rs" => Some(Language::Rust),
        "ts" | "tsx" | "mts" | "cts" | "js" | "jsx" | "mjs" | "cjs" => Some(Language::TypeScript),
        "py" => Some(Language::Python),
        "go" => Some(Language::Go),
        "c" => Some(Language::C),
        "zig" => Some(Language::Zig),
        _ => None,
    }
}

/// The language of a folder's manifest, else of its source files if they have one language.
fn folder_language(folder: &Path) -> anyhow::Result<Option<Language>> {
    let manifests = [
        ("Cargo.toml", Language::Rust),
        ("go.mod", Language::Go),
        ("package.json", Language::TypeScript),
        ("pyproject.toml", Language::Python),
    ];
    if let Some((_, language)) = manifests.into_iter().find(|(file, _)| folder.join(file).is_file()) {
        return Ok(Some(language));
    }
    let mut languages = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        if let Some(language) = file_language(&entry?.path())
            && !languages.contains(&language)
        {
            languages.push(language);
        }
    }
    Ok(if let [language] = languages[..] { Some(language) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_is_detected_from_manifest_or_sources() {
        for (files, language) in [
            (&["Cargo.toml", "build.py"][..], Some(Language::Rust)),
            (&["package.json"], Some(Language::TypeScript)),
            (&["route.ts"], Some(Language::TypeScript)),
            (&["pyproject.toml", "app.py"], Some(Language::Python)),
            (&["app.py"], Some(Language::Python)),
            (&["go.mod", "main.go"], Some(Language::Go)),
            (&["Makefile", "policy.c", "test_policy.c"], Some(Language::C)),
            (&["policy.zig"], Some(Language::Zig)),
            (&["a.py", "b.c"], None),
            (&["README.md"], None),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            for file in files {
                std::fs::write(folder.path().join(file), "").expect("a file");
            }
            assert_eq!(folder_language(folder.path()).expect("readable"), language, "{files:?}");
        }
    }
}
