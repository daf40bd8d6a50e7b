//! Conversion of errors into rejections, for `?`.

use std::any::Any;
use std::fmt;

use crate::{Rejection, log, lookup, tokens};

/// The result type of a policy's functions.
pub type Result<T = crate::Grant, E = Error> = std::result::Result<T, E>;

/// Why a policy does not return a grant. `?` converts any error into this type, and [`From`] maps it to the client's response:
///
/// | error | response |
/// | --- | --- |
/// | a [`Rejection`] | the rejection itself |
/// | a look-up that was denied, or that the store did not answer | 503 `Try again` |
/// | an invalid token | 401 `Unauthorized` |
/// | a token that could not be verified | 503 `Try again` |
/// | any other | 500 `Internal error`; the error text goes to the log |
///
/// For other responses, map the error where it occurs, or return an error type of your own that converts into a [`Rejection`].
#[derive(Debug)]
pub enum Error {
    /// A rejection that the policy made.
    Rejection(Rejection),
    /// A look-up failed.
    Lookup(lookup::Error),
    /// A token is invalid or could not be verified.
    Token(tokens::Error),
    /// Any other error.
    Other(Box<dyn std::error::Error>),
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Rejection(rejection)
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        // The compiler resolves these downcasts for each type.
        let mut error = Some(error);
        let any: &mut dyn Any = &mut error;
        if let Some(error) = any.downcast_mut().and_then(Option::take) {
            return Self::Lookup(error);
        }
        if let Some(error) = any.downcast_mut().and_then(Option::take) {
            return Self::Token(error);
        }
        match error {
            Some(error) => Self::Other(error.into()),
            None => Self::Other("the error was already converted".into()),
        }
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejection(rejection) => rejection,
            Error::Lookup(error @ (lookup::Error::Denied | lookup::Error::Unavailable(_))) => {
                Self::unavailable("Try again").with_reason(error.to_string())
            }
            Error::Token(error @ tokens::Error::Unavailable(_)) => {
                Self::unavailable("Try again").with_reason(error.to_string())
            }
            Error::Token(error @ tokens::Error::Unreadable(_)) => internal(&error),
            Error::Token(error) => Self::unauthorized("Unauthorized").with_reason(error.to_string()),
            Error::Lookup(error) => internal(&error),
            Error::Other(error) => internal(&*error),
        }
    }
}

fn internal(error: &dyn fmt::Display) -> Rejection {
    let text = error.to_string();
    log::error(&text);
    Rejection::new(500, "Internal error").with_reason(text)
}
