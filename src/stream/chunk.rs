//! A chunk of a stream's body. The formats of all its frames are here, except for that of events.

use std::fmt::{self, Write};

use bytes::{Bytes, BytesMut};

use crate::channel::frame::{Gap, SequencedFrame};
use crate::event::{StreamId, json_string};
use crate::stream::position::{KnownPosition, Position, Positions};

/// A chunk is full at this size. It bounds what a stream holds in addition to the socket's buffer.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

/// Room for the first block of a stream with a `connected` frame.
const FIRST_BLOCK_BYTES: usize = 128;

/// A chunk that is being written. Each frame completes a block, so that no block is without data: clients pass on an empty message for one.
pub(super) struct Chunk {
    pub bytes: BytesMut,
    /// A large frame is not copied: it follows `bytes` as it is, and fills the chunk.
    pub remainder: Bytes,
    /// The number of events, for the metric.
    pub events: u64,
    /// The next frame is the first one of the stream, and its block has begun.
    pub is_first: bool,
}

impl Chunk {
    pub fn new(is_first: bool) -> Self {
        Self { bytes: BytesMut::new(), remainder: Bytes::new(), events: 0, is_first }
    }

    /// Begins the stream's first block. Without its end, so that the head of the response can go out before there is a frame.
    pub fn push_retry(&mut self, ms: u32) {
        self.bytes.reserve(FIRST_BLOCK_BYTES);
        let _ = writeln!(self.bytes, "retry: {ms}");
    }

