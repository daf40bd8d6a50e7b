//! A stream's membership in a channel: it opens at a position, pulls frames from the event buffer, and rejoins the buffer
//! after it replayed older events from the store.

use std::sync::{Arc, Weak};
use std::task::Waker;

use crate::channel::delivery::Subscriber;
use crate::channel::frame::{Gap, GapReason, SequencedFrame};
use crate::channel::replay_source::{ProofToken, ReplaySource};
use crate::channel::sequencer::StoreReset;
use crate::channel::{Channel, ChannelState, Link};
use crate::event::{ContentHash, StreamId, short_hash};
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
    /// After the entry with this id, which the client has received.
    Id(StreamId),
    /// The same, with the content of the entry. If another one has the id now, the stream starts at `replay_since`, a time in ms.
    Entry { id: StreamId, content: ContentHash, replay_since: u64 },
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

    /// The same start, of a stream that gets no event from before this time in ms.
    pub fn not_before(self, replay_since: Option<u64>) -> Self {
        match self {
            Self::Entry { id, content, .. } => Self::Entry { id, content, replay_since: replay_since.unwrap_or(0) },
            _ => self,
        }
    }

    /// The content of the entry that the client has received last, if it is known.
    const fn content(self) -> Option<ContentHash> {
        if let Self::Entry { content, .. } = self { Some(content) } else { None }
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
    /// Before the reset that began the epoch, everything up to here was delivered to the stream. What returns of it is skipped.
    pub received_to: StreamId,
    /// The stream had an entry with the id `position`, as far as known.
    pub is_entry: bool,
    /// The content of this entry, if it is known.
    pub content: Option<ContentHash>,
    /// The time in ms where the stream continues if another entry has the id of an unchecked position.
    pub replay_since: u64,
    /// The position comes from the client, and nothing has shown yet that its entry exists, or has the content.
    pub is_unchecked: bool,
    /// The position may be a time, with which the stream has begun before.
    pub is_time: bool,
}

impl Cursor {
    fn new(channel: &ChannelState, position: StreamId, is_entry: bool) -> Self {
        let next_index = channel.buffer.index_after(position);
        let content = if is_entry { channel.content(position) } else { None };
        Self { position, next_index, epoch: channel.resets.epoch(), is_entry, content, ..Self::default() }
    }

    /// At the end of the channel's stream.
    fn at_end(channel: &ChannelState) -> Self {
        Self::new(channel, channel.last_id, channel.last_id > StreamId::ZERO)
    }

    /// After the entry with this id, as a client says. A read finds out whether it exists and has this content, unless the channel knows.
    fn after_entry(channel: &ChannelState, id: StreamId, start: StartPosition) -> Self {
        let content = start.content();
        let cursor = Self::new(channel, id, id > StreamId::ZERO);
        let is_known = match content {
            Some(_) => cursor.content == content,
            None => id == StreamId::ZERO || channel.knows(id),
        };
        let is_time = matches!(start, StartPosition::IdOrTime(_));
        let replay_since = if let StartPosition::Entry { replay_since, .. } = start { replay_since } else { 0 };
        if is_known {
            return Self { is_time, ..cursor };
        }
        Self { next_index: None, content, replay_since, is_unchecked: true, is_time, ..cursor }
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
}

/// A reset, and the last entry that a client has received and the store still has, if it is known.
type FoundReset<'a> = (&'a StoreReset, Option<StreamId>);

impl ChannelState {
    /// Whether an entry with this id exists, or existed a moment ago.
    fn knows(&self, id: StreamId) -> bool {
        id == self.last_id || self.buffer.has_position(id) || self.sequencer.has_read(id)
    }

    /// The content of the entry with this id, if it is known.
    fn content(&self, id: StreamId) -> Option<ContentHash> {
        self.sequencer.content(id).and_then(short_hash).or_else(|| self.buffer.content(id))
    }

