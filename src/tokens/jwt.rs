//! Parses tokens. Nothing in a token is trusted before its signature is verified.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::tokens::TokenError;

/// Longer tokens are not parsed.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Longer key ids are not used in practice.
const MAX_KID_BYTES: usize = 256;

pub struct Token<'a> {
    pub header: Header,
    /// The signed part of the token.
    pub message: &'a str,
    /// In base64url, as in the token.
    pub signature: &'a str,
    /// The claims as the issuer wrote them.
    pub claims_json: String,
    pub claims: Map<String, Value>,
}

/// The header fields that count. Those that name keys (`jwk`, `jku`, `x5u`, …) are ignored: keys come from the profile only.
#[derive(serde::Deserialize)]
pub struct Header {
    pub alg: String,
    pub kid: Option<String>,
    /// Whether there are extensions that a verifier has to support, also as `null`. Tidegate supports none, so such tokens are untrusted.
    #[serde(default, rename = "crit", deserialize_with = "is_present")]
    pub has_crit: bool,
}

/// Called only if the field is there.
fn is_present<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(from).map(|_| true)
}

impl<'a> Token<'a> {
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) =
            message.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or(TokenError::Malformed)?;
        let part = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let header: Header = serde_json::from_slice(&part(header)?).map_err(|_| TokenError::Malformed)?;
        if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(TokenError::Malformed);
        }
        part(signature)?;
        let claims_json = String::from_utf8(part(claims)?).map_err(|_| TokenError::Malformed)?;
        let UniqueKeys(claims) = serde_json::from_str(&claims_json).map_err(|_| TokenError::Malformed)?;
        Ok(Self { header, message, signature, claims_json, claims })
    }
}

/// An object without duplicate keys. With duplicates, a reader that takes the first value and one that takes the last see two tokens.
struct UniqueKeys(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = UniqueKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<UniqueKeys, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = from.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a duplicate key"));
                    }
                }
                Ok(UniqueKeys(map))
            }
        }

        from.deserialize_map(Object)
    }
}
