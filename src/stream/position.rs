//! Where a client's stream starts: what the URL and `Last-Event-ID` say of its channels, and the `id:` lines it gets.

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use crate::channel::membership::StartPosition;
use crate::event::{StreamId, digits};

/// Reads a `last_ack_…`: a time in ms on the browser's clock, or a stream id. `None` if it is neither.
#[must_use]
pub fn parse_ack(text: &str) -> Option<StartPosition> {
    let time = digits(text).map(|ms| StartPosition::From(StreamId::new(ms, 0)));
    time.or_else(|| text.parse().ok().map(StartPosition::Id))
}

/// The `id:` of a block: a position for each channel of the URL, in the URL's order, bound to that list by a hash.
///
/// `<8 hex digits>:<ms>-<seq>,-,<ms>-<seq>`, the numbers in hex, `-` alone where there is no position yet. A browser sends it
/// back as `Last-Event-ID` with the same URL; with any other list of channels it means nothing.
#[derive(Clone, Debug)]
pub struct Positions {
    tag: u32,
    at: Vec<Option<StreamId>>,
}

impl Positions {
    /// No positions yet, for this list of channels.
    #[must_use]
    pub fn new(channels: &[String]) -> Self {
        let mut hash = Sha256::new();
        for channel in channels {
            hash.update((channel.len() as u64).to_be_bytes());
            hash.update(channel);
        }
        let hash = hash.finalize();
        Self { tag: u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]), at: vec![None; channels.len()] }
    }

    /// Takes over what a `Last-Event-ID` says; one that is malformed or of another list changes nothing.
    pub fn resume(&mut self, id: &str) {
        if let Some(at) = self.parse(id) {
            self.at = at;
        }
    }

    fn parse(&self, id: &str) -> Option<Vec<Option<StreamId>>> {
        let (tag, vector) = id.split_once(':')?;
        if tag != format!("{:08x}", self.tag) {
            return None;
        }
        let hex = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(text, 16).ok())?
        };
        let at: Option<Vec<_>> = vector
            .split(',')
            .map(|entry| match entry {
                "-" => Some(None),
                _ => entry.split_once('-').and_then(|(ms, seq)| Some(Some(StreamId::new(hex(ms)?, hex(seq)?)))),
            })
            .collect();
        at.filter(|at| at.len() == self.at.len())
    }

    /// The position of the channel with this number.
    #[must_use]
    pub fn get(&self, channel: usize) -> Option<StreamId> {
        self.at.get(channel).copied().flatten()
    }

    /// Notes a position.
    pub fn set(&mut self, channel: usize, at: Option<StreamId>) {
        if let Some(slot) = self.at.get_mut(channel) {
            *slot = at;
        }
    }

    /// The least position in ms; what a client that knows no better comes back with.
    #[must_use]
    pub fn least_ms(&self) -> Option<u64> {
        self.at.iter().flatten().map(|id| id.ms).min()
    }

    /// Bytes of the `id:` line.
    #[must_use]
    pub fn length(&self) -> usize {
        let entry = |at: &Option<StreamId>| at.map_or(1, |at| hex_digits(at.ms) + 1 + hex_digits(at.seq));
        let commas = self.at.len().saturating_sub(1);
        "id: 00000000:\n".len() + commas + self.at.iter().map(entry).sum::<usize>()
    }

    /// Writes the `id:` line. Each event does so once a stream, and `write!` would take several times as long.
    pub fn write(&self, to: &mut BytesMut) {
        to.extend_from_slice(b"id: ");
        write_hex(to, self.tag.into(), 8);
        to.extend_from_slice(b":");
        for (i, at) in self.at.iter().enumerate() {
            if i > 0 {
                to.extend_from_slice(b",");
            }
            if let Some(at) = at {
                write_hex(to, at.ms, hex_digits(at.ms));
            }
            to.extend_from_slice(b"-");
            if let Some(at) = at {
                write_hex(to, at.seq, hex_digits(at.seq));
            }
        }
        to.extend_from_slice(b"\n");
    }
}

