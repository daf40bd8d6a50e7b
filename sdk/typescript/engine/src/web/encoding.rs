//! Text encodings.

use crate::bindings::Failure;

/// The text of UTF-8 bytes. Malformed sequences become U+FFFD; with `fatal` they are a `TypeError`.
pub fn decode_utf8(bytes: &[u8], fatal: bool) -> Result<String, Failure> {
    match String::from_utf8_lossy(bytes) {
        std::borrow::Cow::Owned(_) if fatal => Err(Failure::new("TypeError", "the encoded data was not valid UTF-8")),
        text => Ok(text.into_owned()),
    }
}
