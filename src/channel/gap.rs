//! Gaps.

use bytes::Bytes;

use crate::event::{StreamId, json_string};

/// Why entries are or may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Trimmed, deleted or expired before they were read.
    Trimmed,
    /// The store holds less than it did: a restart or a failover lost the end of the stream, or the key was made anew.
    WentBack,
    /// An entry over `stream.max-event`.
    TooLarge,
}

impl GapReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Trimmed, Self::WentBack, Self::TooLarge];

    /// As the `gap` frame says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::WentBack => "store-went-back",
            Self::TooLarge => "too-large",
        }
    }
}

/// Entries between two ids that are or may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last position before it.
    pub after: StreamId,
    /// Where the stream goes on: the first entry behind the hole, or the stream's last id; the entry itself when that was
    /// too large.
    pub resumed: StreamId,
    /// The store proves that something is gone.
    pub certain: bool,
    /// What happened.
    pub why: GapReason,
}

impl Gap {
    /// The `data:` part of its block.
    #[must_use]
    pub fn frame(&self, channel: &str) -> Bytes {
        let Self { after, resumed, certain, why } = self;
        let (channel, why) = (json_string(channel), why.as_str());
        Bytes::from(format!(
            "data: {{\"type\":\"gap\",\"channel\":{channel},\"after\":\"{after}\",\"resumed\":\"{resumed}\",\
             \"certain\":{certain},\"reason\":\"{why}\"}}\n\n"
        ))
    }
}
