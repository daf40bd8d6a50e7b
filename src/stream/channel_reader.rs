//! One channel of a stream: it opens, follows the event buffer, and replays from the store what the buffer does not have.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::channel::frame::SequencedFrame;
use crate::channel::membership::{Cursor, Membership, OpenResult, PullResult, StartPosition};
use crate::event::StreamId;
use crate::stream::StreamContext;
use crate::stream::chunk::Chunk;
use crate::stream::position::{Position, Positions};
use crate::stream::replay::{ReplayPage, read_page};

pub(super) struct ChannelReader {
    /// The channel's index in the list of the URL.
    number: usize,
    pub membership: Membership,
    phase: ReadPhase,
}

enum ReadPhase {
    Opening {
        start: StartPosition,
        /// The memory of [`Membership::open`].
        required_read: Option<u64>,
        error_sent: bool,
    },
    Live(Cursor),
    /// A page is being read from the store. The number is the end of the event buffer before the read.
    Reading(Cursor, u64, Pin<Box<dyn Future<Output = ReplayPage> + Send>>),
    Replaying(Cursor, u64, Box<ReplayPage>),
}

impl ChannelReader {
    pub fn new(number: usize, membership: Membership, start: StartPosition) -> Self {
        Self { number, membership, phase: ReadPhase::Opening { start, required_read: None, error_sent: false } }
    }

    /// The position that the client asked for, while the channel is not open yet.
    pub fn pending_start(&self) -> Option<StreamId> {
        match self.phase {
            ReadPhase::Opening { start, .. } => start.position(),
            _ => None,
        }
    }

    /// Writes all frames that are available. Returns true if the chunk is full.
    pub fn advance(
        &mut self,
        context: &StreamContext,
        positions: &mut Positions,
        chunk: &mut Chunk,
        cx: &mut Context<'_>,
    ) -> bool {
        loop {
            match &mut self.phase {
                ReadPhase::Opening { start, required_read, error_sent } => {
                    match self.membership.open(*start, required_read, cx.waker()) {
                        OpenResult::Pending => return false,
                        OpenResult::Unreadable => {
                            if !std::mem::replace(error_sent, true) {
                                chunk.push_error(self.membership.name());
                            }
                            return false;
                        }
                        OpenResult::Opened(cursor, gap) => {
                            let position = Position { id: cursor.position, is_entry: cursor.is_entry };
                            positions.set(self.number, Some(position));
                            chunk.push_connected(positions, self.membership.name(), cursor.position);
                            if let Some(gap) = gap {
                                context.hub.metrics().gap(gap.reason.as_str());
                                chunk.push_gap(positions, self.membership.name(), gap);
                            }
                            self.phase = ReadPhase::Live(cursor);
                        }
                    }
                }
                ReadPhase::Live(cursor) => {
                    let number = self.number;
                    let sink = |frame: &SequencedFrame| chunk.push_frame(positions, number, frame);
                    match self.membership.pull(cursor, cx.waker(), sink) {
                        PullResult::Full => return true,
                        PullResult::Idle => return chunk.is_full(),
                        PullResult::StoreReset(gap) => {
                            positions.set(self.number, Some(Position::entry(cursor.position)));
                            context.hub.metrics().gap(gap.reason.as_str());
                            chunk.push_gap(positions, self.membership.name(), gap);
                        }
                        PullResult::ReplayNeeded => {
                            let cursor = *cursor;
                            self.phase = self.reading(context, cursor, true);
                        }
                    }
                }
                ReadPhase::Reading(cursor, buffer_end, page) => {
                    let Poll::Ready(page) = page.as_mut().poll(cx) else { return false };
                    self.phase = ReadPhase::Replaying(*cursor, *buffer_end, Box::new(page));
                }
                ReadPhase::Replaying(cursor, buffer_end, replay) => {
                    let mut pending = replay.pending.lock();
                    let Some(unsent) = pending.as_mut() else {
                        // The page was reclaimed.
                        drop(pending);
                        let cursor = *cursor;
                        self.phase = self.reading(context, cursor, false);
                        continue;
                    };
                    let mut push = |frame: &mut SequencedFrame| chunk.push_frame(positions, self.number, frame);
                    while let Some(frame) = unsent.frames.pop_front_if(&mut push) {
                        cursor.position = frame.position;
                    }
                    if !unsent.frames.is_empty() {
                        return true;
                    }
                    drop(pending);
                    let mut cursor = *cursor;
                    cursor.position = cursor.position.max(replay.end);
                    if !replay.page.complete {
                        cursor.existed_to = replay.page.last();
                    }
                    self.membership.rejoin(&mut cursor, &replay.page, *buffer_end);
                    let more = !replay.page.complete && cursor.needs_replay();
                    self.phase = if more { self.reading(context, cursor, false) } else { ReadPhase::Live(cursor) };
                }
            }
        }
    }

    fn reading(&self, context: &StreamContext, cursor: Cursor, is_first: bool) -> ReadPhase {
        let (client, channel) = (self.membership.client(), Arc::clone(self.membership.name()));
        let page = read_page(context.clone(), client, channel, cursor, is_first);
        ReadPhase::Reading(cursor, self.membership.buffer_end(), Box::pin(page))
    }
}
