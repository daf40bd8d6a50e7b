use std::fmt;

/// A failed operation. Neither field contains key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoError {
    pub cause: Cause,
    pub message: &'static str,
}

/// Which of the standard's errors it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The bytes of a key are malformed, or are another kind of key.
    Data,
    /// The operation failed with these values.
    Operation,
    /// No such algorithm, hash or curve.
    NotSupported,
}

impl Cause {
    /// The name of the `DOMException`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Data => "DataError",
            Self::Operation => "OperationError",
            Self::NotSupported => "NotSupportedError",
        }
    }
}

impl CryptoError {
    /// A [`Cause::Data`].
    pub const fn data(message: &'static str) -> Self {
        Self { cause: Cause::Data, message }
    }

    /// A [`Cause::Operation`].
    pub const fn operation(message: &'static str) -> Self {
        Self { cause: Cause::Operation, message }
    }

    /// A [`Cause::NotSupported`].
    pub const fn not_supported(message: &'static str) -> Self {
        Self { cause: Cause::NotSupported, message }
    }
}

impl fmt::Display for CryptoError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.cause.name(), self.message)
    }
}

impl std::error::Error for CryptoError {}
