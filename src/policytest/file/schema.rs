//! The schema of a file of test cases.

use std::collections::{BTreeMap, HashMap};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::policytest::Requirements;
use crate::store::memory::Seed;
use crate::tokens::profile::ProfileOptions;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub now: Option<Time>,
    pub lookup: Lookup,
    pub store: HashMap<String, Seed>,
    pub settings: BTreeMap<String, String>,
    pub tokens: BTreeMap<String, ProfileOptions>,
    pub request: Request,
    pub requires: Requirements,
    pub case: Vec<Spanned<Case>>,
}

/// `[[case]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    pub name: String,
    pub channels: Option<Vec<String>>,
    #[serde(default)]
    pub request: Request,
    pub now: Option<Time>,
    #[serde(default)]
    pub lookup: Lookup,
    #[serde(default)]
    pub store: HashMap<String, Seed>,
    #[serde(default)]
    pub store_unavailable: bool,
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    #[serde(default)]
    pub tokens: BTreeMap<String, ProfileOptions>,
    pub expect: Expect,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lookup {
    pub prefixes: Option<Vec<String>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table, as { path = \"/\", headers.cookie = \"session=1\" }"
)]
pub struct Request {
    pub method: Option<String>,
    pub scheme: Option<String>,
    pub authority: Option<String>,
    pub path: Option<String>,
    pub client_address: Option<String>,
    pub headers: BTreeMap<String, Values>,
}

#[derive(Default, Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "a table, as { allow = true } or { status = 403 }"
)]
pub struct Expect {
    pub allow: Option<bool>,
    pub status: Option<u16>,
    pub error: Option<String>,
    pub subject: Option<String>,
    pub channels: Option<Vec<String>>,
    pub expires_at: Option<Time>,
    pub replay_since: Option<Time>,
    pub headers: Option<BTreeMap<String, ExpectedValues>>,
    pub body: Option<String>,
    pub reason: Option<String>,
}

/// The values of a header, one per header field.
#[derive(Clone, Default)]
pub struct Values(pub Vec<String>);

/// The expected values of a header.
pub enum ExpectedValues {
    Any,
    /// In order.
    These(Vec<String>),
}

/// In milliseconds since the Unix epoch.
#[derive(Clone, Copy)]
pub struct Time(pub u64);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match from.deserialize_any(OneOrMore { any: false })? {
            ExpectedValues::These(values) => Ok(Self(values)),
            ExpectedValues::Any => Ok(Self::default()),
        }
    }
}

impl<'de> Deserialize<'de> for ExpectedValues {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrMore { any: true })
    }
}

struct OneOrMore {
    any: bool,
}

impl<'de> Visitor<'de> for OneOrMore {
    type Value = ExpectedValues;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a header's value: a string, or a list of strings for a repeated header")?;
        if self.any { f.write_str(", or true for any value") } else { Ok(()) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        if value && self.any {
            Ok(ExpectedValues::Any)
        } else {
            Err(E::invalid_type(serde::de::Unexpected::Bool(value), &self))
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(ExpectedValues::These(vec![value.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(ExpectedValues::These(values))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct AsTime;

        impl<'de> Visitor<'de> for AsTime {
            type Value = Time;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time, as 2026-01-01T00:00:00Z, or milliseconds since the Unix epoch")
            }

            fn visit_i64<E: Error>(self, ms: i64) -> Result<Time, E> {
                u64::try_from(ms).map(Time).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(ms), &self))
            }

            fn visit_u64<E: Error>(self, ms: u64) -> Result<Time, E> {
                Ok(Time(ms))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                let time = humantime::parse_rfc3339(text).map_err(|_| wrong())?;
                let ms = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| wrong())?.as_millis();
                u64::try_from(ms).map(Time).map_err(|_| wrong())
            }

            // A TOML datetime arrives as a map that only `toml` can read.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Time, A::Error> {
                let time = toml::value::Datetime::deserialize(MapAccessDeserializer::new(map))?;
                self.visit_str(&time.to_string())
            }
        }

        from.deserialize_any(AsTime)
    }
}
