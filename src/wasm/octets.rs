//! Bytes as people read them in JSON: a text where they are one, else `{"base64":"…"}`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Any bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Octets(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a text, or {\"base64\":\"…\"}")]
enum Written<'a> {
    Text(Cow<'a, str>),
    Bytes { base64: String },
}

impl Serialize for Octets {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Written::Text(text.into()).serialize(to),
            Err(_) => Written::Bytes { base64: STANDARD.encode(&self.0) }.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(match Written::deserialize(from)? {
            Written::Text(text) => text.into_owned().into_bytes(),
            Written::Bytes { base64 } => STANDARD.decode(base64).map_err(D::Error::custom)?,
        }))
    }
}
