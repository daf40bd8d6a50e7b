//! Names and values of headers.

/// A valid name in lower case.
pub fn name(name: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_token)).then(|| name.to_ascii_lowercase())
}

/// Whether a value is valid as it is: visible characters of ASCII, with blanks only inside.
pub fn is_plain_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let is_visible = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    is_visible(bytes.first())
        && is_visible(bytes.last())
        && bytes.iter().all(|&byte| byte == b' ' || byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_a_token() {
        assert_eq!(name("X-Request_id").as_deref(), Some("x-request_id"));
        for invalid in ["", "a b", "a:", "\u{e4}", "a\n"] {
            assert_eq!(name(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn plain_value_needs_no_change() {
        assert!(is_plain_value("text/html; q=0.5"));
        for other in ["", " a", "a ", "a\tb", "a\nb", "\u{e4}"] {
            assert!(!is_plain_value(other), "{other:?}");
        }
    }
}