/// How many hex digits a number has.
const fn hex_digits(number: u64) -> usize {
    // 0 has one too.
    (67 - (number | 1).leading_zeros() as usize) / 4
}

/// Writes so many digits, of 16 at the most.
fn write_hex(to: &mut BytesMut, number: u64, digits: usize) {
    let mut text = [0; 16];
    for (i, digit) in text[..digits].iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * i)) as usize & 15];
    }
    to.extend_from_slice(&text[..digits]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks() {
        let check = |text: &str, expect: Option<StartPosition>| assert_eq!(parse_ack(text), expect, "{text:?}");
        check("0", Some(StartPosition::From(StreamId::ZERO)));
        check("1732464000000", Some(StartPosition::From(StreamId::new(1_732_464_000_000, 0))));
        check("5-7", Some(StartPosition::Id(StreamId::new(5, 7))));
        for bad in ["", "abc", "1-2-3", "12345678901234567890", "-1", "1.5", "NaN", "5-", "+5", " 5"] {
            let expect = (bad == "12345678901234567890")
                .then_some(StartPosition::From(StreamId::new(12_345_678_901_234_567_890, 0)));
            check(bad, expect);
        }
        check("99999999999999999999", None);
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn ids_come_back() {
        let channels = names(&["a", "b", "c"]);
        let mut positions = Positions::new(&channels);
        positions.set(0, Some(StreamId::new(0x193a, 1)));
        positions.set(2, Some(StreamId::new(u64::MAX, u64::MAX)));
        let mut line = BytesMut::new();
        positions.write(&mut line);
        assert_eq!(line.len(), positions.length());
        let line = String::from_utf8(line.to_vec()).expect("text");
        let id = line.strip_prefix("id: ").and_then(|l| l.strip_suffix('\n')).expect("a line");
        assert_eq!(&id[8..], ":193a-1,-,ffffffffffffffff-ffffffffffffffff");
        let mut back = Positions::new(&channels);
        back.resume(id);
        assert_eq!(back.at, positions.at);
        assert_eq!(back.least_ms(), Some(0x193a));
    }

    #[test]
    fn ids_are_hex_without_leading_zeros() {
        let numbers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]).chain([u64::MAX]);
        for number in numbers {
            let mut positions = Positions::new(&names(&["a", "b"]));
            positions.set(1, Some(StreamId::new(number, number / 3)));
            let mut line = BytesMut::new();
            positions.write(&mut line);
            let expect = format!("id: {:08x}:-,{number:x}-{:x}\n", positions.tag, number / 3);
            assert_eq!((&line[..], line.len()), (expect.as_bytes(), positions.length()));
        }
    }

    #[test]
    fn foreign_and_malformed_ids_are_ignored_whole() {
        let mut of_ab = Positions::new(&names(&["a", "b"]));
        of_ab.set(0, Some(StreamId::new(7, 7)));
        let tag = format!("{:08x}", of_ab.tag);
        let check = |id: &str| {
            let mut positions = Positions::new(&names(&["a", "b"]));
            positions.resume(id);
            assert_eq!(positions.at, [None, None], "{id:?}");
        };
        for vector in ["", "1-1", "1-1,2-2,3-3", "1-1,x-1", "1-1,2", "1-1,+2-1", "1-1,10000000000000000-0", "1-1, 2-2"]
        {
            check(&format!("{tag}:{vector}"));
        }
        check("");
        check("42");
        check("1732464000000-0");
        check("zzzzzzzz:1-1,2-2");
        // Another list: the order counts, and so do the borders between names.
        for other in [&["b", "a"][..], &["ab"], &["a", "b", "c"]] {
            assert_ne!(Positions::new(&names(other)).tag, of_ab.tag, "{other:?}");
        }
    }
}
