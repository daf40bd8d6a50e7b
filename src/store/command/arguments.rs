//! The arguments of a command in JSON, and the types of the values that they tell.

use std::fmt;
use std::iter::Peekable;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::is_quoted;
use crate::store::command::MAX_ARGUMENTS;
use crate::util::stringify::{JsonType, json_type};

/// The arguments of a command. They are parsed without a [`serde_json::Value`], which takes many times the memory of a short argument.
pub(super) struct Arguments(pub Vec<Argument>);

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(ArgumentsVisitor)
    }
}

struct ArgumentsVisitor;

impl<'de> Visitor<'de> for ArgumentsVisitor {
    type Value = Arguments;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MAX_ARGUMENTS} arguments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Arguments, A::Error> {
        let mut arguments = Vec::new();
        while let Some(argument) = array.next_element::<&RawValue>()? {
            if arguments.len() == MAX_ARGUMENTS {
                return Err(A::Error::invalid_length(MAX_ARGUMENTS + 1, &self));
            }
            let argument = Argument::parse(argument.get());
            arguments.push(argument.ok_or_else(|| A::Error::custom("not a string, number, boolean or null"))?);
        }
        Ok(Arguments(arguments))
    }
}

/// One argument. Its JSON tells more than the text that Redis gets: the npm emitter sends numbers and booleans bare, and everything that
/// `JSON.stringify` has no text for as `null` (`undefined`, `NaN`).
pub(super) enum Argument {
    /// A string.
    Text(String),
    /// A string with lone surrogates, which UTF-8 cannot express.
    Surrogates {
        /// With U+FFFD for each lone surrogate.
        text: String,
        /// The string as JSON, as it was sent.
        json: String,
    },
    /// A number or a boolean, as it was sent.
    Bare(String),
    Null,
}

impl Argument {
    /// Parses valid JSON; `None` for an object or an array.
    fn parse(json: &str) -> Option<Self> {
        match json.as_bytes() {
            b"null" => Some(Self::Null),
            [b'{' | b'[', ..] => None,
            // The only strings that this refuses have lone surrogates.
            [b'"', ..] => match serde_json::from_str(json) {
                Ok(text) => Some(Self::Text(text)),
                Err(_) => Some(Self::Surrogates { text: lossy_text(json)?, json: json.to_owned() }),
            },
            _ => Some(Self::Bare(json.to_owned())),
        }
    }

    /// The characters of the argument; none for `null`.
    pub fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Surrogates { text, .. } | Self::Bare(text) => Some(text),
            Self::Null => None,
        }
    }
}

/// The characters of a JSON string, with U+FFFD for each lone surrogate.
fn lossy_text(json: &str) -> Option<String> {
    /// The characters as serde_json has them: in UTF-8, with surrogates as if they were characters.
    struct Bytes(Vec<u8>);

    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_byte_buf(BytesVisitor)
        }
    }

    struct BytesVisitor;

    impl Visitor<'_> for BytesVisitor {
        type Value = Bytes;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
            Ok(Bytes(bytes.to_owned()))
        }
    }

    let Bytes(bytes) = serde_json::from_str(json).ok()?;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // The first of the three bytes of a surrogate; the others are invalid, too.
        if chunk.invalid().first() == Some(&0xed) {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Some(text)
}

pub(super) type Args = std::vec::IntoIter<Argument>;

/// The characters of the next argument.
pub(super) fn next_text(args: &mut impl Iterator<Item = Argument>) -> Option<String> {
    args.next()?.into_text()
}

/// The next argument, if it is this option.
pub(super) fn next_option(args: &mut Peekable<Args>, names: &[&str]) -> Option<String> {
    let is_option = |arg: &Argument| matches!(arg, Argument::Text(text) if names.iter().any(|name| text.eq_ignore_ascii_case(name)));
    args.next_if(is_option)?.into_text()
}

