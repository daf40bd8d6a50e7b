//! `multipart/form-data`.

use crate::bindings::Failure;

/// A part of a form: a field, or a file if it has a file name.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub file_name: Option<String>,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
}

/// Parses a body with this boundary.
pub fn parse(body: &[u8], boundary: &str) -> Result<Vec<Part>, Failure> {
    parts(body, boundary).ok_or_else(|| Failure::new("TypeError", "Failed to parse body as FormData."))
}

fn parts(body: &[u8], boundary: &str) -> Option<Vec<Part>> {
    let opening = format!("--{boundary}");
    let separator = format!("\r\n--{boundary}");
    let mut found = Vec::new();
    let mut rest = &body[find(body, opening.as_bytes())? + opening.len()..];
    loop {
        if rest.starts_with(b"--") {
            return Some(found);
        }
        // Blanks may follow a boundary.
        let line_end = find(rest, b"\r\n")?;
        if !rest[..line_end].iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return None;
        }
        rest = &rest[line_end + 2..];
        let (mut part, after) = head(rest)?;
        let end = if after.starts_with(opening.as_bytes()) { 0 } else { find(after, separator.as_bytes())? };
        part.body = after[..end].to_vec();
        found.push(part);
        rest = &after[end + if after[end..].starts_with(b"\r\n") { separator.len() } else { opening.len() }..];
    }
}

/// The header lines of a part, and what follows them.
fn head(mut rest: &[u8]) -> Option<(Part, &[u8])> {
    let (mut disposition, mut content_type) = (None, None);
    loop {
        let end = find(rest, b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-disposition") {
            disposition = Some(value);
        } else if name.eq_ignore_ascii_case(b"content-type") {
            content_type = Some(super::encoding::latin1(value));
        }
    }
    let parameters = disposition?.strip_prefix(b"form-data")?;
    let name = parameter(parameters, b"name")?;
    Some((Part { name, file_name: parameter(parameters, b"filename"), content_type, body: Vec::new() }, rest))
}

/// A quoted or plain parameter of `; name="a"; filename=b`. Quotes and line ends in it are escaped with percents.
fn parameter(mut text: &[u8], wanted: &[u8]) -> Option<String> {
    while let Some(rest) = text.trim_ascii_start().strip_prefix(b";") {
        let rest = rest.trim_ascii_start();
        let equals = rest.iter().position(|&byte| byte == b'=')?;
        let name = rest[..equals].trim_ascii();
        let value = &rest[equals + 1..];
        let (value, after) = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = quoted.iter().position(|&byte| byte == b'"')?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => value.split_at(value.iter().position(|&byte| byte == b';').unwrap_or(value.len())),
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(unescape(&String::from_utf8_lossy(value)));
        }
        text = after;
    }
    None
}

fn unescape(text: &str) -> String {
    text.replace("%0A", "\n").replace("%0a", "\n").replace("%0D", "\r").replace("%0d", "\r").replace("%22", "\"")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str) -> Result<Vec<Part>, Failure> {
        parse(body.replace('\n', "\r\n").as_bytes(), "b")
    }

    #[test]
    fn fields_differ_from_files() {
        let parts = check(
            "--b\nContent-Disposition: form-data; name=\"a %22\"\n\none\ntwo\n--b\ncontent-disposition: form-data; name=f; filename=\"ü.txt\"\nContent-Type: text/x\n\n\n--b--\n",
        )
        .expect("valid");
        let expected = [
            Part { name: "a \"".into(), file_name: None, content_type: None, body: b"one\r\ntwo".to_vec() },
            Part {
                name: "f".into(),
                file_name: Some("ü.txt".into()),
                content_type: Some("text/x".into()),
                body: Vec::new(),
            },
        ];
        assert_eq!(parts, expected);
        assert_eq!(check("--b--\n"), Ok(Vec::new()));
    }

    #[test]
    fn incomplete_form_is_refused() {
        let bodies = [
            "",
            "--b",
            "--c--",
            "--b\nContent-Disposition: form-data; name=\"a\"\n\nx",
            "--b\n\nx\n--b--",
            "--b\nContent-Disposition: form-data\n\nx\n--b--",
        ];
        for body in bodies {
            assert!(check(body).is_err(), "{body:?}");
        }
    }
}
