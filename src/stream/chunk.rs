//! A piece of a stream's body.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};

use crate::channel::gap::Gap;
use crate::channel::sequencer::SequencedFrame;
use crate::event::{StreamId, json_string};
use crate::stream::position::Positions;
use crate::telemetry::metrics::metrics;

/// A piece of the body is about so large at the most; beyond it lies what the socket holds.
pub(super) const PIECE: usize = 16 * 1024;

/// A piece of the body that is being written.
#[derive(Default)]
pub(super) struct Chunk {
    pub bytes: BytesMut,
    /// A large frame is not copied: it follows as it is, and ends the piece.
    pub rest: Bytes,
    pub events: u64,
}

impl Chunk {
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE || !self.rest.is_empty()
    }

    /// Writes an item's block: the client's own `id:` line, then the bytes that all clients share. False, and nothing
    /// written, if the piece is full.
    pub fn item(&mut self, positions: &mut Positions, number: usize, item: &SequencedFrame) -> bool {
        if self.is_full() {
            return false;
        }
        positions.set(number, Some(item.position));
        if self.bytes.is_empty() {
            // Most pieces are one event: with room for just that, it is allocated once and has to be fitted no more.
            self.bytes.reserve(positions.length() + item.bytes.len().min(PIECE));
        }
        positions.write(&mut self.bytes);
        if item.bytes.len() < PIECE {
            self.bytes.extend_from_slice(&item.bytes);
        } else {
            self.rest = item.bytes.clone();
        }
        self.events += u64::from(item.gap.is_none());
        true
    }

    pub fn connected(&mut self, positions: &Positions, channel: &str, cursor: StreamId) {
        positions.write(&mut self.bytes);
        let channel = json_string(channel);
        // Writing to memory does not fail.
        let _ =
            write!(self.bytes, "data: {{\"type\":\"connected\",\"channel\":{channel},\"cursor\":\"{cursor}\"}}\n\n");
    }

    pub fn gap(&mut self, positions: &Positions, channel: &str, gap: Gap) {
        metrics().gap(gap.reason.as_str());
        positions.write(&mut self.bytes);
        self.bytes.extend_from_slice(&gap.frame(channel));
    }

    pub fn error(&mut self, channel: &str) {
        let text = json_string(&format!("channel {channel:?} cannot be read"));
        let _ = write!(self.bytes, "data: {{\"type\":\"error\",\"error\":{text}}}\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::gap::GapReason;
    use crate::event::user_frame;

    fn event(ms: u64, frame: &Bytes) -> SequencedFrame {
        SequencedFrame { position: StreamId::new(ms, 0), bytes: frame.clone(), gap: None }
    }

    /// The bytes of every frame that a stream writes itself.
    #[test]
    fn blocks_as_they_are_written() {
        let channels = ["team-red".to_owned(), "gr\u{fc}n\n".to_owned()];
        let mut positions = Positions::new(&channels);
        positions.set(1, Some(StreamId::new(255, 1)));
        let mut out = Chunk::default();
        out.connected(&positions, "team-red", StreamId::new(16, 0));
        let frame = user_frame(StreamId::new(17, 0), "e", "{\"a\":1}", "team-red");
        assert!(out.item(&mut positions, 0, &event(17, &frame)));
        let gap = Gap {
            after: StreamId::new(17, 0),
            resumed: StreamId::new(19, 2),
            certain: true,
            reason: GapReason::Trimmed,
        };
        out.gap(&positions, &channels[1], gap);
        out.error("team-red");
        let expect = concat!(
            "id: 1fb25166:-,ff-1\n",
            "data: {\"type\":\"connected\",\"channel\":\"team-red\",\"cursor\":\"16-0\"}\n\n",
            "id: 1fb25166:11-0,ff-1\n",
            "data: {\"id\":\"17-0\",\"data\":{\"a\":1},\"event\":\"e\",\"channel\":\"team-red\"}\n\n",
            "id: 1fb25166:11-0,ff-1\n",
            "data: {\"type\":\"gap\",\"channel\":\"gr\u{fc}n\\n\",\"after\":\"17-0\",\"resumed\":\"19-2\",\"certain\":true,\"reason\":\"trimmed\"}\n\n",
            "data: {\"type\":\"error\",\"error\":\"channel \\\"team-red\\\" cannot be read\"}\n\n",
        );
        assert_eq!(String::from_utf8_lossy(&out.bytes), expect);
    }

    #[test]
    fn a_large_frame_ends_the_piece_and_is_not_copied() {
        let mut positions = Positions::new(&["c".to_owned()]);
        let mut out = Chunk::default();
        let large = Bytes::from(vec![b'x'; PIECE]);
        assert!(out.item(&mut positions, 0, &event(1, &large)));
        assert_eq!(out.rest.as_ptr(), large.as_ptr());
        assert!(!out.item(&mut positions, 0, &event(2, &Bytes::from_static(b"data: x\n\n"))));
        assert_eq!(positions.get(0), Some(StreamId::new(1, 0)), "nothing was written, so nothing was seen");
    }
}
