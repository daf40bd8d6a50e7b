//! JSON Web Tokens, verified by the gateway against the operator's profiles.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::bindings::tidegate::policy::tokens as wit;
use crate::{host, json};

/// Why a token is invalid or could not be verified.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a token.
    Malformed,
    /// The signature, algorithm or key is not valid.
    Untrusted,
    /// The token has expired.
    Expired,
    /// Issuer, audience or not-before does not match; the text names it.
    Claims(String),
    /// The gateway has no key to verify the token; the text has the cause.
    Unavailable(String),
    /// The token is valid, but its claims are not of the expected type.
    Unreadable(json::Error),
}

/// Verifies a token with the profile of its issuer, and returns its claims.
///
/// # Errors
/// The token is invalid or could not be verified, or its claims are not of that type.
pub fn verify<T: DeserializeOwned>(token: &str) -> Result<T, Error> {
    claims(host::tokens::verify(token))
}

/// Verifies a token with one profile, and returns its claims.
///
/// # Errors
/// The token is invalid or could not be verified, or its claims are not of that type.
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
            wit::Error::Claims(claim) => Self::Claims(claim),
            wit::Error::Unavailable(cause) => Self::Unavailable(cause),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("token malformed"),
            Self::Untrusted => f.write_str("token untrusted"),
            Self::Expired => f.write_str("token expired"),
            Self::Claims(claim) => write!(f, "token claims invalid: {claim}"),
            Self::Unavailable(_) => f.write_str("token cannot be verified"),
            Self::Unreadable(error) => write!(f, "token claims cannot be decoded: {error}"),
        }
    }
}

impl std::error::Error for Error {}
