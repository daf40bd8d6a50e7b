//! Texts that `JSON.stringify` writes. An entry of the stream does not tell whether its text is a value as JSON or the characters of a
//! string; a text that `JSON.stringify` cannot have written is a string.

use std::fmt::Write;

use serde_json::value::RawValue;

/// The longest number is `-0.0000012345678901234567`.
const MAX_NUMBER_BYTES: usize = 25;

/// The type of a value that `JSON.stringify` may have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    Null,
    Boolean,
    Number,
    String,
    /// An object or an array.
    Structure,
}

/// The type of the value whose JSON this text is; `None` if `JSON.stringify` does not write it.
///
/// A text without structure must have exactly the form that `JSON.stringify` gives to its value: `1.10`, `1e5`, 21 digits or ` 42` would
/// be replayed as other characters. Objects and arrays may have any form, because other libraries write them with spaces, and they keep
/// their text.
pub fn json_type(text: &str) -> Option<JsonType> {
    match text.as_bytes() {
        b"null" => Some(JsonType::Null),
        b"true" | b"false" => Some(JsonType::Boolean),
        [b'"', ..] => is_string(text).then_some(JsonType::String),
        [b'-' | b'0'..=b'9', ..] => is_number(text).then_some(JsonType::Number),
        [b'{' | b'[' | b' ' | b'\t' | b'\n' | b'\r', ..] => {
            let is_structure = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with(['{', '[']);
            (is_structure && serde_json::from_str::<&RawValue>(text).is_ok()).then_some(JsonType::Structure)
        }
        _ => None,
    }
}

/// Whether `JSON.stringify` writes this text for a string: it escapes what JSON requires, in one form each, and lone surrogates.
fn is_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut rest = inner.as_bytes();
    // The last escape was that of a lone leading surrogate: that of a trailing one would make a pair of them.
    let mut after_leading = false;
    while let Some((byte, tail)) = rest.split_first() {
        let was_after_leading = std::mem::take(&mut after_leading);
        rest = match (byte, tail) {
            (b'\\', [b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't', tail @ ..]) => tail,
            (b'\\', [b'u', a, b, c, d, tail @ ..]) => {
                match lower_case_hex([*a, *b, *c, *d]) {
                    Some(0x08 | 0x09 | 0x0a | 0x0c | 0x0d) => return false,
                    Some(0..=0x1f) => {}
                    Some(0xd800..=0xdbff) => after_leading = true,
                    Some(0xdc00..=0xdfff) if !was_after_leading => {}
                    _ => return false,
                }
                tail
            }
            (b'\\' | b'"' | 0..=0x1f, _) => return false,
            (_, tail) => tail,
        };
    }
    true
}

fn lower_case_hex(digits: [u8; 4]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u32::from(digit))
    })
}

/// Whether `JSON.stringify` writes this text for a number.
fn is_number(text: &str) -> bool {
    text.len() <= MAX_NUMBER_BYTES
        && text.parse().is_ok_and(|number: f64| number.is_finite() && number_text(number) == text)
}

/// A finite number in the form of JavaScript: `Number::toString` of ECMA-262, whose names these are.
fn number_text(number: f64) -> String {
    // The fewest digits that tell the number from others, as `d.ddde-7`.
    let scientific = format!("{:e}", number.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let k = digits.len() as i32;
    let n = exponent.parse::<i32>().unwrap_or(0) + 1;
    let mut text = String::with_capacity(MAX_NUMBER_BYTES);
    if number < 0.0 {
        text.push('-');
    }
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    // Writing to memory does not fail.
    let _ = match n {
        1..=21 if k <= n => write!(text, "{digits}{}", zeros(n - k)),
        1..=21 => {
            let (whole, fraction) = digits.split_at(n as usize);
            write!(text, "{whole}.{fraction}")
        }
        -5..=0 => write!(text, "0.{}{digits}", zeros(-n)),
        _ => write!(text, "{mantissa}e{:+}", n - 1),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_type_of_the_value_that_json_stringify_writes() {
        let check = |texts: &[&str], expect: Option<JsonType>| {
            for text in texts {
                assert_eq!(json_type(text), expect, "{text:?}");
            }
        };
        check(&["null"], Some(JsonType::Null));
        check(&["true", "false"], Some(JsonType::Boolean));
        let numbers = [
            "0",
            "7",
            "-7",
            "42",
            "1.5",
            "-0.1",
            "100",
            "9007199254740992",
            "123456789012345680000",
            "-123456789012345680000",
            "1e+21",
            "1.5e+300",
            "0.000001",
            "1e-7",
            "-1.5e-7",
            "5e-324",
            "1.7976931348623157e+308",
            "-0.0000012345678901234567",
            "0.1",
            "4.35",
            "2.5e-7",
            "1000000000000000100",
        ];
        check(&numbers, Some(JsonType::Number));
        check(&[r#""""#, r#""a""#, "\"é 🎉 / \u{7f}\""], Some(JsonType::String));
        let strings = [
            r#""\"\\\b\f\n\r\t""#,
            r#""\u0000\u001f\u000b""#,
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud83d🎉""#,
            r#""\udc00\ud800""#,
            r#""\ud800\ud800""#,
            r#""\ud800x\udc00""#,
            "\"\u{2028}\"",
        ];
        check(&strings, Some(JsonType::String));
        let structures = ["{}", "[]", r#"{"a":1}"#, r#"{"a": 1.10}"#, "[1, 2]", " [\n]\n", r#"{"a":"\/"}"#];
        check(&structures, Some(JsonType::Structure));
        let other_numbers = [
            "-0",
            "1.10",
            "1.0",
            "007",
            "1e5",
            "1E+21",
            "1e21",
            "1e+5",
            "0.0000001",
            "1e-07",
            "106242075399214372653",
            "9007199254740993",
            "1e400",
            "-",
            "+1",
            ".5",
            "1.",
            "1_000",
            "0x10",
            "123456789012345680001",
            "1e-400",
            "100000000000000000000000000",
            "00",
            "-007",
            "1 ",
            " 42",
            "NaN",
            "Infinity",
            "-Infinity",
            "inf",
            "nan",
        ];
        check(&other_numbers, None);
        let other_strings = [
            r#"""#,
            r#""a"#,
            r#""a" "#,
            r#" "a""#,
            r#""a"b""#,
            r#""\u0041""#,
            r#""\/""#,
            r#""\u001F""#,
            r#""\u000a""#,
            r#""\u00e9""#,
            r#""\ud83d\ude00""#,
            r#""\x""#,
            r#""\u12""#,
            "\"\n\"",
            r#""\"#,
            r#""\ud800\udc00""#,
        ];
        check(&other_strings, None);
        check(&["", " ", "hello", "True", "NULL", "null ", "undefined", "{broken", "{a:1}", "[1,]", "[1] x"], None);
    }

    #[test]
    fn numbers_that_javascript_writes_are_numbers() {
        use rand::{RngExt, SeedableRng};
        let mut rng = rand::rngs::StdRng::seed_from_u64(12);
        for _ in 0..20_000 {
            let number = f64::from_bits(rng.random());
            if number.is_finite() {
                let text = number_text(number);
                assert_eq!(text.parse(), Ok(number), "{text}");
                assert_eq!(json_type(&text), Some(JsonType::Number), "{text}");
            }
        }
    }
}
