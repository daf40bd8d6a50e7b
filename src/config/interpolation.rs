//! References to secrets in values: `${NAME}` is an environment variable, `${file:/path}` the content of a file, `$$` a dollar.
//! Errors never contain the value.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::util::files;

/// Maximum size of a file with a secret.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Why a reference cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// A dollar that begins no reference.
    #[error("a $ that begins neither ${{NAME}} nor ${{file:/path}}: write a dollar as $$")]
    Dollar,
    /// A reference without a closing brace.
    #[error("a ${{ without its }}")]
    Open,
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    /// The variable is not Unicode.
    #[error("the environment variable {0} is not Unicode")]
    NotUnicode(String),
    /// The file cannot be read.
    #[error("the file {0} cannot be read: {1}")]
    File(String, std::io::Error),
    /// The file is not UTF-8, or too large.
    #[error("the file {0}: must be UTF-8 text of at most 64 KiB")]
    NotText(String),
}

/// Replaces references with what they refer to.
pub fn resolve(text: &str) -> Result<String, ReferenceError> {
    let mut value = String::new();
    parse_parts(text, |part| {
        match part {
            Part::Text(text) => value.push_str(text),
            Part::Dollar => value.push('$'),
            Part::Variable(name) => value.push_str(&read_variable(name)?),
            Part::File(path) => value.push_str(&read_file(path)?),
        }
        Ok(())
    })?;
    Ok(value)
}

/// The files that a text refers to; none if it is invalid, as [`resolve`] reports.
pub fn list_files(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let parsed = parse_parts(text, |part| {
        if let Part::File(path) = part {
            files.push(PathBuf::from(path));
        }
        Ok(())
    });
    if parsed.is_ok() { files } else { Vec::new() }
}

/// The text with its files relative to a directory; unchanged if it is invalid, as [`resolve`] reports.
pub fn rebase_files(text: &str, folder: &Path) -> String {
    let mut moved = String::new();
    let parsed = parse_parts(text, |part| {
        match part {
            Part::Text(text) => moved.push_str(text),
            Part::Dollar => moved.push_str("$$"),
            Part::Variable(name) => moved.push_str(&format!("${{{name}}}")),
            Part::File(path) => moved.push_str(&format!("${{file:{}}}", folder.join(path).to_string_lossy())),
        }
        Ok(())
    });
    if parsed.is_ok() { moved } else { text.to_owned() }
}

/// A part of a value with references.
enum Part<'a> {
    Text(&'a str),
    Dollar,
    Variable(&'a str),
    File(&'a str),
}

/// Passes the parts of a text in order; an error of `part` ends it.
fn parse_parts<'a>(
    mut text: &'a str,
    mut part: impl FnMut(Part<'a>) -> Result<(), ReferenceError>,
) -> Result<(), ReferenceError> {
    while let Some((before, after)) = text.split_once('$') {
        part(Part::Text(before))?;
        if let Some(rest) = after.strip_prefix('$') {
            part(Part::Dollar)?;
            text = rest;
            continue;
        }
        let inner = after.strip_prefix('{').ok_or(ReferenceError::Dollar)?;
        let (inner, rest) = inner.split_once('}').ok_or(ReferenceError::Open)?;
        part(match inner.strip_prefix("file:") {
            Some(path) => Part::File(path),
            // An invalid name may be part of a secret with a dollar in it, so the error does not contain it.
            None if is_name(inner) => Part::Variable(inner),
            None => return Err(ReferenceError::Dollar),
        })?;
        text = rest;
    }
    part(Part::Text(text))
}

fn is_name(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| word(c) && !c.is_ascii_digit()) && text.chars().all(word)
}

fn read_variable(name: &str) -> Result<String, ReferenceError> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => ReferenceError::NoVariable(name.into()),
        std::env::VarError::NotUnicode(_) => ReferenceError::NotUnicode(name.into()),
    })
}

/// The content of a file, without the newline at its end.
fn read_file(path: &str) -> Result<String, ReferenceError> {
    let not_text = || ReferenceError::NotText(path.into());
    let bytes = files::read(Path::new(path), MAX_FILE_BYTES).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge => not_text(),
        _ => ReferenceError::File(path.into(), error),
    })?;
    let mut text = String::from_utf8(bytes).map_err(|_| not_text())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
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