/// The fields of an entry. An event gets a field `type`, as those of Tidegate's own emitter, where the texts alone do not tell which
/// value was sent, and the arguments do.
pub(super) fn entry_fields(arguments: Vec<(String, Argument)>) -> Vec<(String, String)> {
    // The last field of a name counts.
    let find = |field: &str| arguments.iter().rev().find(|(name, _)| name == field).map(|(_, argument)| argument);
    let added = match (find("event"), find("type")) {
        (Some(event), None) => event_type(event, find("data")),
        _ => None,
    };
    let text_of = |name: &str, argument| match argument {
        Argument::Surrogates { json, .. } if added == Some("json") && name == "data" => json,
        Argument::Text(text) | Argument::Surrogates { text, .. } | Argument::Bare(text) => text,
        Argument::Null => "null".to_owned(),
    };
    let fields = arguments.into_iter().map(|(name, argument)| {
        let text = text_of(&name, argument);
        (name, text)
    });
    fields.chain(added.map(|added| ("type".to_owned(), added.to_owned()))).collect()
}

/// The type of an event's data, if the entry needs it. Nothing tells the type of a string that `JSON.stringify` writes for an object, an
/// array, `null` or a value with a method `toJSON`, such as a date: the npm emitter sends these as strings.
fn event_type(event: &Argument, data: Option<&Argument>) -> Option<&'static str> {
    let is_name_ambiguous = matches!(event, Argument::Text(text) if is_quoted(text));
    match data {
        Some(Argument::Bare(_) | Argument::Null | Argument::Surrogates { .. }) => Some("json"),
        Some(Argument::Text(text)) => match json_type(text) {
            Some(JsonType::Number | JsonType::Boolean) => Some("string"),
            Some(JsonType::Null | JsonType::String | JsonType::Structure) => None,
            None => is_name_ambiguous.then_some("string"),
        },
        None => is_name_ambiguous.then_some("json"),
    }
}

#[cfg(test)]
mod tests {
    use crate::store::command::RestCommand;

    /// The fields of an entry that is added with these arguments after its id.
    fn added(arguments: &str) -> Vec<(String, String)> {
        match RestCommand::parse(&format!(r#"["XADD", "c", "*", {arguments}]"#)) {
            Ok(RestCommand::Add { fields, .. }) => fields,
            other => panic!("{arguments}: {other:?}"),
        }
    }

    #[test]
    fn events_get_the_type_of_their_data_where_only_the_arguments_tell_it() {
        let check = |argument: &str, text: &str, expect: Option<&str>| {
            let fields = added(&format!(r#""data", {argument}, "event", "e", "channel", "c""#));
            let find = |field: &str| fields.iter().find(|(name, _)| name == field).map(|(_, value)| &**value);
            assert_eq!((find("data"), find("type")), (Some(text), expect), "{argument}");
        };
        for number in ["42", "-1.5", "1e+21", "123456789012345680000", "1.0", "-0", "true", "false"] {
            check(number, number, Some("json"));
        }
        check("null", "null", Some("json"));
        for text in ["42", "1e+21", "true", "-7"] {
            check(&format!(r#""{text}""#), text, Some("string"));
        }
        // The text alone says that it is a string.
        for text in ["hello", "", "1.10", "106242075399214372653", " 42", "-0", "True", "{broken"] {
            check(&format!(r#""{text}""#), text, None);
        }
        // Nothing tells whether these were strings.
        for text in ["null", "{}", r#"{"a": 1}"#, "[1]", r#""2026-11-30T00:00:00.000Z""#] {
            check(&serde_json::Value::from(text).to_string(), text, None);
        }
        check(r#""a\ud800b""#, r#""a\ud800b""#, Some("json"));
        check(r#""\ud83c\udf89""#, "🎉", None);
    }

    #[test]
    fn other_fields_of_entries_stay_as_sent() {
        let check = |arguments: &str, expect: &[(&str, &str)]| {
            let expect: Vec<_> = expect.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(added(arguments), expect, "{arguments}");
        };
        check(r#""data", 42"#, &[("data", "42")]);
        check(r#""a", null, "b", false"#, &[("a", "null"), ("b", "false")]);
        let own = [("type", "string"), ("data", "1"), ("event", "e")];
        check(r#""type", "string", "data", 1, "event", "e""#, &own);
        check(r#""event", 42"#, &[("event", "42")]);
        check(r#""data", "42", "event", true"#, &[("data", "42"), ("event", "true"), ("type", "string")]);
        check(r#""data", "x", "event", "\"q\"""#, &[("data", "x"), ("event", "\"q\""), ("type", "string")]);
        check(r#""event", "\"q\"""#, &[("event", "\"q\""), ("type", "json")]);
        check(r#""event", "a\udc00\ud800b""#, &[("event", "a\u{fffd}\u{fffd}b")]);
    }
}
