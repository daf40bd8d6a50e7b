//! Reads a file of test cases. `docs/policies/testing.md` describes the format.

pub(crate) mod check;
pub(crate) mod schema;

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::egress::origin::EgressOrigin;
use crate::policy::key_prefix::check_prefix;
use crate::policytest::{CasesError, Requirements, TestSuite};
use crate::util::files;

/// Largest file of test cases in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// The default name of the file, next to the component.
pub const NAME: &str = "cases.toml";

/// Where key files may be. Test cases may read any file on their author's machine. Cases that come with a policy to a gateway may come
/// from anyone, and the gateway can read files that the operator does not share.
#[derive(Clone, Copy, Debug)]
pub enum FileAccess<'a> {
    /// Anywhere; relative paths start in this directory.
    Anywhere(&'a Path),
    /// In this directory or below it.
    Below(&'a Path),
    /// Nowhere: the cases came without a directory.
    Nowhere,
}

impl FileAccess<'_> {
    /// The path to open.
    pub(super) fn resolve(self, path: &Path) -> Result<PathBuf, &'static str> {
        let is_below = || path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        match self {
            Self::Anywhere(folder) => Ok(folder.join(path)),
            Self::Below(folder) if is_below() => Ok(folder.join(path)),
            Self::Below(_) => Err("test cases in a gateway may only read files in their directory and below"),
            Self::Nowhere => {
                Err("test cases that are sent to a gateway read no files: sign their tokens with a secret")
            }
        }
    }
}

pub fn load(path: &Path) -> Result<TestSuite, CasesError> {
    let text = files::read_text(path, MAX_FILE_BYTES)
        .map_err(|error| CasesError(format!("test cases {}: cannot be read: {error}", path.display())))?;
    parse(path, &text)
}

/// Parses test cases. `path` is for errors, which name the file, the line, the case and the key. Key files are relative to its directory.
pub fn parse(path: &Path, text: &str) -> Result<TestSuite, CasesError> {
    parse_with_access(path, text, FileAccess::Anywhere(path.parent().unwrap_or(Path::new(""))))
}

/// Parses test cases that may read only some files.
pub fn parse_with_access(path: &Path, text: &str, access: FileAccess<'_>) -> Result<TestSuite, CasesError> {
    let file = path.display();
    let raw: schema::File = toml::from_str(text).map_err(|error| {
        let start = error.span().map(|span| span.start);
        let position = start.map(|start| format!(":{}", line(text, start))).unwrap_or_default();
        let case =
            start.and_then(|start| name_at(text, start)).map(|name| format!(" case {name:?}:")).unwrap_or_default();
        CasesError(format!("{file}{position}:{case} {}", error.message()))
    })?;
    if raw.case.is_empty() && raw.requires == Requirements::default() {
        return Err(CasesError(format!("{file}: there is no case: write [[case]], a name and expect.… ({NAME})")));
    }
    for url in &raw.requires.egress {
        EgressOrigin::parse(url, true)
            .map_err(|error| CasesError(format!("{file}: requires.egress: {url:?}: {error}")))?;
    }
    for prefix in &raw.requires.lookup {
        check_prefix(prefix).map_err(|error| CasesError(format!("{file}: requires.lookup: {prefix:?}: {error}")))?;
    }
    let mut names = HashSet::new();
    let mut cases = Vec::with_capacity(raw.case.len());
    for case in &raw.case {
        let (line, case) = (line(text, case.span().start), case.get_ref());
        let is_new = names.insert(&case.name);
        let checked = if is_new {
            check::case(&raw, case, line, access)
        } else {
            Err("an earlier case has the same name".into())
        };
        cases.push(checked.map_err(|message| CasesError(format!("{file}:{line}: case {:?}: {message}", case.name)))?);
    }
    Ok(TestSuite { cases, requires: raw.requires })
}

/// The line of a byte offset, counted from 1.
fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The name of the case at a byte offset, if the file can be parsed that far.
fn name_at(text: &str, offset: usize) -> Option<String> {
    #[derive(Deserialize)]
    struct Cases {
        case: Vec<Spanned<Named>>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: Option<String>,
    }
    let cases = toml::from_str::<Cases>(text).ok()?.case;
    let case = cases.into_iter().take_while(|case| case.span().start <= offset).last()?;
    case.into_inner().name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_outside_of_the_directory_are_refused() {
        let (anywhere, below) = (FileAccess::Anywhere(Path::new("/a")), FileAccess::Below(Path::new("/a")));
        let file = |access: FileAccess<'_>, path: &str| access.resolve(Path::new(path)).ok();
        for (path, expected, is_below) in [
            ("k.pem", "/a/k.pem", true),
            ("./b/k.pem", "/a/./b/k.pem", true),
            ("../k.pem", "/a/../k.pem", false),
            ("b/../../k.pem", "/a/b/../../k.pem", false),
            ("/etc/k.pem", "/etc/k.pem", false),
        ] {
            assert_eq!(file(anywhere, path), Some(expected.into()), "{path}");
            assert_eq!(file(below, path).is_some(), is_below, "{path}");
            assert_eq!(file(FileAccess::Nowhere, path), None, "{path}");
        }
    }
}
