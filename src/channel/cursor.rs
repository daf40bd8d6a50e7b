//! Where a stream wants to start in a channel, and where it is.

use crate::channel::ChannelState;
use crate::channel::frame::{Gap, GapReason, SequencedFrame};
use crate::channel::sequencer::start_after_unknown_loss;
use crate::event::{ContentHash, StreamId};

/// Where a stream wants to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// At the end of the channel's stream.
    Tail,
    /// The same, after a gap: the client has a position that cannot be used.
    Unknown,
    /// After this position. It need not be the id of an entry: it may be a time on the client's clock.
    From(StreamId),
    /// After the entry with this id, which the client has received.
    Id(StreamId),
    /// The same, with the content of the entry: another one may have the id now.
    Entry { id: StreamId, content: ContentHash },
    /// The same, or after a time: the `cursor` of a `connected` frame does not tell them apart.
    IdOrTime(StreamId),
    /// After this position, which the client was given and which is not that of an entry, such as the time at which it started.
    Between(StreamId),
}

impl StartPosition {
    /// The position, if the client has one.
    pub const fn position(self) -> Option<StreamId> {
        match self {
            Self::Tail | Self::Unknown => None,
            Self::From(id) | Self::Id(id) | Self::Entry { id, .. } | Self::IdOrTime(id) | Self::Between(id) => Some(id),
        }
    }

    /// The content of the entry that the client has received last, if it is known.
    pub(super) const fn content(self) -> Option<ContentHash> {
        if let Self::Entry { content, .. } = self { Some(content) } else { None }
    }
}

/// Where a stream is in a channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Everything up to here was delivered to the stream.
    pub position: StreamId,
    /// The buffer index of the next frame; `None` while the stream has to read from the store.
    pub(super) next_index: Option<u64>,
    /// The epoch of the channel that `position` was checked against.
    pub(super) epoch: u32,
    /// Entries between `position` and this id existed. If the store has none of them, they were trimmed.
    pub existed_to: StreamId,
    /// Before the reset that began the epoch, everything up to here was delivered to the stream. What returns of it is skipped.
    pub received_to: StreamId,
    /// The stream had an entry with the id `position`, as far as known.
    pub is_entry: bool,
    /// The content of this entry, if it is known.
    pub content: Option<ContentHash>,
    /// The stream never goes back to before this position when it is not known which entries the store lost.
    pub floor: StreamId,
    /// The position comes from the client, and nothing has shown yet that its entry exists, or has the content.
    pub is_unchecked: bool,
    /// The store lost the entry of the client's position, which is not `position`: the stream continues after this one, with a gap.
    pub restart: Option<StreamId>,
    /// The position may be a time, with which the stream has begun before.
    pub is_time: bool,
}

impl Cursor {
    pub(super) fn new(channel: &ChannelState, position: StreamId, is_entry: bool) -> Self {
        let next_index = channel.buffer.index_after(position);
        let content = if is_entry { channel.content(position) } else { None };
        Self { position, next_index, epoch: channel.resets.epoch(), is_entry, content, ..Self::default() }
    }

    /// At the end of the channel's stream.
    pub(super) fn at_end(channel: &ChannelState) -> Self {
        Self::new(channel, channel.last_id, channel.last_id > StreamId::ZERO)
    }

    /// After the entry with this id, as a client says. A read finds out whether it exists and has this content, unless the channel knows.
    pub(super) fn after_entry(channel: &ChannelState, id: StreamId, start: StartPosition) -> Self {
        let content = start.content();
        let cursor = Self::new(channel, id, id > StreamId::ZERO);
        let is_known = match content {
            Some(_) => cursor.content == content,
            None => id == StreamId::ZERO || channel.knows(id),
        };
        let is_time = matches!(start, StartPosition::IdOrTime(_));
        if is_known {
            return Self { is_time, ..cursor };
        }
        Self { next_index: None, content, is_unchecked: true, is_time, ..cursor }
    }

    /// At the end of the channel's stream, until a read finds the entries after an earlier position: the position of the client is beyond the end.
    pub(super) fn beyond_end(channel: &ChannelState, position: StreamId) -> Self {
        let restart = Some(start_after_unknown_loss(position, channel.last_id));
        Self { next_index: None, restart, ..Self::at_end(channel) }
    }

    /// Whether the store lost the entry of the client's position, and the client has not received the gap that says so.
    pub fn awaits_gap(&self) -> bool {
        self.restart.is_some()
    }

    /// A read has compared the position of the client with the store.
    pub fn confirm(&mut self) {
        (self.is_unchecked, self.restart) = (false, None);
    }

    /// Goes forward to a position if it is before it.
    pub(super) fn raise_to(&mut self, position: StreamId) {
        // The index stays: a frame up to the position is skipped.
        self.advance_to(position, false);
    }

    /// Whether the next frame has to be read from the store.
    pub fn needs_replay(&self) -> bool {
        self.next_index.is_none()
    }

    /// The index of the next frame, in this epoch; `None` if the stream has to look for itself.
    pub fn index_in(&self, epoch: u32) -> Option<u64> {
        self.next_index.filter(|_| self.epoch == epoch)
    }

    /// The stream has received all frames before this index.
    pub fn advance_to_index(&mut self, index: u64) {
        self.next_index = Some(index);
    }

    /// Whether the stream has this frame already.
    pub fn has(&self, frame: &SequencedFrame) -> bool {
        // An entry that waited for its notification enters the buffer later than a replay may have read it. A stream that opened or rejoined
        // in between has already got it.
        frame.position < self.position || (frame.position == self.position && frame.gap.is_none())
    }

    /// The epoch of the channel that the position belongs to.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The stream has received this frame.
    pub fn advance(&mut self, frame: &SequencedFrame) {
        self.position = frame.position;
        (self.is_entry, self.content) = (frame.is_at_entry(), frame.content);
    }

    /// The stream has received everything up to this position.
    pub fn advance_to(&mut self, position: StreamId, is_entry: bool) {
        if position > self.position {
            (self.position, self.is_entry, self.content) = (position, is_entry, None);
        }
    }

    /// Takes notice of a store reset. Returns the gap, if the stream has received entries after the position where the channel continues.
    pub(super) fn enter_epoch(&mut self, channel: &ChannelState) -> Option<Gap> {
        let epoch = channel.resets.epoch();
        let missed = epoch.wrapping_sub(self.epoch);
        if missed == 0 {
            return None;
        }
        let (reset, after) = channel.resets.least_since(self.epoch)?;
        self.epoch = epoch;
        if self.is_unchecked || self.awaits_gap() {
            // A read compares the position with the store first.
            self.restart = self.restart.map(|position| position.min(reset.position));
            self.next_index = None;
            return None;
        }
        self.next_index = channel.buffer.index_after(self.position.min(reset.position));
        if self.position <= reset.position {
            return None;
        }
        // Of a reset that is not the last one, the entry that follows may be lost, too.
        let resumed = if missed == 1 { reset.resumed } else { channel.last_id };
        let (certain, reason) = (reset.certain, GapReason::StoreReset);
        let gap = Gap { after, resumed, certain, reason };
        let received_to = self.position;
        self.received_to = if missed == 1 { received_to } else { StreamId::ZERO };
        (self.position, self.is_entry) = (reset.position, reset.common.is_some());
        self.content = channel.content(self.position).filter(|_| self.is_entry);
        if after.is_none() {
            self.raise_to(self.floor.min(received_to));
        }
        Some(gap)
    }
}
