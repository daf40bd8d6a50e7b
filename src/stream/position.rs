//! Positions of a client's stream: `last_ack_…` parameters and `Last-Event-ID` in requests, and `id:` lines in responses.

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use crate::channel::membership::StartPosition;
use crate::event::{StreamId, digits};

/// The sequence of a position that is not the id of an entry: the channel started at a time. As a number it is 0, so readers that do not
/// know it start there too. Without it, an entry that is not in the stream would look like one that was trimmed.
const NOT_AN_ENTRY: &str = "00";

/// The position of a client in one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub id: StreamId,
    /// An entry of the stream had this id.
    pub is_entry: bool,
}

impl Position {
    /// The position after an entry.
    pub const fn entry(id: StreamId) -> Self {
        Self { id, is_entry: true }
    }

    fn parsed(id: StreamId, seq: &str) -> Self {
        // No entry has the greatest sequence: that is a position just before the next millisecond.
        Self { id, is_entry: seq != NOT_AN_ENTRY && id.seq != u64::MAX }
    }

    /// Where a stream starts that resumes from here.
    pub fn start(self) -> StartPosition {
        if self.is_entry { StartPosition::Id(self.id) } else { StartPosition::Between(self.id) }
    }

    const fn is_marked(self) -> bool {
        !self.is_entry && self.id.seq == 0 && self.id.ms > 0
    }
}

/// Parses a `last_ack_…`: a time in ms by the browser's clock, or a position.
pub fn parse_ack(text: &str) -> Option<StartPosition> {
    let time = digits(text).map(|ms| StartPosition::From(StreamId::new(ms, 0)));
    let position = || Some(Position::parsed(text.parse().ok()?, text.split_once('-')?.1).start());
    time.or_else(position)
}

/// The `id:` of a frame: a position for each channel of the URL, in the order of the URL.
///
/// The format is `<tag>:<ms>-<seq>,-,<ms>-<seq>`, with numbers in hex, and `-` for a channel without a position. The tag is a
/// hash of the list of channels, in 8 hex digits: a browser returns the id as `Last-Event-ID` with the same URL, and with any
/// other list it is ignored.
#[derive(Clone, Debug)]
pub struct Positions {
    tag: u32,
    positions: Vec<Option<Position>>,
}

impl Positions {
    pub fn new(channels: &[String]) -> Self {
        let mut hash = Sha256::new();
        for channel in channels {
            // With the lengths, other splits of the same characters have other tags.
            hash.update((channel.len() as u64).to_be_bytes());
            hash.update(channel);
        }
        let hash = hash.finalize();
        let tag = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        Self { tag, positions: vec![None; channels.len()] }
    }

    /// Takes the positions from a `Last-Event-ID`. One that is malformed or of another list changes nothing: an HTTP error would
    /// stop the reconnects of a browser.
    pub fn resume(&mut self, id: &str) {
        if let Some(positions) = self.parse(id) {
            self.positions = positions;
        }
    }

    fn parse(&self, id: &str) -> Option<Vec<Option<Position>>> {
        let list = id.strip_prefix(&format!("{:08x}:", self.tag))?;
        let hex = |text: &str| {
            let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
            is_plain.then(|| u64::from_str_radix(text, 16).ok())?
        };
        let position = |entry: &str| match entry.split_once('-')? {
            ("", "") => Some(None),
            (ms, seq) => Some(Some(Position::parsed(StreamId::new(hex(ms)?, hex(seq)?), seq))),
        };
        let positions = list.split(',').map(position).collect::<Option<Vec<_>>>()?;
        (positions.len() == self.positions.len()).then_some(positions)
    }

    /// The position of the channel with this index.
    pub fn get(&self, channel: usize) -> Option<Position> {
        self.positions.get(channel).copied().flatten()
    }

    pub fn set(&mut self, channel: usize, position: Option<Position>) {
        if let Some(slot) = self.positions.get_mut(channel) {
            *slot = position;
        }
    }

    /// The time of the oldest position, in ms.
    pub fn min_ms(&self) -> Option<u64> {
        self.positions.iter().flatten().map(|position| position.id.ms).min()
    }

    /// The length of the `id:` line in bytes.
    pub fn line_bytes(&self) -> usize {
        let entry = |position: &Option<Position>| {
            position.map_or(1, |position| hex_digits(position.id.ms) + 1 + seq_digits(position))
        };
        let commas = self.positions.len().saturating_sub(1);
        "id: 00000000:\n".len() + commas + self.positions.iter().map(entry).sum::<usize>()
    }

    /// Writes the `id:` line. This runs for each event and stream, and `write!` would take several times as long.
    pub fn write_line(&self, to: &mut BytesMut) {
        to.extend_from_slice(b"id: ");
        write_hex(to, self.tag.into(), 8);
        to.extend_from_slice(b":");
        for (i, position) in self.positions.iter().enumerate() {
            if i > 0 {
                to.extend_from_slice(b",");
            }
            if let Some(Position { id, .. }) = position {
                write_hex(to, id.ms, hex_digits(id.ms));
            }
            to.extend_from_slice(b"-");
            if let Some(position) = position {
                write_hex(to, position.id.seq, seq_digits(*position));
            }
        }
        to.extend_from_slice(b"\n");
    }
}

