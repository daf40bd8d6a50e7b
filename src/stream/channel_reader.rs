//! One channel of a stream: it opens, follows the event buffer, and replays from the store what the buffer does not have.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::channel::cursor::{Cursor, StartPosition};
use crate::channel::delivery::Batch;
use crate::channel::frame::{Gap, SequencedFrame};
use crate::channel::membership::{Membership, OpenResult, PullResult};
use crate::event::StreamId;
use crate::stream::StreamContext;
use crate::stream::chunk::{CHUNK_BYTES, Chunk};
use crate::stream::position::{KnownPosition, Position, Positions};
use crate::stream::replay::{ReplayPage, read_page};

/// What a stream did with a batch of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It has all frames.
    All,
    /// Its task has to be woken for the rest.
    Wake,
    /// Its task looks for the frames when it has done what it waits for.
    Later,
}

pub(super) struct ChannelReader {
    /// The channel's index in the list of the URL.
    number: usize,
    pub membership: Membership,
    /// See [`Cursor::floor`].
    floor: StreamId,
    phase: ReadPhase,
}

enum ReadPhase {
    Opening {
        start: StartPosition,
        /// The memory of [`Membership::open`].
        required_read: Option<u64>,
        error: ErrorFrame,
    },
    /// Open, but the client was not told yet.
    Opened(StartPosition, Cursor, Option<Gap>),
    Live(Cursor),
    /// A page is being read from the store. The number is the end of the event buffer before the read.
    Reading(Cursor, u64, Pin<Box<dyn Future<Output = Option<ReplayPage>> + Send>>),
    Replaying(Cursor, u64, Box<ReplayPage>),
}

/// The frame that says that a channel cannot be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ErrorFrame {
    NotNeeded,
    Due,
    Sent,
}

impl ChannelReader {
    pub fn new(number: usize, membership: Membership, start: StartPosition, floor: StreamId) -> Self {
        let phase = ReadPhase::Opening { start, required_read: None, error: ErrorFrame::NotNeeded };
        Self { number, membership, floor, phase }
    }

    /// The time in ms that the client asked for, while it has no position of this channel.
    pub fn pending_time(&self) -> Option<u64> {
        match self.phase {
            ReadPhase::Opening { start: StartPosition::From(id), .. }
            | ReadPhase::Opened(StartPosition::From(id), ..) => Some(id.ms),
            _ => None,
        }
    }

    /// Whether the client knows that the channel is open: what follows are events and gaps.
    pub const fn is_open(&self) -> bool {
        !matches!(self.phase, ReadPhase::Opening { .. })
    }

    /// Finds where the channel starts, unless that is known. Before any frame is written, so that the first one has all positions.
    pub fn open(&mut self, positions: &mut Positions, cx: &Context<'_>) {
        let ReadPhase::Opening { start, required_read, error } = &mut self.phase else { return };
        match self.membership.open(*start, self.floor, required_read, cx.waker()) {
            OpenResult::Pending => {}
            OpenResult::Unreadable if *error == ErrorFrame::NotNeeded => *error = ErrorFrame::Due,
            OpenResult::Unreadable => {}
            OpenResult::Opened(cursor, gap) => {
                // A client that is disconnected before the gap has to get it when it returns, so its own position stays until then.
                if gap.is_none() && !cursor.awaits_gap() {
                    positions.set(self.number, start_of(&cursor));
                }
                self.phase = ReadPhase::Opened(*start, cursor, gap);
            }
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
                ReadPhase::Opening { error, .. } => {
                    if *error == ErrorFrame::Due {
                        *error = ErrorFrame::Sent;
                        chunk.push_error(positions, self.membership.name());
                    }
                    return false;
                }
                ReadPhase::Opened(_, cursor, gap) => {
                    chunk.push_connected(positions, self.membership.name(), cursor.position);
                    if !cursor.awaits_gap() {
                        positions.set(self.number, start_of(cursor));
                    }
                    if let Some(gap) = *gap {
                        context.hub.metrics().gap(gap.reason.as_str());
                        chunk.push_gap(positions, self.membership.name(), gap);
                    }
                    self.phase = ReadPhase::Live(*cursor);
                }
                ReadPhase::Live(cursor) => {
                    let number = self.number;
                    let sink = |frame: &SequencedFrame| chunk.push_frame(positions, number, frame);
                    match self.membership.pull(cursor, cx.waker(), sink) {
                        PullResult::Full => return true,
                        PullResult::Idle => return chunk.is_full(),
                        PullResult::StoreReset(gap) => {
                            positions.set(self.number, start_of(cursor));
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
                    self.phase = match page {
                        Some(page) => ReadPhase::Replaying(*cursor, *buffer_end, Box::new(page)),
                        None => ReadPhase::Live(*cursor),
                    };
                }
                ReadPhase::Replaying(cursor, buffer_end, replay) => {
                    let mut pending = replay.pending.lock();
                    let unsent = pending.as_mut().filter(|_| self.membership.is_current(replay.token));
                    let Some(unsent) = unsent else {
                        // The page was reclaimed, or another master may have taken over since it was read.
                        drop(pending);
                        let (cursor, is_first) = (*cursor, replay.is_first);
                        self.phase = self.reading(context, cursor, is_first);
                        continue;
                    };
                    let mut push = |frame: &mut SequencedFrame| chunk.push_frame(positions, self.number, frame);
                    while let Some(frame) = unsent.frames.pop_front_if(&mut push) {
                        cursor.advance(&frame);
                        cursor.confirm();
                        replay.is_first = false;
                    }
                    if !unsent.frames.is_empty() {
                        return true;
                    }
                    drop(pending);
                    let mut cursor = *cursor;
                    cursor.advance_to(replay.end, true);
                    cursor.confirm();
                    if let Some(stream) = replay.page.stream.filter(|_| !replay.page.complete) {
                        cursor.existed_to = stream.last;
                    }
                    self.membership.rejoin(&mut cursor, &replay.page, *buffer_end);
                    let more = !replay.page.complete && cursor.needs_replay();
                    self.phase = if more { self.reading(context, cursor, false) } else { ReadPhase::Live(cursor) };
                }
            }
        }
    }

    /// Writes the frames of a batch that the stream does not have, if it has all earlier ones.
    pub fn take_batch(&mut self, batch: &Batch, positions: &mut Positions, chunk: &mut Chunk) -> Taken {
        let ReadPhase::Live(cursor) = &mut self.phase else { return Taken::Later };
        let Some((mut index, frames)) = batch.after(cursor) else { return Taken::Wake };
        for frame in frames {
            // An entry that returned after a reset, and one that is not copied, are for the stream's task.
            if frame.position <= cursor.received_to || frame.bytes.len() >= CHUNK_BYTES {
                return Taken::Wake;
            }
            if !cursor.has(frame) {
                if !chunk.push_frame(positions, self.number, frame) {
                    return Taken::Wake;
                }
                cursor.advance(frame);
            }
            index += 1;
            cursor.advance_to_index(index);
        }
        if batch.is_complete() { Taken::All } else { Taken::Wake }
    }

    fn reading(&self, context: &StreamContext, cursor: Cursor, is_first: bool) -> ReadPhase {
        let (client, source) = (self.membership.client(), self.membership.replay_source());
        let page = read_page(context.clone(), client, source, cursor, is_first);
        ReadPhase::Reading(cursor, self.membership.buffer_end(), Box::pin(page))
    }
}

/// The position of a client that has received nothing after this start.
const fn start_of(cursor: &Cursor) -> KnownPosition {
    KnownPosition::At(Position { id: cursor.position, is_entry: cursor.is_entry, content: cursor.content })
}
