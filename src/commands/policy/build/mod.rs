//! `tidegate policy build`: runs the toolchain of a policy's language. One file per language; Zig shares that of C.

mod c;
mod go;
mod python;
mod rust;
mod tools;
mod typescript;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::commands::policy::language::Language;

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
    /// Value of process.env.NODE_ENV in packages, and in a policy without this setting [default: production]
    #[arg(long, value_name = "VALUE")]
    node_env: Option<NodeEnv>,
}

/// The values of `NODE_ENV` that packages know.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum NodeEnv {
    Production,
    Development,
    Test,
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

pub fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let (job, language) = plan(&args.path, args.output.as_deref())?;
    ensure!(
        args.node_env.is_none() || language == Language::TypeScript,
        "policy build: --node-env is for TypeScript and JavaScript"
    );
    match language {
        Language::Rust => rust::build(&job),
        Language::TypeScript => typescript::build(&job, node_env(args.node_env)),
        Language::Python => python::build(&job),
        Language::Go => go::build(&job),
        Language::C => c::build(&job),
        Language::Zig => c::build_zig(&job),
    }?;
    let size = std::fs::metadata(&job.output).with_context(|| format!("reading {}", job.output.display()))?.len();
    println!("{} ({size} bytes)", job.output.display());
    Ok(())
}

fn node_env(value: Option<NodeEnv>) -> &'static str {
    match value {
        None | Some(NodeEnv::Production) => "production",
        Some(NodeEnv::Development) => "development",
        Some(NodeEnv::Test) => "test",
    }
}

fn plan(path: &Path, output: Option<&Path>) -> anyhow::Result<(Job, Language)> {
    let named = || format!("policy build: {}", path.display());
    let resolved = path.canonicalize().with_context(named)?;
    let (project, source, language) = if resolved.is_file() {
        let language = Language::of_file(&resolved);
        (resolved.parent().unwrap_or(Path::new("/")).to_owned(), Some(resolved), language)
    } else {
        let language = Language::of_folder(&resolved).with_context(named)?;
        (resolved, None, language)
    };
    let language = language.with_context(|| {
        format!(
            "policy build: {}: cannot detect the language: a policy has a Cargo.toml (Rust), a package.json or a .ts or .js file \
             (TypeScript, JavaScript), a pyproject.toml or a .py file (Python), a go.mod (Go), a .c file (C) or a .zig file (Zig)",
            path.display()
        )
    })?;
    let output = output.map_or_else(|| Ok(project.join("policy.wasm")), std::path::absolute)?;
    let folder = output.parent().unwrap_or(Path::new("/"));
    ensure!(folder.is_dir(), "policy build: --output: the folder {} does not exist", folder.display());
    Ok((Job { project, source, output }, language))
}