    /// The reset that lost the entry with this id that a client has received, and whether that is certain: another entry may have the id now,
    /// which the client may have received instead, unless it has returned the content of the one that it received.
    fn reset_that_lost(&self, id: StreamId, received: Option<ContentHash>) -> Option<(FoundReset<'_>, bool)> {
        let content = self.sequencer.content(id);
        if received.is_some() && content.and_then(short_hash) == received {
            return None;
        }
        let found = self.resets.that_lost(id, content, received).filter(|_| content.is_some() || !self.knows(id))?;
        Some((found, found.0.certain && (content.is_none() || received.is_some())))
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
    /// Who takes new frames at once, with the number that it gave this channel.
    pub subscriber: Option<(Weak<dyn Subscriber>, usize)>,
    pub client: Arc<ClientKey>,
}

impl Member {
    pub fn new(client: &Arc<ClientKey>) -> Self {
        Self { waker: None, subscriber: None, client: Arc::clone(client) }
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
        if channel.link == Link::Live && !channel.sequencer.needs_proof() {
            match start {
                StartPosition::Tail => return OpenResult::Opened(Cursor::at_end(&channel), None),
                StartPosition::Unknown => {
                    let (certain, reason) = (false, GapReason::UnknownPosition);
                    let gap = Gap { after: None, resumed: last_id, certain, reason };
                    return OpenResult::Opened(Cursor::at_end(&channel), Some(gap));
                }
                StartPosition::From(at) if at >= last_id => return OpenResult::Opened(Cursor::at_end(&channel), None),
                StartPosition::From(id) => return OpenResult::Opened(Cursor::new(&channel, id, false), None),
                StartPosition::Id(id) | StartPosition::Entry { id, .. } | StartPosition::IdOrTime(id)
                    if id <= last_id =>
                {
                    let Some((found, certain)) = channel.reset_that_lost(id, start.content()) else {
                        return OpenResult::Opened(Cursor::after_entry(&channel, id, start), None);
                    };
                    return continue_after(found, certain, id, &channel);
                }
                StartPosition::Between(id) if id <= last_id => {
                    return OpenResult::Opened(Cursor::new(&channel, id, false), None);
                }
                StartPosition::Id(after)
                | StartPosition::Entry { id: after, .. }
                | StartPosition::IdOrTime(after)
                | StartPosition::Between(after) => {
                    // Another node may have delivered entries that this one has not read. Only a read that starts after this
                    // call proves that the entry is missing from the store.
                    let required = *required_read.get_or_insert(channel.reads.started + 1);
                    if channel.reads.completed >= required {
                        if let Some(found @ (reset, _)) = channel.resets.that_lost(after, None, start.content()) {
                            return continue_after(found, reset.certain, after, &channel);
                        }
                        let (certain, reason) = (last_id > StreamId::ZERO, GapReason::StoreReset);
                        let gap = Gap { after: None, resumed: last_id, certain, reason };
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

    /// From now on new frames of the channel go to the subscriber, which knows the channel by `reader`.
    pub fn deliver_to(&self, subscriber: Weak<dyn Subscriber>, reader: usize) {
        if let Some(member) = self.channel.state.lock().members.get_mut(self.member) {
            member.subscriber = Some((subscriber, reader));
        }
    }

    /// Passes the frames after the cursor to the sink until it returns false.
    pub fn pull(
        &self,
        cursor: &mut Cursor,
        waker: &Waker,
        mut sink: impl FnMut(&SequencedFrame) -> bool,
    ) -> PullResult {
        let channel = &mut *self.channel.state.lock();
        if let Some(gap) = cursor.enter_epoch(channel) {
            return PullResult::StoreReset(gap);
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
            let has_returned = frame.position <= cursor.received_to
                && frame.gap.is_none()
                && channel.sequencer.has_returned(frame.position);
            if !cursor.has(frame) {
                if !has_returned && !sink(frame) {
                    cursor.next_index = Some(index);
                    return PullResult::Full;
                }
                cursor.advance(frame);
            }
            index += 1;
        }
        cursor.next_index = Some(index);
        channel.register_waker(self.member, waker);
        PullResult::Idle
    }

    /// The channel, for a replay.
    pub fn replay_source(&self) -> ReplaySource {
        ReplaySource::new(&self.channel)
    }

    /// Whether a page counts that was read after this token was obtained.
    pub fn is_current(&self, token: ProofToken) -> bool {
        self.channel.is_current(token)
    }

    /// The buffer's end. A replay notes it before it reads the store, for [`Self::rejoin`].
    pub fn buffer_end(&self) -> u64 {
        self.channel.state.lock().buffer.end_index()
    }

    /// Continues in the buffer, if that reaches back to `cursor.position`, after a read brought everything up to there.
    /// `page` is the result of the read and `buffer_end` the end of the buffer before it.
    pub fn rejoin(&self, cursor: &mut Cursor, page: &Page, buffer_end: u64) {
        let channel = self.channel.state.lock();
        if cursor.epoch != channel.resets.epoch() {
            // The next pull reports the store reset.
            return;
        }
        cursor.next_index = if page.exists {
            if let Some(last) = page.last().filter(|_| page.complete) {
                cursor.advance_to(last, false);
            }
            channel.buffer.index_after(cursor.position)
        } else {
            // Without a key, the only later entries are those that the buffer received since.
            channel.buffer.frames_from(buffer_end).is_some().then_some(buffer_end)
        };
        // The stream ends before the buffer starts, so the store was reset. The channel's own read detects that.
        if cursor.next_index.is_none() && page.complete {
            self.channel.request_read(channel);
        }
    }
}

impl Cursor {
    /// Takes notice of a store reset. Returns the gap, if the stream has received entries after the position where the channel continues.
    fn enter_epoch(&mut self, channel: &ChannelState) -> Option<Gap> {
        let epoch = channel.resets.epoch();
        let missed = epoch.wrapping_sub(self.epoch);
        if missed == 0 {
            return None;
        }
        let (reset, after) = channel.resets.least_since(self.epoch)?;
        self.epoch = epoch;
        self.next_index = channel.buffer.index_after(self.position.min(reset.position));
        if self.position <= reset.position {
            return None;
        }
        // Of a reset that is not the last one, the entry that follows may be lost, too.
        let resumed = if missed == 1 { reset.resumed } else { channel.last_id };
        let (certain, reason) = (reset.certain, GapReason::StoreReset);
        let gap = Gap { after, resumed, certain, reason };
        self.received_to = if missed == 1 { self.position } else { StreamId::ZERO };
        (self.position, self.is_entry, self.is_unchecked) = (reset.position, reset.common.is_some(), false);
        self.content = channel.content(self.position).filter(|_| self.is_entry);
        Some(gap)
    }
}

/// Opens after a reset that lost the entry which the client has received last.
fn continue_after(
    (reset, after): FoundReset<'_>,
    certain: bool,
    received: StreamId,
    channel: &ChannelState,
) -> OpenResult {
    let cursor = Cursor::new(channel, reset.position, reset.common.is_some());
    let is_current = channel.resets.current() == Some(reset);
    let resumed = if is_current { reset.resumed } else { channel.last_id };
    let gap = Gap { after, resumed, certain, reason: GapReason::StoreReset };
    let received_to = if is_current { received } else { StreamId::ZERO };
    OpenResult::Opened(Cursor { received_to, ..cursor }, Some(gap))
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(hub) = self.channel.hub.upgrade() {
            hub.leave(&self.channel, self.member);
        }
    }
}
