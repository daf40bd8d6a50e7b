//! A chunk of a stream's body. The formats of all its frames are here, except for that of events.

use std::fmt::Write;

use bytes::{Bytes, BytesMut};

use crate::channel::frame::{Gap, SequencedFrame};
use crate::event::{StreamId, json_string};
use crate::stream::position::{Position, Positions};

/// A chunk is full at this size. It bounds what a stream holds in addition to the socket's buffer.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

/// A chunk that is being written.
#[derive(Default)]
pub(super) struct Chunk {
    pub bytes: BytesMut,
    /// A large frame is not copied: it follows `bytes` as it is, and fills the chunk.
    pub remainder: Bytes,
    /// The number of events, for the metric.
    pub events: u64,
}

impl Chunk {
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK_BYTES || !self.remainder.is_empty()
    }

    /// Writes a frame: the stream's own `id:` line, then the bytes that all streams share. If the chunk is full, it writes
    /// nothing and returns false.
    pub fn push_frame(&mut self, positions: &mut Positions, number: usize, frame: &SequencedFrame) -> bool {
        if self.is_full() {
            return false;
        }
        positions.set(number, Some(Position::entry(frame.position)));
        if self.bytes.is_empty() {
            // Most chunks are one event. With the exact capacity there is one allocation, and no copy to shrink it.
            self.bytes.reserve(positions.line_bytes() + frame.bytes.len().min(CHUNK_BYTES));
        }
        positions.write_line(&mut self.bytes);
        if frame.bytes.len() < CHUNK_BYTES {
            self.bytes.extend_from_slice(&frame.bytes);
        } else {
            self.remainder = frame.bytes.clone();
        }
        self.events += u64::from(frame.gap.is_none());
        true
    }

    pub fn push_connected(&mut self, positions: &Positions, channel: &str, cursor: StreamId) {
        positions.write_line(&mut self.bytes);
        let channel = json_string(channel);
        // Writing to memory does not fail.
        let _ =
            write!(self.bytes, "data: {{\"type\":\"connected\",\"channel\":{channel},\"cursor\":\"{cursor}\"}}\n\n");
    }

    /// Writes a gap of this stream alone. Gaps of the channel come as frames.
    pub fn push_gap(&mut self, positions: &Positions, channel: &str, gap: Gap) {
        positions.write_line(&mut self.bytes);
        self.bytes.extend_from_slice(&gap.frame(gap.resumed, channel).bytes);
    }

    /// Writes that a channel cannot be read. It does not tell what the key holds instead.
    pub fn push_error(&mut self, channel: &str) {
        let text = json_string(&format!("channel {channel:?} cannot be read"));
        let _ = write!(self.bytes, "data: {{\"type\":\"error\",\"error\":{text}}}\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::frame::GapReason;
    use crate::event::user_frame;

    fn event(ms: u64, frame: &Bytes) -> SequencedFrame {
        SequencedFrame { position: StreamId::new(ms, 0), bytes: frame.clone(), gap: None }
    }

    #[test]
    fn frames_are_written_byte_for_byte() {
        let channels = ["team-red".to_owned(), "gr\u{fc}n\n".to_owned()];
        let mut positions = Positions::new(&channels);
        positions.set(1, Some(Position::entry(StreamId::new(255, 1))));
        let mut chunk = Chunk::default();
        chunk.push_connected(&positions, "team-red", StreamId::new(16, 0));
        let frame = user_frame(StreamId::new(17, 0), "e", "{\"a\":1}", "team-red");
        assert!(chunk.push_frame(&mut positions, 0, &event(17, &frame)));
        let (after, resumed) = (StreamId::new(17, 0), StreamId::new(19, 2));
        let gap = Gap { after, resumed, certain: true, reason: GapReason::Trimmed };
        chunk.push_gap(&positions, &channels[1], gap);
        chunk.push_error("team-red");
        let expect = concat!(
            "id: 1fb25166:-,ff-1\n",
            "data: {\"type\":\"connected\",\"channel\":\"team-red\",\"cursor\":\"16-0\"}\n\n",
            "id: 1fb25166:11-0,ff-1\n",
            "data: {\"id\":\"17-0\",\"data\":{\"a\":1},\"event\":\"e\",\"channel\":\"team-red\"}\n\n",
            "id: 1fb25166:11-0,ff-1\n",
            "data: {\"type\":\"gap\",\"channel\":\"gr\u{fc}n\\n\",\"after\":\"17-0\",\"resumed\":\"19-2\",\"certain\":true,\"reason\":\"trimmed\"}\n\n",
            "data: {\"type\":\"error\",\"error\":\"channel \\\"team-red\\\" cannot be read\"}\n\n",
        );
        assert_eq!(String::from_utf8_lossy(&chunk.bytes), expect);
    }

    #[test]
    fn large_frame_fills_the_chunk_and_is_not_copied() {
        let mut positions = Positions::new(&["c".to_owned()]);
        let mut chunk = Chunk::default();
        let large = Bytes::from(vec![b'x'; CHUNK_BYTES]);
        assert!(chunk.push_frame(&mut positions, 0, &event(1, &large)));
        assert_eq!(chunk.remainder.as_ptr(), large.as_ptr());
        assert!(!chunk.push_frame(&mut positions, 0, &event(2, &Bytes::from_static(b"data: x\n\n"))));
        assert_eq!(
            positions.get(0).map(|p| p.id),
            Some(StreamId::new(1, 0)),
            "a frame that was not written moves no position"
        );
    }
}
