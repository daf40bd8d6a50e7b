//! The frames that a channel delivers to its streams: events, and gaps, which report that entries are or may be missing.

use bytes::Bytes;

use crate::event::{ContentHash, StreamId, json_string};
use crate::util::named::named_variants;

/// A frame that goes out to the streams of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequencedFrame {
    /// The position of a client that has received the frame.
    pub position: StreamId,
    /// Of the entry at the position, if there is one whose content is known.
    pub content: Option<ContentHash>,
    /// The `data:` line and the blank line after it.
    pub bytes: Bytes,
    /// The reason, if the frame reports a gap; `None` for an event.
    pub gap: Option<GapReason>,
}

impl SequencedFrame {
    /// Whether its position is the id of an entry.
    pub const fn is_at_entry(&self) -> bool {
        matches!(self.gap, None | Some(GapReason::TooLarge))
    }
}

/// Why entries are or may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Trimmed, deleted or expired before they were read.
    Trimmed,
    /// The store holds less than before: a restart or a failover lost the end of the stream, or the key was created again.
    StoreReset,
    /// The entry is larger than `stream.max-event-size`.
    TooLarge,
    /// The client has a position that cannot be used, so the stream starts at the end.
    UnknownPosition,
}

named_variants!(GapReason {
    Trimmed => "trimmed",
    StoreReset => "store-reset",
    TooLarge => "too-large",
    UnknownPosition => "unknown-position",
});

/// A range of ids whose entries are or may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last position before the gap; `None` if it is not known.
    pub after: Option<StreamId>,
    /// Where the stream continues: the first entry after the gap, or the stream's last id. For an entry that is too large,
    /// its own id.
    pub resumed: StreamId,
    /// The store proves that entries are missing. Trimming alone often leaves no proof.
    pub certain: bool,
    pub reason: GapReason,
}

impl Gap {
    /// The frame that reports the gap; `position` is that of a client that has received it.
    pub fn frame(&self, position: StreamId, channel: &str) -> SequencedFrame {
        let Self { after, resumed, certain, reason } = self;
        let (channel, reason) = (json_string(channel), reason.as_str());
        let after = after.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
        let bytes = format!(
            "data: {{\"type\":\"gap\",\"channel\":{channel},\"after\":{after},\"resumed\":\"{resumed}\",\
             \"certain\":{certain},\"reason\":\"{reason}\"}}\n\n"
        );
        SequencedFrame { position, content: None, bytes: bytes.into(), gap: Some(self.reason) }
    }
}
