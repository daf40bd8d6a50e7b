//! A stream's membership in a channel: it opens at a position, pulls frames from the event buffer, and rejoins the buffer
//! after it replayed older events from the store.

use std::sync::Arc;
use std::task::Waker;

use crate::channel::frame::{Gap, GapReason, SequencedFrame};
use crate::channel::{Channel, ChannelState, Link};
use crate::event::StreamId;
use crate::store::Page;
use crate::util::client_key::ClientKey;

/// Where a stream wants to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// At the end of the channel's stream.
    Tail,
    /// The same, after a gap: the client has a position that cannot be used.
    Unknown,
    /// After this position. It need not be the id of an entry: it may be a time on the client's clock.
    From(StreamId),
    /// After this entry, which the client has received.
    Id(StreamId),
    /// After this position, which the client was given and which is not that of an entry, such as the time at which it started.
    Between(StreamId),
}

impl StartPosition {
    /// The position, if the client has one.
    pub const fn position(self) -> Option<StreamId> {
        match self {
            Self::Tail | Self::Unknown => None,
            Self::From(id) | Self::Id(id) | Self::Between(id) => Some(id),
        }
    }
}

/// Where a stream is in a channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Everything up to here was delivered to the stream.
    pub position: StreamId,
    /// The buffer index of the next frame; `None` while the stream has to read from the store.
    next_index: Option<u64>,
    /// The epoch of the channel that `position` was checked against.
    epoch: u32,
    /// Entries between `position` and this id existed. If the store has none of them, they were trimmed.
    pub existed_to: StreamId,
    /// The stream had an entry with the id `position`, as far as known.
    pub is_entry: bool,
}

impl Cursor {
    fn new(channel: &ChannelState, position: StreamId, is_entry: bool) -> Self {
        let next_index = channel.buffer.index_after(position);
        Self { position, next_index, epoch: channel.epoch, is_entry, ..Self::default() }
    }

    /// At the end of the channel's stream.
    fn at_end(channel: &ChannelState) -> Self {
        Self::new(channel, channel.last_id, channel.last_id > StreamId::ZERO)
    }

    /// Whether the next frame has to be read from the store.
    pub fn needs_replay(&self) -> bool {
        self.next_index.is_none()
    }
}

/// The result of [`Membership::open`].
#[derive(Debug)]
pub enum OpenResult {
    /// The channel is not current yet. The waker is called when that changes.
    Pending,
    /// The key does not hold a stream, or the store refuses the subscription. The waker is called when that changes.
    Unreadable,
    /// The cursor, and the gap before it if entries are known to be missing.
    Opened(Cursor, Option<Gap>),
}

/// The result of [`Membership::pull`].
#[derive(Debug)]
pub enum PullResult {
    /// The sink is full.
    Full,
    /// All frames were pulled. The waker is called when there are more.
    Idle,
    /// The next frame is not in the buffer: read the store after `cursor.position`, then [`Membership::rejoin`].
    ReplayNeeded,
    /// The store was reset to before the cursor, which is now at the end of the stream.
    StoreReset(Gap),
}

/// A stream's membership in a channel. It keeps the channel subscribed.
pub struct Membership {
    pub(super) channel: Arc<Channel>,
    /// The stream's slot in the channel's `members`.
    member: usize,
}

/// A member of a channel, as the channel sees it.
pub(super) struct Member {
    /// Set while the member waits.
    pub waker: Option<Waker>,
    pub client: Arc<ClientKey>,
}

impl Member {
    pub fn new(client: &Arc<ClientKey>) -> Self {
        Self { waker: None, client: Arc::clone(client) }
    }
}

impl Membership {
    pub(super) fn new((channel, member): (Arc<Channel>, usize)) -> Self {
        Self { channel, member }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.channel.name
    }

    pub fn client(&self) -> Arc<ClientKey> {
        let channel = self.channel.state.lock();
        channel.members.get(self.member).map_or_else(Arc::default, |member| Arc::clone(&member.client))
    }

