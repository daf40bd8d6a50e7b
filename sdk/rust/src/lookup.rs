//! Look-ups in the store, read only, of keys whose prefix the operator allowed.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::bindings::tidegate::policy::lookup as wit;
use crate::{host, json as json_text};

/// Why a look-up gave nothing that can be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operator allowed no such key.
    Denied,
    /// The store did not answer; the text says why.
    Unavailable(String),
    /// What is there is not UTF-8.
    NotText,
    /// What is there is not JSON, or not of the type that was wanted.
    Unreadable(json_text::Error),
}

/// The string at a key.
///
/// # Errors
/// The key is not allowed, or the store does not answer.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(host::lookup::get(key)?)
}

/// The string at a key, which is UTF-8.
///
/// # Errors
/// As [`get`]; or it is not UTF-8.
pub fn text(key: &str) -> Result<Option<String>, Error> {
    get(key)?.map(utf8).transpose()
}

/// The string at a key, which is JSON; see [`json::from_slice`](crate::json::from_slice).
///
/// # Errors
/// As [`get`]; or it is not JSON of that type.
pub fn json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key)?.map(|text| parse(&text)).transpose()
}

/// A field of the hash at a key.
///
/// # Errors
/// The key is not allowed, or the store does not answer.
pub fn hash_get(key: &str, field: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(host::lookup::hash_get(key, field)?)
}

/// A field of the hash at a key, which is UTF-8.
///
/// # Errors
/// As [`hash_get`]; or it is not UTF-8.
pub fn hash_text(key: &str, field: &str) -> Result<Option<String>, Error> {
    hash_get(key, field)?.map(utf8).transpose()
}

/// A field of the hash at a key, which is JSON.
///
/// # Errors
/// As [`hash_get`]; or it is not JSON of that type.
pub fn hash_json<T: DeserializeOwned>(key: &str, field: &str) -> Result<Option<T>, Error> {
    hash_get(key, field)?.map(|text| parse(&text)).transpose()
}

/// Whether the set at a key has a member.
///
/// # Errors
/// The key is not allowed, or the store does not answer.
pub fn set_contains(key: &str, member: &str) -> Result<bool, Error> {
    Ok(host::lookup::set_contains(key, member)?)
}

fn utf8(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::NotText)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    json_text::from_slice(text).map_err(Error::Unreadable)
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::Denied => Self::Denied,
            wit::Error::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("look-up denied"),
            Self::Unavailable(_) => f.write_str("look-up unavailable"),
            Self::NotText => f.write_str("what was looked up is not UTF-8"),
            Self::Unreadable(why) => write!(f, "what was looked up cannot be read: {why}"),
        }
    }
}

impl std::error::Error for Error {}
