//! Values that refer to where the secret is: `${NAME}` is a variable of the environment, `${file:/path}` a file's text, `$$` a
//! dollar. What is wrong is said without a word of the value.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::util::files;

/// A larger file is no value.
const MAX_FILE: u64 = 64 << 10;

/// Why a value cannot be made out.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// A dollar without sense.
    #[error("a $ that begins neither ${{NAME}} nor ${{file:/path}}; a dollar is written $$")]
    Dollar,
    /// No brace at the end.
    #[error("a ${{ without its }}")]
    Open,
    /// The environment has no such variable.
    #[error("the environment has no variable {0}")]
    NoVariable(String),
    /// The variable is not Unicode.
    #[error("the variable {0} is not Unicode")]
    NotUnicode(String),
    /// There is no such file.
    #[error("the file {0}: {1}")]
    File(String, std::io::Error),
    /// The file is no text of a sensible size.
    #[error("the file {0}: it has to be text of at most 64 KiB")]
    NotText(String),
}

/// Puts in place of references what they stand for.
pub fn resolve(text: &str) -> Result<String, ReferenceError> {
    let mut value = String::new();
    walk(text, |part| {
        match part {
            Part::Text(text) => value.push_str(text),
            Part::Dollar => value.push('$'),
            Part::Variable(name) => value.push_str(&variable(name)?),
            Part::File(path) => value.push_str(&file(path)?),
        }
        Ok(())
    })?;
    Ok(value)
}

/// The files that a text refers to. Of one that is not valid there are none: [`resolve`] says why.
pub fn files(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let walked = walk(text, |part| {
        if let Part::File(path) = part {
            files.push(PathBuf::from(path));
        }
        Ok(())
    });
    if walked.is_ok() { files } else { Vec::new() }
}

/// The same text with its files meant from a folder. One that is not valid stays as it is: [`resolve`] says why.
pub fn from_folder(text: &str, folder: &Path) -> String {
    let mut moved = String::new();
    let walked = walk(text, |part| {
        match part {
            Part::Text(text) => moved.push_str(text),
            Part::Dollar => moved.push_str("$$"),
            Part::Variable(name) => moved.push_str(&format!("${{{name}}}")),
            Part::File(path) => moved.push_str(&format!("${{file:{}}}", folder.join(path).to_string_lossy())),
        }
        Ok(())
    });
    if walked.is_ok() { moved } else { text.to_owned() }
}

enum Part<'a> {
    Text(&'a str),
    Dollar,
    Variable(&'a str),
    File(&'a str),
}

fn walk<'a>(
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
            // A name that could be none may be a secret with a dollar in it, so it is not told.
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

fn variable(name: &str) -> Result<String, ReferenceError> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => ReferenceError::NoVariable(name.into()),
        std::env::VarError::NotUnicode(_) => ReferenceError::NotUnicode(name.into()),
    })
}

/// The text of a file, less the newline at its end.
fn file(path: &str) -> Result<String, ReferenceError> {
    let mut text = files::read_text(Path::new(path), MAX_FILE).map_err(|error| match error.kind() {
        ErrorKind::FileTooLarge | ErrorKind::InvalidData => ReferenceError::NotText(path.into()),
        _ => ReferenceError::File(path.into(), error),
    })?;
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
    fn references() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).expect("a file");
        write("key", b"s3cret\n");
        write("two", b"a\n\n");
        write("dos", b"a\r\n");
        write("bin", b"\xff");
        write("large", &vec![b'x'; 65 << 10]);
        let get = |text: &str| resolve(&from_folder(text, folder.path()));
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
