//! The schema of a file of test cases.

use std::collections::{BTreeMap, HashMap};
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde::de::{Deserializer, Error};
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
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "a header's value: a string, or a list of strings for a repeated header")]
pub enum Values {
    One(String),
    /// In order.
    Repeated(Vec<String>),
}

impl Values {
    pub fn list(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Repeated(values) => values,
        }
    }
}

/// The expected values of a header.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a header's value: a string, or a list of strings for a repeated header, or true for any value"
)]
pub enum ExpectedValues {
    These(Values),
    #[serde(deserialize_with = "only_true")]
    Any,
}

fn only_true<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    if bool::deserialize(from)? { Ok(()) } else { Err(D::Error::custom("not true")) }
}

/// In milliseconds since the Unix epoch.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "WrittenTime")]
pub struct Time(pub u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a time, as 2026-01-01T00:00:00Z, or milliseconds since the Unix epoch")]
enum WrittenTime {
    Ms(u64),
    Text(String),
    Datetime(toml::value::Datetime),
}

impl TryFrom<WrittenTime> for Time {
    type Error = String;

    fn try_from(written: WrittenTime) -> Result<Self, String> {
        let text = match written {
            WrittenTime::Ms(ms) => return Ok(Self(ms)),
            WrittenTime::Text(text) => text,
            WrittenTime::Datetime(time) => time.to_string(),
        };
        let time = humantime::parse_rfc3339(&text).ok();
        let ms = time.and_then(|time| u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok());
        let wrong = || format!("{text:?} is not a time, as 2026-01-01T00:00:00Z, or milliseconds since the Unix epoch");
        ms.map(Self).ok_or_else(wrong)
    }
}
