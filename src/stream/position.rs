//! Positions of a client's stream: `last_ack_…` parameters and `Last-Event-ID` in requests, and `id:` lines in responses.

use std::collections::HashMap;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use crate::channel::cursor::StartPosition;
use crate::event::{ContentHash, StreamId, digits};
use crate::util::hex::{fill_hex, hex_digits};

/// Precedes the sequence of a position that is not the id of an entry, such as the time at which a channel started. As a number it changes
/// nothing, so readers that do not know it start there too. Without it, an entry that is not in the stream would look like one that was lost.
const NOT_AN_ENTRY: char = '0';

/// The position of a client in one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub id: StreamId,
    /// An entry of the stream had this id.
    pub is_entry: bool,
    /// The content of this entry, if it is known: after a failover another entry may have the id.
    pub content: Option<ContentHash>,
}

impl Position {
    /// The position after an entry.
    #[cfg(test)]
    pub const fn entry(id: StreamId) -> Self {
        Self { id, is_entry: true, content: None }
    }

    fn parsed(id: StreamId, seq: &str) -> Self {
        // No entry has the greatest sequence: that is a position just before the next millisecond.
        let is_marked = seq.len() > 1 && seq.starts_with(NOT_AN_ENTRY);
        Self { id, is_entry: !is_marked && id.seq != u64::MAX, content: None }
    }

    /// Where a stream starts that resumes from here.
    pub fn start(self) -> StartPosition {
        match (self.is_entry, self.content) {
            (true, Some(content)) => StartPosition::Entry { id: self.id, content },
            (true, None) => StartPosition::Id(self.id),
            (false, _) => StartPosition::Between(self.id),
        }
    }

    const fn is_marked(self) -> bool {
        !self.is_entry && self.id.seq != u64::MAX && self.id.ms > 0
    }
}

/// Parses a `last_ack_…`: a time in ms by the browser's clock, or a position.
pub fn parse_ack(text: &str) -> Option<StartPosition> {
    let time = digits(text).map(|ms| StartPosition::From(StreamId::new(ms, 0)));
    let position = || {
        let (id, seq): (StreamId, _) = (text.parse().ok()?, text.split_once('-')?.1);
        Some(if seq == "0" && id > StreamId::ZERO {
            StartPosition::IdOrTime(id)
        } else {
            Position::parsed(id, seq).start()
        })
    };
    time.or_else(position)
}

/// A client's position in one channel, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownPosition {
    /// It has none, or the URL has it.
    #[default]
    None,
    At(Position),
    /// It has one that cannot be used, and did not get the gap that says so.
    Unusable,
}

/// The `id:` of a frame: a position for each channel of the URL, in the order of the URL.
///
/// The format is `<name>:<ms>-<seq>-<content>,<name>:<ms>-<seq>,<name>:-,<name>:?`, with numbers in hex, `-` for no position and `?` for
/// [`KnownPosition::Unusable`]. The content is that of the entry; without it the position is the id of an entry whose content is not known.
/// The name is a hash of the channel's name. A browser returns the id as `Last-Event-ID` with the same URL. A client that has changed its
/// channels keeps the positions of those that are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions(Vec<(ChannelHash, KnownPosition)>);

/// The first bytes of the SHA-256 of a channel's name, in hex.
type ChannelHash = [u8; 8];

