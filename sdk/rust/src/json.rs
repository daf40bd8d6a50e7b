//! Decoding of JSON into the policy's own types.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

/// Why decoding failed, without a message: a message would quote the session, and cost a policy a fifth of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The text is not JSON.
    Syntax,
    /// The text is JSON of another type than expected.
    Type,
}

/// Decodes a value as other languages do. A struct is decoded from an object only, where serde also accepts a list of matching
/// items. If an object has a name twice, the last value counts.
///
/// # Errors
/// The text is not JSON, or not of that type.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    let value = serde_json::from_slice(text).map_err(|_| Error::Syntax)?;
    T::deserialize(Json(value))
}

/// Decodes a field that is ignored unless it is a string: `#[serde(default, deserialize_with = "json::text_or_none")]`.
///
/// # Errors
/// The text is not JSON.
pub fn text_or_none<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    value.deserialize_any(TextOrNone)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not JSON",
            Self::Type => "JSON of another type",
        })
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Type
    }

    // The default implementations format messages that `custom` drops.

    fn invalid_type(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::Type
    }

    fn invalid_value(_: de::Unexpected<'_>, _: &dyn de::Expected) -> Self {
        Self::Type
    }

    fn invalid_length(_: usize, _: &dyn de::Expected) -> Self {
        Self::Type
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::Type
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::Type
    }

    fn missing_field(_: &'static str) -> Self {
        Self::Type
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::Type
    }
}

/// A JSON value as a deserializer.
struct Json(Value);

impl<'de> Deserializer<'de> for Json {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (_, _, Some(number)) => visitor.visit_f64(number),
                _ => Err(Error::Type),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Json))),
            Value::Object(entries) => visitor.visit_map(fields(entries)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(entries) => visitor.visit_map(fields(entries)),
            _ => Err(Error::Type),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.into_deserializer()),
            Value::Object(entries) => {
                MapAccessDeserializer::new(fields(entries)).deserialize_enum(name, variants, visitor)
            }
            _ => Err(Error::Type),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Json {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn fields<'de>(
    entries: serde_json::Map<String, Value>,
) -> MapDeserializer<'de, impl Iterator<Item = (String, Json)>, Error> {
    MapDeserializer::new(entries.into_iter().map(|(name, value)| (name, Json(value))))
}

struct TextOrNone;

impl<'de> Visitor<'de> for TextOrNone {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Some(text))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Session {
        id: String,
        #[serde(default, deserialize_with = "text_or_none")]
        role: Option<String>,
    }

    #[test]
    fn struct_is_decoded_from_an_object_and_text_from_a_string() {
        let read = |text: &str| from_slice::<Session>(text.as_bytes()).ok().map(|session| (session.id, session.role));
        let alice = |role: Option<&str>| Some(("alice".to_owned(), role.map(str::to_owned)));
        for (text, expect) in [
            (r#"{"id":"alice","role":"admin"}"#, alice(Some("admin"))),
            (r#" {"role":"\u0061dmin","id":"alice"} "#, alice(Some("admin"))),
            (r#"{"id":"alice"}"#, alice(None)),
            (r#"{"id":"alice","role":null}"#, alice(None)),
            (r#"{"id":"alice","role":["admin"]}"#, alice(None)),
            (r#"{"id":"alice","role":{"admin":[{}]},"x":1e9}"#, alice(None)),
            (r#"{"id":"alice","role":-1.5}"#, alice(None)),
            (r#"{"id":"alice","role":true}"#, alice(None)),
            (r#"{"id":"x","id":"alice","role":1,"role":"admin"}"#, alice(Some("admin"))),
            (r#"{"id":"alice","id":7}"#, None),
            (r#"["alice","admin"]"#, None),
            (r#"{"id":7}"#, None),
            (r#"{"role":"admin"}"#, None),
            (r#"{"id":"alice"} x"#, None),
            (r#"{"id":"alice""#, None),
            ("", None),
            ("null", None),
        ] {
            assert_eq!(read(text), expect, "{text}");
        }
    }

    #[test]
    fn values_of_every_type_are_decoded() {
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(rename_all = "lowercase")]
        enum Plan {
            Free,
            Seats(u8),
            Custom { name: String },
        }
        #[derive(Debug, Deserialize, PartialEq)]
        struct Id(i64);
        #[derive(Debug, Deserialize, PartialEq)]
        struct All {
            plans: Vec<Plan>,
            id: Id,
            ratio: f32,
            nested: Option<Session>,
            pair: (u8, bool),
        }
        let text = r#"{"plans":["free",{"seats":3},{"custom":{"name":"x"}}],"id":-7,"ratio":0.5,"nested":null,"pair":[1,true]}"#;
        let all = from_slice::<All>(text.as_bytes()).expect("valid");
        assert_eq!(all.plans, [Plan::Free, Plan::Seats(3), Plan::Custom { name: "x".into() }]);
        assert_eq!((all.id, all.ratio, all.nested, all.pair), (Id(-7), 0.5, None, (1, true)));
        assert_eq!(
            from_slice::<Option<Session>>(br#"{"id":"a","x":{"id":1}}"#).ok().flatten().map(|s| s.id),
            Some("a".into())
        );
        for (text, error) in [
            ("[1,2", Error::Syntax),
            ("[1,2] 3", Error::Syntax),
            ("[1,300]", Error::Type),
            ("{}", Error::Type),
            ("[-1]", Error::Type),
        ] {
            assert_eq!(from_slice::<Vec<u8>>(text.as_bytes()), Err(error), "{text}");
        }
    }
}
