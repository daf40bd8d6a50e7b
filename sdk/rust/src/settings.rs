//! The operator's `[policy.settings]`.

use std::any::type_name;
use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use crate::host;

mod load;

/// Why a setting cannot be used. It never contains the setting's value, which may be a secret.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The operator did not configure the setting.
    Missing(String),
    /// The setting's value is not of the expected type.
    Invalid {
        /// The setting's name.
        name: String,
        /// The type or kind of value that the policy expects.
        expected: &'static str,
    },
}

/// A setting's value.
#[must_use]
pub fn get(name: &str) -> Option<String> {
    host::settings::get(name)
}

/// The value of a required setting.
///
/// # Errors
/// The setting is missing.
pub fn require(name: &str) -> Result<String, Error> {
    get(name).ok_or_else(|| Error::Missing(name.to_owned()))
}

/// A required setting, parsed from text.
///
/// # Errors
/// The setting is missing or invalid.
pub fn parse<T: FromStr>(name: &str) -> Result<T, Error> {
    parse_value(name, &require(name)?)
}

/// An optional setting, parsed from text.
///
/// # Errors
/// The setting is invalid.
pub fn parse_or<T: FromStr>(name: &str, default: T) -> Result<T, Error> {
    get(name).map_or(Ok(default), |text| parse_value(name, &text))
}

/// Loads a struct whose fields are settings by name: text, numbers, `true` and `false`, unit variants, comma-separated lists.
/// Use `Option` or `#[serde(default)]` for optional settings, and `rename_all = "kebab-case"` for names with hyphens.
///
/// # Errors
/// A setting is missing or invalid.
pub fn load<T: DeserializeOwned>() -> Result<T, Error> {
    T::deserialize(load::Settings)
}

fn parse_value<T: FromStr>(name: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Invalid { name: name.to_owned(), expected: type_name::<T>() })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "the setting {name} is missing"),
            Self::Invalid { name, expected } => write!(f, "the setting {name} is not a valid {expected}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