    /// Finds the cursor to start with. `required_read` is this call's memory: it starts as `None`, and the caller passes it
    /// to each call for the same start.
    pub fn open(&self, start: StartPosition, required_read: &mut Option<u64>, waker: &Waker) -> OpenResult {
        let mut channel = self.channel.state.lock();
        let last_id = channel.last_id;
        if channel.link == Link::Live {
            match start {
                StartPosition::Tail => return OpenResult::Opened(Cursor::at_end(&channel), None),
                StartPosition::Unknown => {
                    let (certain, reason) = (false, GapReason::UnknownPosition);
                    let gap = Gap { after: None, resumed: last_id, certain, reason };
                    return OpenResult::Opened(Cursor::at_end(&channel), Some(gap));
                }
                StartPosition::From(at) if at >= last_id => return OpenResult::Opened(Cursor::at_end(&channel), None),
                StartPosition::From(id) => return OpenResult::Opened(Cursor::new(&channel, id, false), None),
                StartPosition::Id(id) if id <= last_id => {
                    return OpenResult::Opened(Cursor::new(&channel, id, id > StreamId::ZERO), None);
                }
                StartPosition::Between(id) if id <= last_id => {
                    return OpenResult::Opened(Cursor::new(&channel, id, false), None);
                }
                StartPosition::Id(after) | StartPosition::Between(after) => {
                    // Another node may have delivered entries that this one has not read. Only a read that starts after this
                    // call proves that the entry is missing from the store.
                    let required = *required_read.get_or_insert(channel.reads.started + 1);
                    if channel.reads.completed >= required {
                        let (certain, reason) = (last_id > StreamId::ZERO, GapReason::StoreReset);
                        let gap = Gap { after: Some(after), resumed: last_id, certain, reason };
                        return OpenResult::Opened(Cursor::at_end(&channel), Some(gap));
                    }
                    channel.reads.awaited = true;
                }
            }
        }
        channel.register_waker(self.member, waker);
        if matches!(channel.link, Link::WrongType | Link::Refused) {
            return OpenResult::Unreadable;
        }
        if channel.reads.awaited {
            self.channel.request_read(channel);
        }
        OpenResult::Pending
    }

    /// Lets the waker be called when the channel has news, or when events may be delivered again.
    pub fn wait(&self, waker: &Waker) {
        self.channel.state.lock().register_waker(self.member, waker);
    }

    /// Passes the frames after the cursor to the sink until it returns false.
    pub fn pull(
        &self,
        cursor: &mut Cursor,
        waker: &Waker,
        mut sink: impl FnMut(&SequencedFrame) -> bool,
    ) -> PullResult {
        let mut channel = self.channel.state.lock();
        if cursor.epoch != channel.epoch {
            let reset_to = channel.reset_to;
            cursor.epoch = channel.epoch;
            cursor.next_index = channel.buffer.index_after(cursor.position.min(reset_to));
            if cursor.position > reset_to {
                let (after, reason) = (Some(cursor.position), GapReason::StoreReset);
                cursor.position = reset_to;
                return PullResult::StoreReset(Gap { after, resumed: reset_to, certain: true, reason });
            }
        }
        let Some((mut index, frames)) =
            cursor.next_index.and_then(|index| Some((index, channel.buffer.frames_from(index)?)))
        else {
            if cursor.next_index.take().is_some() {
                cursor.existed_to = channel.buffer.floor();
            }
            return PullResult::ReplayNeeded;
        };
        for frame in frames {
            // An entry that waited for its notification enters the buffer later than a replay may have read it. A stream
            // that opened or rejoined in between has already got it.
            let is_delivered =
                frame.position < cursor.position || (frame.position == cursor.position && frame.gap.is_none());
            if !is_delivered {
                if !sink(frame) {
                    cursor.next_index = Some(index);
                    return PullResult::Full;
                }
                cursor.position = frame.position;
            }
            index += 1;
        }
        cursor.next_index = Some(index);
        channel.register_waker(self.member, waker);
        PullResult::Idle
    }

    /// The buffer's end. A replay notes it before it reads the store, for [`Self::rejoin`].
    pub fn buffer_end(&self) -> u64 {
        self.channel.state.lock().buffer.end_index()
    }

    /// Continues in the buffer, if that reaches back to `cursor.position`, after a read brought everything up to there.
    /// `page` is the result of the read and `buffer_end` the end of the buffer before it.
    pub fn rejoin(&self, cursor: &mut Cursor, page: &Page, buffer_end: u64) {
        let channel = self.channel.state.lock();
        if cursor.epoch != channel.epoch {
            // The next pull reports the store reset.
            return;
        }
        cursor.next_index = match page.stream {
            // Without a key, the only later entries are those that the buffer received since.
            None => channel.buffer.frames_from(buffer_end).is_some().then_some(buffer_end),
            Some(stream) => {
                if page.complete {
                    cursor.position = cursor.position.max(stream.last);
                }
                channel.buffer.index_after(cursor.position)
            }
        };
        // The stream ends before the buffer starts, so the store was reset. The channel's own read detects that.
        if cursor.next_index.is_none() && page.complete {
            self.channel.request_read(channel);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(hub) = self.channel.hub.upgrade() {
            hub.leave(&self.channel, self.member);
        }
    }
}
