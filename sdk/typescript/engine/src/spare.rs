//! The texts of spare modules, compressed: the app does not seem to use them, so they are not worth more memory of each instance. Their bytecode
//! would be half as large again.

use std::cell::RefCell;
use std::io::Write;
use std::ops::Range;

use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder};

use crate::memory::temporarily;

/// Bytes of text that are compressed together. Modules of a package have much in common, but the use of one of them decompresses all.
const BLOCK_BYTES: usize = 64 << 10;

#[derive(Default)]
struct Spare {
    blocks: Vec<Box<[u8]>>,
    modules: Box<[(Box<str>, Place)]>,
}

/// The bytes of a module in its block.
struct Place {
    block: usize,
    bytes: Range<usize>,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

/// Keeps the scripts of these modules instead of those of the last call.
pub fn keep(modules: impl Iterator<Item = (String, Vec<u8>)>) {
    let modules: Vec<(String, Vec<u8>)> = temporarily(|| modules.collect());
    let mut spare = Spare::default();
    let mut positions = Vec::with_capacity(modules.len());
    let mut block = temporarily(Vec::new);
    for (id, script) in &modules {
        if block.len() >= BLOCK_BYTES {
            spare.blocks.push(compressed(&block));
            block.clear();
        }
        let start = block.len();
        temporarily(|| block.extend_from_slice(script));
        positions.push((id.as_str().into(), Place { block: spare.blocks.len(), bytes: start..block.len() }));
    }
    if !block.is_empty() {
        spare.blocks.push(compressed(&block));
    }
    spare.modules = positions.into();
    SPARE.replace(spare);
}

/// The script of a module.
pub fn script(id: &str) -> Option<Vec<u8>> {
    SPARE.with_borrow(|spare| {
        let (_, place) = spare.modules.iter().find(|(other, _)| **other == *id)?;
        let mut block = decompressed(spare.blocks.get(place.block)?)?;
        block.truncate(place.bytes.end);
        block.drain(..place.bytes.start);
        Some(block)
    })
}

/// The content of compressed bytes.
pub fn decompressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = DeflateDecoder::new(Vec::new());
    decoder.write_all(bytes).ok()?;
    decoder.finish().ok()
}

/// Without an allocation that stays but the result.
fn compressed(block: &[u8]) -> Box<[u8]> {
    let out = temporarily(|| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        // A `Vec` takes all bytes.
        let _ = encoder.write_all(block);
        encoder.finish().unwrap_or_default()
    });
    out.as_slice().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_their_blocks() {
        let modules: Vec<(String, Vec<u8>)> =
            (0..40_u8).map(|at| (format!("{at}.js"), vec![at; usize::from(at) * 1000])).collect();
        keep(modules.clone().into_iter());
        let blocks = SPARE.with_borrow(|spare| spare.blocks.len());
        assert!(blocks > 5, "{blocks}");
        for (id, code) in modules {
            assert_eq!(script(&id), Some(code), "{id}");
        }
        assert_eq!(script("40.js"), None);
    }
}
