//! A token, taken apart. Nothing of it is believed before its signature holds.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::tokens::TokenError;

/// A longer token is not looked at.
pub const MAX_TOKEN: usize = 16 << 10;
/// A longer key id is not one that anybody uses.
const MAX_KID: usize = 256;

/// The parts of a token.
pub struct Token<'a> {
    pub header: Header,
    /// What is signed.
    pub message: &'a str,
    /// As it stands in the token.
    pub signature: &'a str,
    /// The claims as the issuer wrote them.
    pub text: String,
    pub claims: Map<String, Value>,
}

/// What of a header counts. Whatever it says of where keys are (`jwk`, `jku`, `x5u`, …) does not.
#[derive(serde::Deserialize)]
pub struct Header {
    pub alg: String,
    pub kid: Option<String>,
    /// Extensions that have to be understood. None is.
    pub crit: Option<IgnoredAny>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) =
            message.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or(TokenError::Malformed)?;
        let part = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let header: Header = serde_json::from_slice(&part(header)?).map_err(|_| TokenError::Malformed)?;
        if header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
            return Err(TokenError::Malformed);
        }
        part(signature)?;
        let text = String::from_utf8(part(claims)?).map_err(|_| TokenError::Malformed)?;
        let Unique(claims) = serde_json::from_str(&text).map_err(|_| TokenError::Malformed)?;
        Ok(Self { header, message, signature, text, claims })
    }
}

/// An object in which no name stands twice: who reads the first and who reads the last would read two tokens.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Unique, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = from.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(Unique(map))
            }
        }

        from.deserialize_map(Object)
    }
}
