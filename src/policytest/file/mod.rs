//! Reads a file of test cases. `docs/policies/testing.md` describes the format.

pub(crate) mod check;
pub(crate) mod file_access;
pub(crate) mod schema;

use crate::policytest::file::file_access::FileAccess;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::policytest::{CasesError, TestSuite};
use crate::util::files;

/// Largest file of test cases in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// The default name of the file, next to the component.
pub const NAME: &str = "cases.toml";
/// The path of a request whose case sets none.
pub const DEFAULT_PATH: &str = "/api/realtime";

pub fn load(path: &Path) -> Result<TestSuite, CasesError> {
    let text = files::read_text(path, MAX_FILE_BYTES)
        .map_err(|error| CasesError(format!("{}: cannot be read: {error}", path.display())))?;
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
        let place = start.map(|start| format!(":{}", line(text, start))).unwrap_or_default();
        let case =
            start.and_then(|start| name_at(text, start)).map(|name| format!(" case {name:?}:")).unwrap_or_default();
        CasesError(format!("{file}{place}:{case} {}", error.message()))
    })?;
    let suite = check::suite(raw, access, &|start| line(text, start));
    suite.map_err(|error| match error {
        check::SuiteError::File(message) => CasesError(format!("{file}: {message}")),
        check::SuiteError::Case { line, name, message } => {
            CasesError(format!("{file}:{line}: case {name:?}: {message}"))
        }
    })
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
