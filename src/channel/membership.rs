//! A stream's membership in a channel: it opens at a position, pulls frames from the event buffer, and rejoins the buffer
//! after it replayed older events from the store.

use std::sync::{Arc, Weak};
use std::task::Waker;

use crate::channel::cursor::{Cursor, StartPosition};
use crate::channel::delivery::Subscriber;
use crate::channel::frame::{Gap, GapReason, SequencedFrame};
use crate::channel::replay_source::{ProofToken, ReplaySource};
use crate::channel::sequencer::StoreReset;
use crate::channel::{Channel, ChannelState, Link};
use crate::event::{ContentHash, StreamId, short_hash};
use crate::store::Page;
use crate::util::client_key::ClientKey;

/// A reset, and the last entry that a client has received and the store still has, if it is known.
type FoundReset<'a> = (&'a StoreReset, Option<StreamId>);

impl ChannelState {
    /// Whether an entry with this id exists, or existed a moment ago.
    pub(super) fn knows(&self, id: StreamId) -> bool {
        id == self.last_id || self.buffer.has_position(id) || self.sequencer.has_read(id)
    }

    /// The content of the entry with this id, if it is known.
    pub(super) fn content(&self, id: StreamId) -> Option<ContentHash> {
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

    /// Finds the cursor to start with, and gives it this [`Cursor::floor`]. `required_read` is this call's memory: it starts as `None`, and the
    /// caller passes it to each call for the same start.
    pub fn open(
        &self,
        start: StartPosition,
        floor: StreamId,
        required_read: &mut Option<u64>,
        waker: &Waker,
    ) -> OpenResult {
        match self.find(start, floor, required_read, waker) {
            OpenResult::Opened(cursor, gap) => OpenResult::Opened(Cursor { floor, ..cursor }, gap),
            result => result,
        }
    }

    fn find(
        &self,
        start: StartPosition,
        floor: StreamId,
        required_read: &mut Option<u64>,
        waker: &Waker,
    ) -> OpenResult {
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
                    return continue_after(found, certain, id, floor, &channel);
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
                            return continue_after(found, reset.certain, after, floor, &channel);
                        }
                        if last_id > StreamId::ZERO {
                            return OpenResult::Opened(Cursor::beyond_end(&channel, after), None);
                        }
                        let (certain, reason) = (false, GapReason::StoreReset);
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

/// Opens after a reset that lost the entry which the client has received last.
fn continue_after(
    (reset, after): FoundReset<'_>,
    certain: bool,
    received: StreamId,
    floor: StreamId,
    channel: &ChannelState,
) -> OpenResult {
    let mut cursor = Cursor::new(channel, reset.position, reset.common.is_some());
    if after.is_none() {
        cursor.raise_to(floor.min(received));
    }
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
