//! The operator's `[policy.settings]`.

use std::any::type_name;
use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;

use crate::host;

mod load;

/// Why a setting cannot be used. It never holds the setting's value, which may be a secret.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The operator gave none.
    Missing(String),
    /// It is not what the policy takes it for.
    Invalid {
        /// Of the setting.
        name: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// A setting's value.
#[must_use]
pub fn get(name: &str) -> Option<String> {
    host::settings::get(name)
}

/// The value of a setting that has to be there.
///
/// # Errors
/// It is not there.
pub fn require(name: &str) -> Result<String, Error> {
    get(name).ok_or_else(|| Error::Missing(name.to_owned()))
}

/// A setting that has to be there, as a number or whatever else is read from text.
///
/// # Errors
/// It is not there, or it is something else.
pub fn parse<T: FromStr>(name: &str) -> Result<T, Error> {
    of(name, &require(name)?)
}

/// The same of a setting that may be left out.
///
/// # Errors
/// It is something else.
pub fn parse_or<T: FromStr>(name: &str, default: T) -> Result<T, Error> {
    get(name).map_or(Ok(default), |text| of(name, &text))
}

/// A struct whose fields are settings by name: text, numbers, `true` and `false`, unit variants, lists with commas.
/// `Option` and `#[serde(default)]` are for those that may be left out, `rename_all = "kebab-case"` for names with hyphens.
///
/// # Errors
/// One is not there, or is something else.
pub fn load<T: DeserializeOwned>() -> Result<T, Error> {
    T::deserialize(load::Settings)
}

fn of<T: FromStr>(name: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::Invalid { name: name.to_owned(), expected: type_name::<T>() })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "the setting {name} is missing"),
            Self::Invalid { name, expected } => write!(f, "the setting {name} is no {expected}"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
