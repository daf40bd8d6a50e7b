//! `tidegate policy new`: writes a project from the example in its language. The project builds and passes its test cases.

mod template;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::commands::policy::language::Language;
use crate::commands::print_text;
use crate::util::files;

#[derive(Debug, Args)]
pub struct NewArgs {
    /// The project's folder; its last part is the policy's name
    dir: PathBuf,
    /// The programming language
    #[arg(long, value_enum)]
    lang: Language,
    /// The example to start from: `session` allows all channels to clients with a session, `user` allows users their own
    /// channels, and `role` also has channels of admins and teams
    #[arg(long, value_enum, default_value = "role")]
    pattern: Pattern,
}

/// The access rules of the example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pattern {
    Session,
    User,
    Role,
}

pub fn run(args: &NewArgs) -> Result<()> {
    let name = name(&args.dir, args.lang)?;
    ensure_empty(&args.dir)?;
    for (path, bytes) in template::files(args.lang, args.pattern, &name)? {
        let path = args.dir.join(path);
        let folder = path.parent().unwrap_or(&args.dir);
        fs::create_dir_all(folder).with_context(|| format!("policy new: creating {}", folder.display()))?;
        fs::write(&path, bytes).with_context(|| format!("policy new: writing {}", path.display()))?;
    }
    let dir = args.dir.display();
    print_text(&format!(
        "{dir}: a policy in {}, {}-based. Next steps:\n\n  \
         tidegate policy build {dir}\n  \
         tidegate policy test {dir}/policy.wasm\n  \
         tidegate dev --policy {dir}/policy.wasm\n",
        args.lang.title(),
        value_name(args.pattern)
    ))
}

/// The project's name, which is the folder's. It becomes the name of the language's package.
fn name(dir: &Path, lang: Language) -> Result<String> {
    // `.` has to be resolved to have a name.
    let resolved = dir.canonicalize();
    let name = dir.file_name().or_else(|| resolved.as_ref().ok()?.file_name());
    let name = name.and_then(|name| name.to_str()).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(is_plain)
        && !name.ends_with('-')
        && !name.contains("--")
        && name.len() <= 64;
    ensure!(
        is_good,
        "policy new: {name:?} is not a valid name for a policy: use at most 64 lower-case letters, digits and single hyphens, with a \
         letter first"
    );
    let is_in = |names: &str| names.split(' ').any(|reserved| reserved == name);
    let is_reserved = is_in(RESERVED_NAMES) || (lang == Language::Rust && is_in(RUST_KEYWORDS));
    ensure!(!is_reserved, "policy new: {name:?} is a reserved name of a toolchain: give the folder another name");
    Ok(name.to_owned())
}

/// Names of a project's dependencies and folders, and of standard libraries.
const RESERVED_NAMES: &str = "alloc core form-urlencoded main node-modules proc-macro sdk serde serde-json std test tests \
                              tidegate-policy wit-bindgen";

/// Keywords of Rust, which cannot be names of crates.
const RUST_KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final fn \
                             for gen if impl in let loop macro match mod move mut override priv pub ref return self static struct \
                             super trait true try type typeof unsafe unsized use virtual where";

fn ensure_empty(dir: &Path) -> Result<()> {
    let entries = files::if_exists(fs::read_dir(dir)).with_context(|| format!("policy new: {}", dir.display()))?;
    let is_empty = entries.is_none_or(|mut entries| entries.next().is_none());
    ensure!(is_empty, "policy new: {} is not empty: name a new folder", dir.display());
    Ok(())
}

/// The name of a language or a pattern on the command line and in the names of folders.
fn value_name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