/// The number of hex digits of the sequence.
const fn seq_digits(position: Position) -> usize {
    if position.is_marked() { NOT_AN_ENTRY.len() } else { hex_digits(position.id.seq) }
}

/// The number of hex digits of a number.
const fn hex_digits(number: u64) -> usize {
    // `| 1`, because 0 has one digit too.
    (67 - (number | 1).leading_zeros() as usize) / 4
}

/// Writes a number in this many digits, at most 16.
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
    fn acks_are_times_or_stream_ids() {
        let check = |text: &str, expect: Option<StartPosition>| assert_eq!(parse_ack(text), expect, "{text:?}");
        check("0", Some(StartPosition::From(StreamId::ZERO)));
        check("1732464000000", Some(StartPosition::From(StreamId::new(1_732_464_000_000, 0))));
        check("5-7", Some(StartPosition::Id(StreamId::new(5, 7))));
        check("5-0", Some(StartPosition::Id(StreamId::new(5, 0))));
        check("5-00", Some(StartPosition::Between(StreamId::new(5, 0))));
        check("5-18446744073709551615", Some(StartPosition::Between(StreamId::new(5, u64::MAX))));
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
    fn written_ids_resume_the_same_positions() {
        let channels = names(&["a", "b", "c"]);
        let mut positions = Positions::new(&channels);
        positions.set(0, Some(Position::entry(StreamId::new(0x193a, 1))));
        positions.set(2, Some(Position { id: StreamId::new(u64::MAX, u64::MAX), is_entry: false }));
        let mut line = BytesMut::new();
        positions.write_line(&mut line);
        assert_eq!(line.len(), positions.line_bytes());
        let line = String::from_utf8(line.to_vec()).expect("text");
        let id = line.strip_prefix("id: ").and_then(|l| l.strip_suffix('\n')).expect("a line");
        assert_eq!(&id[8..], ":193a-1,-,ffffffffffffffff-ffffffffffffffff");
        let mut resumed = Positions::new(&channels);
        resumed.resume(id);
        assert_eq!(resumed.positions, positions.positions);
        assert_eq!(resumed.min_ms(), Some(0x193a));
    }

    #[test]
    fn position_that_is_not_an_entry_stays_one() {
        let check = |position: Position, text: &str, start: StartPosition| {
            assert_eq!(parse_ack(text), Some(start));
            let channels = names(&["a"]);
            let mut positions = Positions::new(&channels);
            positions.set(0, Some(position));
            let mut line = BytesMut::new();
            positions.write_line(&mut line);
            assert_eq!(line.len(), positions.line_bytes());
            let line = String::from_utf8(line.to_vec()).expect("text");
            let mut resumed = Positions::new(&channels);
            resumed.resume(line.trim().strip_prefix("id: ").expect("a line"));
            assert_eq!(resumed.get(0).map(Position::start), Some(start), "{line}");
        };
        let id = StreamId::new(25, 0);
        check(Position::entry(id), "25-0", StartPosition::Id(id));
        check(Position { id, is_entry: false }, "25-00", StartPosition::Between(id));
        let id = StreamId::new(25, u64::MAX);
        check(Position { id, is_entry: false }, "25-18446744073709551615", StartPosition::Between(id));
        // An empty stream is not marked: nothing is before it.
        let position = Position { id: StreamId::ZERO, is_entry: false };
        check(position, "0-0", StartPosition::Id(StreamId::ZERO));
    }

    #[test]
    fn ids_are_hex_without_leading_zeros() {
        let numbers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]).chain([u64::MAX]);
        for number in numbers {
            let mut positions = Positions::new(&names(&["a", "b"]));
            positions.set(1, Some(Position::entry(StreamId::new(number, number / 3))));
            let mut line = BytesMut::new();
            positions.write_line(&mut line);
            let expect = format!("id: {:08x}:-,{number:x}-{:x}\n", positions.tag, number / 3);
            assert_eq!((&line[..], line.len()), (expect.as_bytes(), positions.line_bytes()));
        }
    }

    #[test]
    fn malformed_ids_and_those_of_other_lists_are_ignored() {
        let mut of_ab = Positions::new(&names(&["a", "b"]));
        of_ab.set(0, Some(Position::entry(StreamId::new(7, 7))));
        let tag = format!("{:08x}", of_ab.tag);
        let check = |id: &str| {
            let mut positions = Positions::new(&names(&["a", "b"]));
            positions.resume(id);
            assert_eq!(positions.positions, [None, None], "{id:?}");
        };
        for list in ["", "1-1", "1-1,2-2,3-3", "1-1,x-1", "1-1,2", "1-1,+2-1", "1-1,10000000000000000-0", "1-1, 2-2"] {
            check(&format!("{tag}:{list}"));
        }
        check("");
        check("42");
        check("1732464000000-0");
        check("zzzzzzzz:1-1,2-2");
        // Another list: the order of names counts, and where each ends.
        for other in [&["b", "a"][..], &["ab"], &["a", "b", "c"]] {
            assert_ne!(Positions::new(&names(other)).tag, of_ab.tag, "{other:?}");
        }
    }
}
