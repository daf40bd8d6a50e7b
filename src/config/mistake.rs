//! Reads options from TOML values. The errors say where a value is and what would be right, and never show the value: any may be a
//! secret, or stand next to one.

use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use crate::config::schema::OPTIONS;

/// The mistake in a value.
#[derive(Debug)]
pub struct Mistake {
    /// Where the value is, from the outermost table.
    path: Vec<Step>,
    what: String,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Mistake {
    fn within(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }
}

impl std::error::Error for Mistake {}

impl Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.path.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let is_bare = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
                    f.write_str(if n == 0 { "" } else { "." })?;
                    if is_bare { f.write_str(key) } else { write!(f, "{key:?}") }?;
                }
            }
        }
        write!(f, "{}{}", if self.path.is_empty() { "" } else { ": " }, self.what)
    }
}

/// The texts come from types and visitors, which know what they expect. None contains a value.
impl Error for Mistake {
    fn custom<T: Display>(message: T) -> Self {
        Self { path: Vec::new(), what: message.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {}, found {}", explain(expected), kind(found)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {}", explain(expected)))
    }

    fn unknown_variant(_: &str, variants: &'static [&'static str]) -> Self {
        Self::custom(format!("expected one of {}", list(variants)))
    }

    fn unknown_field(field: &str, fields: &'static [&'static str]) -> Self {
        let what = format!("not an option: expected one of {}", list(fields));
        Self::custom(what).within(Step::Key(field.into()))
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What a visitor expects, in the terms of a configuration file.
fn explain(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match &*text {
        "a sequence" => "a list such as [\"…\"]".into(),
        "a map" => "a table".into(),
        "a boolean" => "a boolean, true or false".into(),
        "path string" => "a path, as a string".into(),
        "usize" | "u64" | "u32" | "u16" => "a whole number that is not negative".into(),
        "f64" => "a number".into(),
        "an integer or string" | "parsable string" | "integer overflow" => {
            "a size such as 512KiB, 64MiB or 1GiB".into()
        }
        "IPv4 or IPv6 network address" => "a network such as 10.0.0.0/8 or ::1/128".into(),
        struct_name if struct_name.starts_with("struct ") => "a table".into(),
        _ => text,
    }
}

fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Str(_) => "a string",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        _ => "a date or time",
    }
}

/// Reads a type from a table.
pub fn deserialize<T: DeserializeOwned>(table: Table) -> Result<T, Mistake> {
    T::deserialize(Node(&Value::Table(table)))
}

struct Node<'a>(&'a Value);

impl Node<'_> {
    fn unexpected(&self) -> Unexpected<'_> {
        match self.0 {
            Value::String(text) => Unexpected::Str(text),
            Value::Integer(number) => Unexpected::Signed(*number),
            Value::Float(number) => Unexpected::Float(*number),
            Value::Boolean(value) => Unexpected::Bool(*value),
            Value::Datetime(_) => Unexpected::Other("date"),
            Value::Array(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        }
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Datetime(_) => Err(Mistake::invalid_type(self.unexpected(), &visitor)),
            Value::Array(values) => visitor.visit_seq(Items(values.iter().enumerate())),
            Value::Table(table) => visitor.visit_map(Entries { entries: table.iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    /// Only a table: derived implementations accept the fields as a list, too.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        if self.0.is_table() {
            self.deserialize_any(visitor)
        } else {
            Err(Mistake::invalid_type(self.unexpected(), &visitor))
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let Value::String(text) = self.0 else { return Err(Mistake::unknown_variant("", variants)) };
        visitor.visit_enum(IntoDeserializer::<Mistake>::into_deserializer(text.as_str()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

struct Items<'a>(std::iter::Enumerate<std::slice::Iter<'a, Value>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let item = self.0.next();
        item.map(|(n, value)| seed.deserialize(Node(value)).map_err(|error| error.within(Step::Index(n)))).transpose()
    }
}

struct Entries<'a> {
    entries: toml::map::Iter<'a, String, Value>,
    /// The entry whose key was read.
    value: Option<(&'a String, &'a Value)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        self.value = self.entries.next();
        self.value.map(|(key, _)| seed.deserialize(StrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let (key, value) = self.value.take().ok_or_else(|| Mistake::custom("a value before its key"))?;
        seed.deserialize(Node(value)).map_err(|error| error.within(Step::Key(key.clone())))
    }
}

/// Where in a text a mistake is: line and column, from 1.
pub fn locate(text: &str, mistake: &Mistake) -> Option<(usize, usize)> {
    let table = DeTable::parse(text).ok()?;
    let mut found = None;
    let (mut table, mut value): (Option<&DeTable<'_>>, Option<&Spanned<DeValue<'_>>>) = (Some(table.get_ref()), None);
    for step in &mistake.path {
        match step {
            Step::Key(key) => {
                let Some((name, next)) = table.and_then(|table| table.iter().find(|(name, _)| name.get_ref() == key))
                else {
                    break;
                };
                (found, value) = (Some(name.span().start), Some(next));
            }
            Step::Index(n) => {
                let Some(next) = value.and_then(|value| value.get_ref().as_array()?.get(*n)) else { break };
                (found, value) = (Some(next.span().start), Some(next));
            }
        }
        table = value.and_then(|value| value.get_ref().as_table());
    }
    found.map(|offset| position(text, offset))
}

/// Line and column of a byte, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// Describes text that is not TOML: line and column, the option if it can be determined, and the mistake.
pub fn describe_syntax(text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else { return error.message().to_owned() };
    let (line, column) = position(text, span.start);
    let option = option_at(text, span.start).map(|option| format!("{option}: ")).unwrap_or_default();
    format!("line {line}, column {column}: {option}{}", error.message())
}

/// The option or table that a part of a file is about. Only names of the schema are shown: other text may be a part of a value.
fn option_at(text: &str, offset: usize) -> Option<String> {
    let end = text[offset..].find('\n').map_or(text.len(), |length| offset + length);
    let lines: Vec<&str> = text.get(..end)?.lines().collect();
    let is_header = |line: &&&str| line.trim_start().starts_with('[') && !line.contains(['"', '\'', ',', '=']);
    let header_line = lines.iter().rposition(|line| is_header(&line));
    let header = header_line.map_or("", |n| lines[n].trim().trim_matches(['[', ']']).trim());
    let within = |key: &str| if header.is_empty() { key.to_owned() } else { format!("{header}.{key}") };
    let keys = lines[header_line.map_or(0, |n| n + 1)..].iter().rev();
    // A value may have several lines: the key is in one above.
    let mut known = keys.filter_map(|line| known_part(&within(line.split_once('=')?.0.trim())).map(str::to_owned));
    known.next().or_else(|| known_part(header).map(str::to_owned))
}

/// The longest part of a path, from its beginning, that is an option or a table of options.
fn known_part(path: &str) -> Option<&str> {
    let is_known = |part: &str| {
        OPTIONS
            .iter()
            .any(|option| option.path.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let ends = path.match_indices('.').map(|(end, _)| end).chain([path.len()]);
    ends.map(|end| &path[..end]).rfind(|part| is_known(part))
}
