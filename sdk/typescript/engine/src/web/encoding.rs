//! Text encodings.

use std::cell::RefCell;
use std::collections::HashMap;

use encoding_rs::{DecoderResult, Encoding};

use crate::bindings::Failure;

/// The name of the encoding with this label, in lower case.
pub fn name(label: &str) -> Option<String> {
    Encoding::for_label_no_replacement(label.as_bytes()).map(|it| it.name().to_ascii_lowercase())
}

/// The text of UTF-8 bytes. Malformed sequences become U+FFFD; with `fatal` they are a `TypeError`.
pub fn decode_utf8(bytes: &[u8], fatal: bool, keep_mark: bool) -> Result<String, Failure> {
    let text = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) if !keep_mark => rest,
        _ => bytes,
    };
    match std::str::from_utf8(text) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) if fatal => Err(malformed("utf-8")),
        Err(_) => Ok(encoding_rs::UTF_8.decode_without_bom_handling(text).0.into_owned()),
    }
}

fn malformed(encoding: &str) -> Failure {
    Failure::new("TypeError", format!("The encoded data was not valid for encoding {encoding}"))
}

/// A decoder that keeps its state between chunks.
struct Decoder {
    inner: encoding_rs::Decoder,
    encoding: &'static Encoding,
    fatal: bool,
}

impl Decoder {
    fn new(encoding: &'static Encoding, fatal: bool, keep_mark: bool) -> Self {
        let inner = if keep_mark {
            encoding.new_decoder_without_bom_handling()
        } else {
            encoding.new_decoder_with_bom_removal()
        };
        Self { inner, encoding, fatal }
    }

    fn decode(&mut self, bytes: &[u8], last: bool) -> Result<String, Failure> {
        if self.fatal {
            return self.decode_fatal(bytes, last);
        }
        let mut text = String::new();
        text.reserve(self.inner.max_utf8_buffer_length(bytes.len()).unwrap_or(bytes.len()));
        let mut read = 0;
        loop {
            let (result, count, _) = self.inner.decode_to_string(&bytes[read..], &mut text, last);
            read += count;
            match result {
                encoding_rs::CoderResult::InputEmpty => return Ok(text),
                encoding_rs::CoderResult::OutputFull => text.reserve(bytes.len() - read + 16),
            }
        }
    }

    fn decode_fatal(&mut self, bytes: &[u8], last: bool) -> Result<String, Failure> {
        let mut text = String::new();
        let mut read = 0;
        text.reserve(self.inner.max_utf8_buffer_length_without_replacement(bytes.len()).unwrap_or(bytes.len()));
        loop {
            let (result, count) = self.inner.decode_to_string_without_replacement(&bytes[read..], &mut text, last);
            read += count;
            match result {
                DecoderResult::InputEmpty => return Ok(text),
                DecoderResult::OutputFull => text.reserve(bytes.len() - read + 16),
                DecoderResult::Malformed(..) => return Err(malformed(&self.encoding.name().to_ascii_lowercase())),
            }
        }
    }
}

/// Decodes a whole text.
pub fn decode(label: &str, bytes: &[u8], fatal: bool, keep_mark: bool) -> Result<String, Failure> {
    let encoding = known(label)?;
    Decoder::new(encoding, fatal, keep_mark).decode(bytes, true)
}

fn known(label: &str) -> Result<&'static Encoding, Failure> {
    Encoding::for_label_no_replacement(label.as_bytes())
        .ok_or_else(|| Failure::new("RangeError", format!("The \"{label}\" encoding is not supported")))
}

thread_local! {
    /// The decoders of streams that have not ended, by their number.
    static STREAMS: RefCell<(u32, HashMap<u32, Decoder>)> = RefCell::default();
}

/// Starts a decoder for chunks, and returns its number.
pub fn open(label: &str, fatal: bool, keep_mark: bool) -> Result<u32, Failure> {
    let encoding = known(label)?;
    STREAMS.with_borrow_mut(|(last, decoders)| {
        *last += 1;
        decoders.insert(*last, Decoder::new(encoding, fatal, keep_mark));
        Ok(*last)
    })
}

/// Decodes a chunk. The last one, and an error, end the decoder.
pub fn push(id: u32, bytes: &[u8], last: bool) -> Result<String, Failure> {
    STREAMS.with_borrow_mut(|(_, decoders)| {
        let Some(decoder) = decoders.get_mut(&id) else {
            return Err(Failure::new("TypeError", "the decoder has ended"));
        };
        let text = decoder.decode(bytes, last);
        if last || text.is_err() {
            decoders.remove(&id);
        }
        text
    })
}

/// The longest prefix of `text` whose UTF-8 fits into `capacity` bytes: its length in UTF-16 units, and the bytes.
pub fn encode_prefix(text: &str, capacity: usize) -> (u32, &[u8]) {
    let end = text.floor_char_boundary(capacity);
    let units: usize = if text[..end].is_ascii() { end } else { text[..end].encode_utf16().count() };
    (u32::try_from(units).unwrap_or(u32::MAX), &text.as_bytes()[..end])
}

/// Bytes as a string with a character per byte.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_text_is_replaced_or_refused() {
        assert_eq!(decode_utf8(b"\xef\xbb\xbfa\xff", false, false).as_deref(), Ok("a\u{fffd}"));
        assert_eq!(decode_utf8(b"\xef\xbb\xbfa", true, true).as_deref(), Ok("\u{feff}a"));
        assert!(decode_utf8(b"\xf0\x9f", true, false).is_err());
        assert_eq!(decode("shift_jis", b"\x83\x65\x83\x58", true, false).as_deref(), Ok("テス"));
    }

    #[test]
    fn character_may_be_split_between_chunks() {
        let id = open("utf-16le", true, false).expect("a known encoding");
        let chunks: [&[u8]; 3] = [&[0xff], &[0xfe, 0x61, 0x00, 0x3d], &[0xd8]];
        let text: Vec<_> = chunks.iter().map(|chunk| push(id, chunk, false).expect("valid")).collect();
        assert_eq!(text.concat(), "a");
        assert!(push(id, &[], true).is_err());
        assert!(push(id, &[], true).is_err());
    }

    #[test]
    fn prefix_does_not_split_a_character() {
        assert_eq!(encode_prefix("aé𝄞b", 6), (2, "aé".as_bytes()));
        assert_eq!(encode_prefix("aé𝄞b", 7), (4, "aé𝄞".as_bytes()));
        assert_eq!(encode_prefix("é", 0), (0, &b""[..]));
    }
}
