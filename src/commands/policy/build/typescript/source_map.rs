//! Source maps: the line of a source for a position in the code that esbuild made from it.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::json;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceMap {
    sources: Vec<String>,
    mappings: String,
}

/// A source map as esbuild writes it, without the parts that are not used.
#[derive(Deserialize)]
struct Json {
    sources: Vec<String>,
    mappings: String,
}

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl SourceMap {
    /// `name` is the name of a source, of its path in the map.
    pub fn new(json: &str, name: impl Fn(&str) -> String) -> Result<Self> {
        let Json { sources, mappings } =
            serde_json::from_str(json).context("esbuild wrote a source map of an unknown form")?;
        Ok(Self { sources: sources.iter().map(|path| name(path)).collect(), mappings })
    }

    /// The map as it is kept with the component.
    pub fn to_json(&self) -> String {
        json!({ "version": 3, "sources": self.sources, "mappings": self.mappings }).to_string()
    }

    /// The source and its line, both of a line and a column in the code. All numbers are from 1.
    pub fn find(&self, line: usize, column: usize) -> Option<(&str, usize)> {
        // The fields of a segment are differences to the last segment: the column restarts in each line, the others do not.
        let (mut source, mut source_line) = (0i64, 0i64);
        let mut found = None;
        for (at, segments) in self.mappings.split(';').enumerate().take(line) {
            let mut code_column = 0i64;
            for segment in segments.split(',').filter(|segment| !segment.is_empty()) {
                let fields = decode(segment)?;
                code_column += fields.first()?;
                let [_, source_delta, line_delta, ..] = fields[..] else { continue };
                source += source_delta;
                source_line += line_delta;
                // Without a segment before the position, that of an earlier line.
                if at + 1 < line || found.is_none() || code_column < i64::try_from(column).ok()? {
                    found = Some((source, source_line));
                }
            }
        }
        let (source, line) = found?;
        Some((self.sources.get(usize::try_from(source).ok()?)?, usize::try_from(line).ok()? + 1))
    }
}

/// The numbers of a segment: base 64 with five bits in each digit, the lowest first, and the sign in the lowest bit.
fn decode(segment: &str) -> Option<Vec<i64>> {
    let mut fields = Vec::new();
    let (mut value, mut shift) = (0i64, 0u32);
    for digit in segment.bytes() {
        let digit = i64::try_from(BASE64.iter().position(|it| *it == digit)?).ok()?;
        value |= (digit & 31).checked_shl(shift).filter(|_| shift < 40)?;
        shift += 5;
        if digit & 32 == 0 {
            fields.push(if value & 1 == 1 { -(value >> 1) } else { value >> 1 });
            (value, shift) = (0, 0);
        }
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_found_in_their_source() {
        // Line 1 has no source. Line 2: columns 1 and 9 of line 3. Line 4: column 1 of line 5, in the second source.
        let map = SourceMap::new(r#"{"sources":["a.ts","b.ts"],"mappings":";AAEA,QAAQ;;ACEA"}"#, |path| {
            format!("lib/{path}")
        });
        let map = map.expect("a map");
        for (position, found) in [
            ((1, 1), None),
            ((2, 1), Some(("lib/a.ts", 3))),
            ((2, 12), Some(("lib/a.ts", 3))),
            ((3, 1), Some(("lib/a.ts", 3))),
            ((4, 1), Some(("lib/b.ts", 5))),
            ((9, 1), Some(("lib/b.ts", 5))),
        ] {
            assert_eq!(map.find(position.0, position.1), found, "{position:?}");
        }
        assert!(map.to_json().contains(r#""sources":["lib/a.ts","lib/b.ts"]"#));
    }

    #[test]
    fn invalid_maps_find_no_line() {
        for mappings in ["!", "gggggggggggggg", "A,A,A"] {
            let map = SourceMap { sources: vec![], mappings: mappings.to_owned() };
            assert_eq!(map.find(1, 1), None, "{mappings}");
        }
    }
}
