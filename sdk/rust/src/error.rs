//! What `?` makes of errors.

use std::any::Any;
use std::fmt;

use crate::{Rejection, log, lookup, tokens};

/// What a policy's functions return.
pub type Result<T = crate::Grant, E = Error> = std::result::Result<T, E>;

/// Why there is no grant. Every error becomes one by `?`, and [`From`] says what the client is told then:
///
/// | error | answer |
/// | --- | --- |
/// | a [`Rejection`] | itself |
/// | a look-up that was denied or not answered | 503 `Try again` |
/// | a token that does not hold | 401 `Unauthorized` |
/// | a token that could not be checked | 503 `Try again` |
/// | any other | 500 `Internal error`; its words go to the log |
///
/// Who wants it otherwise maps the error on the spot, or lets the policy return a type of its own that becomes a [`Rejection`].
#[derive(Debug)]
pub enum Error {
    /// The policy's own word.
    Rejection(Rejection),
    /// A look-up failed.
    Lookup(lookup::Error),
    /// A token does not hold.
    Token(tokens::Error),
    /// Anything else.
    Other(Box<dyn std::error::Error>),
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Self::Rejection(rejection)
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        // Decided when it is compiled, for each type.
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
            None => Self::Other("an error that was taken".into()),
        }
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejection(rejection) => rejection,
            Error::Lookup(error @ (lookup::Error::Denied | lookup::Error::Unavailable(_))) => {
                Self::unavailable("Try again").because(error.to_string())
            }
            Error::Token(error @ tokens::Error::Unavailable(_)) => {
                Self::unavailable("Try again").because(error.to_string())
            }
            Error::Token(error @ tokens::Error::Unreadable(_)) => internal(&error),
            Error::Token(error) => Self::unauthorized("Unauthorized").because(error.to_string()),
            Error::Lookup(error) => internal(&error),
            Error::Other(error) => internal(&*error),
        }
    }
}

fn internal(error: &dyn fmt::Display) -> Rejection {
    let text = error.to_string();
    log::error(&text);
    Rejection::new(500, "Internal error").because(text)
}
