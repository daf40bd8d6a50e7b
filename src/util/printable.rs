//! Texts of others on a terminal: from the store, from a gateway, from clients and from recordings.

use std::borrow::Cow;
use std::fmt::Write;

/// A text in one line that a terminal shows as it is. Characters that could move the cursor, change the direction of the text, or be
/// invisible are escaped, as `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, &[], |c, escaped| escaped.extend(c.escape_default()))
}

/// The same for a text of several lines that a command has composed: line feeds and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, &['\n', '\t'], |c, escaped| escaped.extend(c.escape_default()))
}

/// The same for JSON in one line. It stays the same JSON value: within a string the characters are escaped, as `\u009b`, and between the
/// tokens they can only be white space.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    escape(json, &[], |c, escaped| match c {
        '\n' | '\r' | '\t' => escaped.push(' '),
        c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }),
    })
}

fn escape<'a>(text: &'a str, keep: &[char], escape: impl Fn(char, &mut String)) -> Cow<'a, str> {
    let is_escaped = |c: char| is_hidden(c) && !keep.contains(&c);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if is_escaped(c) { escape(c, &mut escaped) } else { escaped.push(c) }
    }
    Cow::Owned(escaped)
}

/// Control characters, and those that Unicode defines to change how others are shown: directions, separators, invisible ones and tags.
const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_escaped_and_others_stay() {
        for plain in ["", "alice", "Ünïcødé \"quoted\" \\u{1b}", "日本語 🙂", "אבג"] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain), "{plain:?}");
        }
        for (text, expect) in [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("user\u{202e}nimda", "user\\u{202e}nimda"),
            ("a\u{200b}b\u{2028}c\u{feff}\u{e0041}", "a\\u{200b}b\\u{2028}c\\u{feff}\\u{e0041}"),
        ] {
            assert_eq!(printable(text), expect);
        }
        assert_eq!(printable_lines("a\n\tb\u{1b}\r\n"), "a\n\tb\\u{1b}\\r\n");
    }

    #[test]
    fn json_keeps_its_value() {
        let text = "\u{1b}[2J\u{9b}\u{7f}\u{202e}\u{e0041}\n\"\\";
        let json = format!("{{\n\t\"data\": {}\r\n}}", serde_json::json!(text));
        let shown = printable_json(&json);
        assert!(!shown.contains(is_hidden), "{shown:?}");
        let value: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(value["data"], text);
    }
}
