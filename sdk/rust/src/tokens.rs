//! JSON Web Tokens, checked by the gateway against the operator's profiles.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::bindings::tidegate::policy::tokens as wit;
use crate::{host, json};

/// Why a token does not hold, or cannot be told to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// It is no token.
    Malformed,
    /// The signature, the algorithm or the key does not hold.
    Untrusted,
    /// Its time is over.
    Expired,
    /// Issuer, audience or not-before does not hold; the text says which.
    Claims(String),
    /// It cannot be checked: no key could be had. The text says why.
    Unavailable(String),
    /// It holds, but its claims are not what they were taken for.
    Unreadable(json::Error),
}

/// The claims of a token that holds for the profile of its issuer.
///
/// # Errors
/// It does not hold or cannot be checked, or its claims are not of that type.
pub fn verify<T: DeserializeOwned>(token: &str) -> Result<T, Error> {
    claims(host::tokens::verify(token))
}

/// The claims of a token that holds for one profile.
///
/// # Errors
/// It does not hold or cannot be checked, or its claims are not of that type.
pub fn verify_with<T: DeserializeOwned>(profile: &str, token: &str) -> Result<T, Error> {
    claims(host::tokens::verify_with(profile, token))
}

fn claims<T: DeserializeOwned>(answer: Result<String, wit::Error>) -> Result<T, Error> {
    json::from_slice(answer?.as_bytes()).map_err(Error::Unreadable)
}

impl From<wit::Error> for Error {
    fn from(error: wit::Error) -> Self {
        match error {
            wit::Error::Malformed => Self::Malformed,
            wit::Error::Untrusted => Self::Untrusted,
            wit::Error::Expired => Self::Expired,
            wit::Error::Claims(what) => Self::Claims(what),
            wit::Error::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("token malformed"),
            Self::Untrusted => f.write_str("token untrusted"),
            Self::Expired => f.write_str("token expired"),
            Self::Claims(what) => write!(f, "token's claims do not hold: {what}"),
            Self::Unavailable(_) => f.write_str("token cannot be checked"),
            Self::Unreadable(why) => write!(f, "token's claims cannot be read: {why}"),
        }
    }
}

impl std::error::Error for Error {}