    pub fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK_BYTES || !self.remainder.is_empty()
    }

    /// Writes a frame: the stream's own `id:` line, then the bytes that all streams share. If the chunk is full, it writes
    /// nothing and returns false.
    pub fn push_frame(&mut self, positions: &mut Positions, number: usize, frame: &SequencedFrame) -> bool {
        if self.is_full() {
            return false;
        }
        let SequencedFrame { position: id, content, .. } = *frame;
        positions.set(number, KnownPosition::At(Position { id, is_entry: frame.is_at_entry(), content }));
        if self.bytes.is_empty() {
            // Most chunks are one event. With the exact capacity there is one allocation, and no copy to shrink it.
            self.bytes.reserve(positions.line_bytes() + frame.bytes.len().min(CHUNK_BYTES));
        }
        self.write_id(positions);
        if frame.bytes.len() < CHUNK_BYTES {
            self.bytes.extend_from_slice(&frame.bytes);
        } else {
            self.remainder = frame.bytes.clone();
        }
        self.events += u64::from(frame.gap.is_none());
        true
    }

    pub fn push_connected(&mut self, positions: &Positions, channel: &str, cursor: StreamId) {
        self.write_id(positions);
        self.bytes.extend_from_slice(b"data: {\"type\":\"connected\",\"channel\":");
        self.bytes.extend_from_slice(json_string(channel).as_bytes());
        // Writing to memory does not fail.
        let _ = write!(self.bytes, ",\"cursor\":\"{cursor}\"}}\n\n");
    }

    /// Writes a gap of this stream alone. Gaps of the channel come as frames.
    pub fn push_gap(&mut self, positions: &Positions, channel: &str, gap: Gap) {
        self.write_id(positions);
        self.bytes.extend_from_slice(&gap.frame(gap.resumed, channel).bytes);
    }

    /// Writes that a channel cannot be read. It does not tell what the key holds instead.
    pub fn push_error(&mut self, positions: &Positions, channel: &str) {
        let text = json_string(&format!("channel {channel:?} cannot be read"));
        self.push_system(positions, format_args!("{{\"type\":\"error\",\"error\":{text}}}"));
    }

    pub fn push_ping(&mut self, positions: &Positions, timestamp: u64) {
        self.push_system(positions, format_args!("{{\"type\":\"ping\",\"timestamp\":{timestamp}}}"));
    }

    pub fn push_reconnect(&mut self, positions: &Positions, timestamp: u64) {
        self.push_system(positions, format_args!("{{\"type\":\"reconnect\",\"timestamp\":{timestamp}}}"));
    }

    /// Writes a frame that moves no position. Only as the first frame it has an `id:`.
    fn push_system(&mut self, positions: &Positions, json: fmt::Arguments<'_>) {
        if self.is_first {
            self.write_id(positions);
        }
        let _ = write!(self.bytes, "data: {json}\n\n");
    }

    fn write_id(&mut self, positions: &Positions) {
        positions.write_line(&mut self.bytes);
        self.is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::frame::GapReason;
    use crate::event::user_frame;

    fn event(ms: u64, frame: &Bytes) -> SequencedFrame {
        SequencedFrame { position: StreamId::new(ms, 0), content: None, bytes: frame.clone(), gap: None }
    }

    #[test]
    fn frames_are_written_byte_for_byte() {
        let channels = ["team-red".to_owned(), "gr\u{fc}n\n".to_owned()];
        let mut positions = Positions::new(&channels);
        positions.set(1, KnownPosition::At(Position::entry(StreamId::new(255, 1))));
        let mut chunk = Chunk::new(true);
        chunk.push_retry(1500);
        chunk.push_connected(&positions, "team-red", StreamId::new(16, 0));
        let frame = user_frame(StreamId::new(17, 0), "e", "{\"a\":1}", "team-red");
        assert!(chunk.push_frame(&mut positions, 0, &event(17, &frame)));
        let (after, resumed) = (StreamId::new(17, 0), StreamId::new(19, 2));
        let gap = Gap { after: Some(after), resumed, certain: true, reason: GapReason::Trimmed };
        chunk.push_gap(&positions, &channels[1], gap);
        let unknown = Gap { after: None, resumed, certain: false, reason: GapReason::UnknownPosition };
        chunk.push_gap(&positions, "team-red", unknown);
        chunk.push_error(&positions, "team-red");
        chunk.push_ping(&positions, 7);
        chunk.push_reconnect(&positions, 8);
        let expect = concat!(
            "retry: 1500\n",
            "id: RED:-,GREEN:ff-1\n",
            "data: {\"type\":\"connected\",\"channel\":\"team-red\",\"cursor\":\"16-0\"}\n\n",
            "id: RED:11-0,GREEN:ff-1\n",
            "data: {\"id\":\"17-0\",\"data\":{\"a\":1},\"event\":\"e\",\"channel\":\"team-red\"}\n\n",
            "id: RED:11-0,GREEN:ff-1\n",
            "data: {\"type\":\"gap\",\"channel\":\"gr\u{fc}n\\n\",\"after\":\"17-0\",\"resumed\":\"19-2\",\"certain\":true,\"reason\":\"trimmed\"}\n\n",
            "id: RED:11-0,GREEN:ff-1\n",
            "data: {\"type\":\"gap\",\"channel\":\"team-red\",\"after\":null,\"resumed\":\"19-2\",\"certain\":false,\"reason\":\"unknown-position\"}\n\n",
            "data: {\"type\":\"error\",\"error\":\"channel \\\"team-red\\\" cannot be read\"}\n\n",
            "data: {\"type\":\"ping\",\"timestamp\":7}\n\n",
            "data: {\"type\":\"reconnect\",\"timestamp\":8}\n\n",
        );
        let expect = expect.replace("RED", "ac47c276").replace("GREEN", "d2d8a354");
        assert_eq!(String::from_utf8_lossy(&chunk.bytes), expect);
    }

    #[test]
    fn first_frame_has_the_positions_whatever_it_is() {
        let positions = Positions::new(&["a".to_owned()]);
        let check = |push: fn(&mut Chunk, &Positions), frame: &str| {
            let mut chunk = Chunk::new(true);
            push(&mut chunk, &positions);
            push(&mut chunk, &positions);
            assert_eq!(String::from_utf8_lossy(&chunk.bytes), format!("id: ca978112:-\n{frame}{frame}"));
        };
        check(|chunk, positions| chunk.push_ping(positions, 1), "data: {\"type\":\"ping\",\"timestamp\":1}\n\n");
        check(
            |chunk, positions| chunk.push_error(positions, "a"),
            "data: {\"type\":\"error\",\"error\":\"channel \\\"a\\\" cannot be read\"}\n\n",
        );
    }

    #[test]
    fn large_frame_fills_the_chunk_and_is_not_copied() {
        let mut positions = Positions::new(&["c".to_owned()]);
        let mut chunk = Chunk::new(false);
        let large = Bytes::from(vec![b'x'; CHUNK_BYTES]);
        assert!(chunk.push_frame(&mut positions, 0, &event(1, &large)));
        assert_eq!(chunk.remainder.as_ptr(), large.as_ptr());
        assert!(!chunk.push_frame(&mut positions, 0, &event(2, &Bytes::from_static(b"data: x\n\n"))));
        assert_eq!(
            positions.get(0),
            KnownPosition::At(Position::entry(StreamId::new(1, 0))),
            "a frame that was not written moves no position"
        );
    }
}