impl Positions {
    pub fn new(channels: &[String]) -> Self {
        let hash = |channel: &String| {
            let hash = Sha256::digest(channel);
            let mut text = ChannelHash::default();
            fill_hex(&mut text, u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]).into());
            text
        };
        Self(channels.iter().map(|channel| (hash(channel), KnownPosition::None)).collect())
    }

    /// Takes the positions from a `Last-Event-ID`: the id of an entry where there is one channel, else an `id:` of this list or of another
    /// one. Never an error, because an HTTP error would stop the reconnects of a browser.
    pub fn resume(&mut self, id: &[u8]) {
        let id = String::from_utf8_lossy(id);
        if let ([(_, position)], Ok(entry)) = (&mut *self.0, id.parse()) {
            let seq = id.split_once('-').map_or("", |(_, seq)| seq);
            *position = KnownPosition::At(Position::parsed(entry, seq));
            return;
        }
        let entries: Vec<Option<_>> = id.split(',').map(parse_entry).collect();
        let mut by_hash = HashMap::with_capacity(entries.len());
        for &(hash, position) in entries.iter().flatten() {
            // Two channels of that list may have the same hash.
            let is_disputed = by_hash.insert(hash, position).is_some_and(|other| other != position);
            if is_disputed {
                by_hash.insert(hash, KnownPosition::Unusable);
            }
        }
        let is_known = self.0.iter().any(|(own, _)| by_hash.contains_key(own));
        // A channel that is not in a list which is known and complete is new to the client.
        let other = if is_known && !entries.contains(&None) { KnownPosition::None } else { KnownPosition::Unusable };
        for (i, (own, position)) in self.0.iter_mut().enumerate() {
            let in_order =
                entries.get(i).copied().flatten().filter(|(hash, _)| hash == own).map(|(_, position)| position);
            *position = in_order.or_else(|| by_hash.get(own).copied()).unwrap_or(other);
        }
    }

    /// The position of the channel with this index.
    pub fn get(&self, channel: usize) -> KnownPosition {
        self.0.get(channel).map_or(KnownPosition::None, |(_, position)| *position)
    }

    pub fn set(&mut self, channel: usize, position: KnownPosition) {
        if let Some((_, slot)) = self.0.get_mut(channel) {
            *slot = position;
        }
    }

    /// The length of the `id:` line in bytes.
    pub fn line_bytes(&self) -> usize {
        let entry = |(hash, position): &(ChannelHash, KnownPosition)| {
            let position = match position {
                KnownPosition::At(position) => {
                    let content = position.content.map_or(0, |content| 1 + hex_digits(content.get().into()));
                    hex_digits(position.id.ms) + 1 + seq_digits(*position) + content
                }
                KnownPosition::None | KnownPosition::Unusable => 1,
            };
            hash.len() + 1 + position
        };
        let commas = self.0.len().saturating_sub(1);
        "id: \n".len() + commas + self.0.iter().map(entry).sum::<usize>()
    }

    /// Writes the `id:` line. This runs for each event and stream, and `write!` would take several times as long.
    pub fn write_line(&self, to: &mut BytesMut) {
        to.extend_from_slice(b"id: ");
        for (i, (hash, position)) in self.0.iter().enumerate() {
            if i > 0 {
                to.extend_from_slice(b",");
            }
            to.extend_from_slice(hash);
            match position {
                KnownPosition::None => to.extend_from_slice(b":-"),
                KnownPosition::Unusable => to.extend_from_slice(b":?"),
                KnownPosition::At(position) => {
                    to.extend_from_slice(b":");
                    write_hex(to, position.id.ms, hex_digits(position.id.ms));
                    to.extend_from_slice(b"-");
                    write_hex(to, position.id.seq, seq_digits(*position));
                    if let Some(content) = position.content {
                        let content = content.get().into();
                        to.extend_from_slice(b"-");
                        write_hex(to, content, hex_digits(content));
                    }
                }
            }
        }
        to.extend_from_slice(b"\n");
    }
}

/// One entry of an `id:`; `None` if it does not have the form of one. A position that is malformed is unusable.
fn parse_entry(entry: &str) -> Option<(ChannelHash, KnownPosition)> {
    let hex = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_plain.then(|| u64::from_str_radix(text, 16).ok())?
    };
    let position = |text: &str| {
        let (ms, rest) = text.split_once('-')?;
        let (seq, content) = rest.split_once('-').map_or((rest, None), |(seq, content)| (seq, Some(content)));
        let position = Position::parsed(StreamId::new(hex(ms)?, hex(seq)?), seq);
        let Some(content) = content else { return Some(position) };
        let content = u32::try_from(hex(content)?).ok().and_then(ContentHash::new)?;
        position.is_entry.then_some(Position { content: Some(content), ..position })
    };
    let (hash, text) = entry.split_once(':')?;
    hex(hash)?;
    let known = match text {
        "-" => KnownPosition::None,
        text => position(text).map_or(KnownPosition::Unusable, KnownPosition::At),
    };
    Some((hash.as_bytes().try_into().ok()?, known))
}

/// The number of hex digits of the sequence.
const fn seq_digits(position: Position) -> usize {
    hex_digits(position.id.seq) + if position.is_marked() { NOT_AN_ENTRY.len_utf8() } else { 0 }
}

/// Writes a number in this many digits, at most 16.
fn write_hex(to: &mut BytesMut, number: u64, digits: usize) {
    let mut text = [0; 16];
    fill_hex(&mut text[..digits], number);
    to.extend_from_slice(&text[..digits]);
}

#[cfg(test)]
mod tests;
