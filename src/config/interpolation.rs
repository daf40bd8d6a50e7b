//! References to secrets in values: `${NAME}` is an environment variable, `${file:/path}` the content of a file, `$$` a dollar.
//! Errors never contain the value.

use std::env::{self, VarError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::util::files;

/// Maximum size of a file with a secret.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Why a reference cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error("a $ that begins neither ${{NAME}} nor ${{file:/path}}: write a dollar as $$")]
    Dollar,
    #[error("a ${{ without its }}")]
    Open,
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error("the environment variable {0} is not Unicode")]
    NotUnicode(String),
    #[error("the file {0} cannot be read: {1}")]
    File(String, io::Error),
    #[error("the file {0}: must be UTF-8 text of at most 64 KiB")]
    NotText(String),
}

/// A part of a value with references.
enum Part<'a> {
    Text(&'a str),
    Dollar,
    Variable(&'a str),
    File(&'a str),
}

/// Replaces references with what they refer to.
pub fn resolve(text: &str) -> Result<String, ReferenceError> {
    let resolve_part = |part| match part {
        Part::Text(text) => Ok(text.to_owned()),
        Part::Dollar => Ok("$".to_owned()),
        Part::Variable(name) => read_variable(name),
        Part::File(path) => read_file(path),
    };
    parse(text)?.into_iter().map(resolve_part).collect()
}

/// The files that a text refers to; none if it is invalid, as [`resolve`] reports.
pub fn list_files(text: &str) -> Vec<PathBuf> {
    let file = |part| if let Part::File(path) = part { Some(path.into()) } else { None };
    parse(text).into_iter().flatten().filter_map(file).collect()
}

/// The text with its files relative to a directory; unchanged if it is invalid, as [`resolve`] reports.
pub fn rebase_files(text: &str, folder: &Path) -> String {
    let rebase_part = |part| match part {
        Part::Text(text) => text.to_owned(),
        Part::Dollar => "$$".to_owned(),
        Part::Variable(name) => format!("${{{name}}}"),
        Part::File(path) => format!("${{file:{}}}", folder.join(path).to_string_lossy()),
    };
    parse(text).map_or_else(|_| text.to_owned(), |parts| parts.into_iter().map(rebase_part).collect())
}

fn parse(mut text: &str) -> Result<Vec<Part<'_>>, ReferenceError> {
    let mut parts = Vec::new();
    while let Some((before, after)) = text.split_once('$') {
        parts.push(Part::Text(before));
        if let Some(rest) = after.strip_prefix('$') {
            parts.push(Part::Dollar);
            text = rest;
            continue;
        }
        let inner = after.strip_prefix('{').ok_or(ReferenceError::Dollar)?;
        let (inner, rest) = inner.split_once('}').ok_or(ReferenceError::Open)?;
        parts.push(match inner.strip_prefix("file:") {
            Some(path) => Part::File(path),
            None if is_name(inner) => Part::Variable(inner),
            // The error does not contain the name, which may be a part of a secret with a dollar in it.
            None => return Err(ReferenceError::Dollar),
        });
        text = rest;
    }
    parts.push(Part::Text(text));
    Ok(parts)
}

fn is_name(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| is_word(c) && !c.is_ascii_digit()) && text.chars().all(is_word)
}

fn read_variable(name: &str) -> Result<String, ReferenceError> {
    env::var(name).map_err(|error| match error {
        VarError::NotPresent => ReferenceError::NoVariable(name.into()),
        VarError::NotUnicode(_) => ReferenceError::NotUnicode(name.into()),
    })
}

/// The content of a file, without the newline at its end.
fn read_file(path: &str) -> Result<String, ReferenceError> {
    let text = files::read_text(Path::new(path), MAX_FILE_BYTES).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge | ErrorKind::InvalidData => ReferenceError::NotText(path.into()),
        _ => ReferenceError::File(path.into(), error),
    })?;
    Ok(text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_or_rejected() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).expect("a file");
        write("key", b"s3cret\n");
        write("two", b"a\n\n");
        write("dos", b"a\r\n");
        write("bin", b"\xff");
        write("large", &vec![b'x'; 65 << 10]);
        let get = |text: &str| resolve(&rebase_files(text, folder.path()));
        // Cargo sets this for every test.
        let version = env!("CARGO_PKG_VERSION");
        for (text, value) in [
            ("", ""),
            ("plain", "plain"),
            ("a$$b$$", "a$b$"),
            ("$${HOME}", "${HOME}"),
            ("${file:key}", "s3cret"),
            ("<${file:two}>", "<a\n>"),
            ("${file:dos}", "a"),
            ("${CARGO_PKG_VERSION}", version),
            ("v${CARGO_PKG_VERSION}-${file:key}$$", &format!("v{version}-s3cret$")),
        ] {
            assert_eq!(get(text).expect(text), value, "{text}");
        }
        for (text, says) in [
            ("pa$word", "$$"),
            ("$", "$$"),
            ("${", "without its }"),
            ("${hunter2", "without its }"),
            ("${hunter 2}", "$$"),
            ("${}", "$$"),
            ("${TIDEGATE_TEST_NOWHERE}", "TIDEGATE_TEST_NOWHERE"),
            ("${file:nowhere}", "nowhere"),
            ("${file:bin}", "text"),
            ("${file:large}", "64 KiB"),
        ] {
            let error = get(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("hunter"), "{text}: {error}");
        }
    }
}
