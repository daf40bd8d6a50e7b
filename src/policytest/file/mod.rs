//! Reads a file of cases. `docs/policies.md` says how one is written.

pub(crate) mod check;
pub(crate) mod reach;
pub(crate) mod schema;

use crate::policytest::file::reach::FileAccess;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::policytest::{CasesError, TestSuite};
use crate::util::files;

/// The file that lies beside a component, unless another is named.
pub const NAME: &str = "cases.toml";
/// A larger file of cases is not read.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// The path of a request whose case names none.
pub const PATH: &str = "/api/realtime";

/// Reads a file of cases.
pub fn load(path: &Path) -> Result<TestSuite, CasesError> {
    let text = files::read_text(path, MAX_FILE_BYTES)
        .map_err(|error| CasesError(format!("{}: cannot be read: {error}", path.display())))?;
    parse(path, &text)
}

/// Reads cases; `path` is for errors, which name the file, the line, the case and the key. Files of keys are meant from its folder.
pub fn parse(path: &Path, text: &str) -> Result<TestSuite, CasesError> {
    parse_within(path, text, FileAccess::Anywhere(path.parent().unwrap_or(Path::new(""))))
}

/// The same for cases that may name only some files.
pub fn parse_within(path: &Path, text: &str, reach: FileAccess<'_>) -> Result<TestSuite, CasesError> {
    let file = path.display();
    let raw: schema::File = toml::from_str(text).map_err(|error| {
        let start = error.span().map(|span| span.start);
        let place = start.map(|start| format!(":{}", line(text, start))).unwrap_or_default();
        let case =
            start.and_then(|start| name_at(text, start)).map(|name| format!(" case {name:?}:")).unwrap_or_default();
        CasesError(format!("{file}{place}:{case} {}", error.message()))
    })?;
    let suite = check::suite(raw, reach, &|start| line(text, start));
    suite.map_err(|wrong| match wrong {
        check::Wrong::File(what) => CasesError(format!("{file}: {what}")),
        check::Wrong::Case { line, name, what } => CasesError(format!("{file}:{line}: case {name:?}: {what}")),
    })
}

/// The line of a place in a text, counted from 1.
fn line(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1
}

/// The name of the case that a place in a file belongs to, if so much of it can be read.
fn name_at(text: &str, place: usize) -> Option<String> {
    #[derive(Deserialize)]
    struct Cases {
        case: Vec<Spanned<Named>>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: Option<String>,
    }
    let cases = toml::from_str::<Cases>(text).ok()?.case;
    let case = cases.into_iter().take_while(|case| case.span().start <= place).last()?;
    case.into_inner().name
}
