//! `CompressionStream` and `DecompressionStream`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder, ZlibDecoder, ZlibEncoder};

use crate::bindings::Failure;

enum Coder {
    Compress(Compressor),
    Decompress(Decompressor),
}

enum Compressor {
    Gzip(GzEncoder<Vec<u8>>),
    Zlib(ZlibEncoder<Vec<u8>>),
    Raw(DeflateEncoder<Vec<u8>>),
}

enum Decompressor {
    Gzip(GzDecoder<Vec<u8>>),
    Zlib(ZlibDecoder<Vec<u8>>),
    Raw(DeflateDecoder<Vec<u8>>),
}

thread_local! {
    /// The coders of streams that have not ended, by their number.
    static CODERS: RefCell<(u32, HashMap<u32, Coder>)> = RefCell::default();
}

/// Starts a stream and returns its number. `format` is `gzip`, `deflate` or `deflate-raw`.
pub fn open(format: &str, compress: bool) -> Result<u32, Failure> {
    let (out, level) = (Vec::new(), Compression::default());
    let coder = match (format, compress) {
        ("gzip", true) => Coder::Compress(Compressor::Gzip(GzEncoder::new(out, level))),
        ("deflate", true) => Coder::Compress(Compressor::Zlib(ZlibEncoder::new(out, level))),
        ("deflate-raw", true) => Coder::Compress(Compressor::Raw(DeflateEncoder::new(out, level))),
        ("gzip", false) => Coder::Decompress(Decompressor::Gzip(GzDecoder::new(out))),
        ("deflate", false) => Coder::Decompress(Decompressor::Zlib(ZlibDecoder::new(out))),
        ("deflate-raw", false) => Coder::Decompress(Decompressor::Raw(DeflateDecoder::new(out))),
        _ => return Err(Failure::new("TypeError", format!("Unsupported compression format: '{format}'"))),
    };
    CODERS.with_borrow_mut(|(last, coders)| {
        *last += 1;
        coders.insert(*last, coder);
        Ok(*last)
    })
}

/// Gives a stream a chunk, and returns the output so far. The last chunk, and an error, end the stream.
pub fn push(id: u32, bytes: &[u8], last: bool) -> Result<Vec<u8>, Failure> {
    CODERS.with_borrow_mut(|(_, coders)| {
        let Some(coder) = coders.get_mut(&id) else { return Err(Failure::new("TypeError", "the stream has ended")) };
        let result = match coder {
            Coder::Compress(Compressor::Gzip(it)) => step(it, bytes, last, GzEncoder::try_finish, GzEncoder::get_mut),
            Coder::Compress(Compressor::Zlib(it)) => {
                step(it, bytes, last, ZlibEncoder::try_finish, ZlibEncoder::get_mut)
            }
            Coder::Compress(Compressor::Raw(it)) => {
                step(it, bytes, last, DeflateEncoder::try_finish, DeflateEncoder::get_mut)
            }
            Coder::Decompress(Decompressor::Gzip(it)) => {
                step(it, bytes, last, GzDecoder::try_finish, GzDecoder::get_mut)
            }
            Coder::Decompress(Decompressor::Zlib(it)) => {
                step(it, bytes, last, ZlibDecoder::try_finish, ZlibDecoder::get_mut)
            }
            Coder::Decompress(Decompressor::Raw(it)) => {
                step(it, bytes, last, DeflateDecoder::try_finish, DeflateDecoder::get_mut)
            }
        };
        if last || result.is_err() {
            coders.remove(&id);
        }
        result.map_err(|error| Failure::new("TypeError", format!("the compressed data is not valid: {error}")))
    })
}

fn step<C: Write>(
    coder: &mut C,
    bytes: &[u8],
    last: bool,
    finish: impl FnOnce(&mut C) -> io::Result<()>,
    out: impl FnOnce(&mut C) -> &mut Vec<u8>,
) -> io::Result<Vec<u8>> {
    coder.write_all(bytes)?;
    if last {
        finish(coder)?;
    }
    Ok(std::mem::take(out(coder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(format: &str, compress: bool, input: &[u8]) -> Result<Vec<u8>, Failure> {
        let id = open(format, compress)?;
        let mut out = Vec::new();
        for chunk in input.chunks(7) {
            out.extend(push(id, chunk, false)?);
        }
        out.extend(push(id, &[], true)?);
        Ok(out)
    }

    #[test]
    fn text_survives_a_round_trip() {
        let text = "one two one two ".repeat(50);
        for format in ["gzip", "deflate", "deflate-raw"] {
            let packed = run(format, true, text.as_bytes()).expect("compresses");
            assert!(packed.len() < text.len() / 4, "{format}");
            assert_eq!(run(format, false, &packed).expect("decompresses"), text.as_bytes(), "{format}");
        }
    }

    #[test]
    fn truncated_or_extended_data_is_refused() {
        for format in ["gzip", "deflate", "deflate-raw"] {
            let packed = run(format, true, b"some text").expect("compresses");
            assert!(run(format, false, &packed[..packed.len() - 1]).is_err(), "{format} truncated");
            assert!(run(format, false, &[&packed[..], b"x"].concat()).is_err(), "{format} extended");
        }
        assert!(run("gzip", false, b"not gzip at all, really").is_err());
        assert!(open("brotli", true).is_err());
    }
}
