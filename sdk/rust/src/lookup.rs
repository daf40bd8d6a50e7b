//! Read-only look-ups in the store, for keys with a prefix that the operator allowed.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::bindings::tidegate::policy::lookup as wit;
use crate::{host, json as json_text};

/// Why a look-up failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operator did not allow this key.
    Denied,
    /// The store did not answer; the text has the cause.
    Unavailable(String),
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is not JSON, or not of the expected type.
    Unreadable(json_text::Error),
}

/// The string at a key.
///
/// # Errors
/// [`Error::Denied`] if the key is not allowed, [`Error::Unavailable`] if the store does not answer.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(host::lookup::get(key)?)
}

/// The string at a key as UTF-8 text.
///
/// # Errors
/// The errors of [`get`], and [`Error::NotUtf8`].
pub fn text(key: &str) -> Result<Option<String>, Error> {
    get(key)?.map(utf8).transpose()
}

/// The string at a key, decoded from JSON; see [`json::from_slice`](crate::json::from_slice).
///
/// # Errors
/// The errors of [`get`], and [`Error::Unreadable`].
pub fn json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    get(key)?.map(|text| parse(&text)).transpose()
}

/// A field of the hash at a key.
///
/// # Errors
/// [`Error::Denied`] if the key is not allowed, [`Error::Unavailable`] if the store does not answer.
pub fn hash_get(key: &str, field: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(host::lookup::hash_get(key, field)?)
}

/// A field of the hash at a key as UTF-8 text.
///
/// # Errors
/// The errors of [`hash_get`], and [`Error::NotUtf8`].
pub fn hash_text(key: &str, field: &str) -> Result<Option<String>, Error> {
    hash_get(key, field)?.map(utf8).transpose()
}

/// A field of the hash at a key, decoded from JSON.
///
/// # Errors
/// The errors of [`hash_get`], and [`Error::Unreadable`].
pub fn hash_json<T: DeserializeOwned>(key: &str, field: &str) -> Result<Option<T>, Error> {
    hash_get(key, field)?.map(|text| parse(&text)).transpose()
}

/// Whether the set at a key has a member.
///
/// # Errors
/// [`Error::Denied`] if the key is not allowed, [`Error::Unavailable`] if the store does not answer.
pub fn set_contains(key: &str, member: &str) -> Result<bool, Error> {
    Ok(host::lookup::set_contains(key, member)?)
}

fn utf8(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::NotUtf8)
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    json_text::from_slice(text).map_err(Error::Unreadable)
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::Denied => Self::Denied,
            wit::Error::Unavailable(cause) => Self::Unavailable(cause),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("look-up denied"),
            Self::Unavailable(_) => f.write_str("look-up unavailable"),
            Self::NotUtf8 => f.write_str("the value in the store is not UTF-8"),
            Self::Unreadable(error) => write!(f, "the value in the store cannot be decoded: {error}"),
        }
    }
}

impl std::error::Error for Error {}
