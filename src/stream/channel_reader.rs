//! One channel of a stream.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::channel::membership::{Cursor, Membership, OpenResult, PullResult, StartPosition};
use crate::channel::sequencer::SequencedFrame;
use crate::event::StreamId;
use crate::store::Page;
use crate::stream::StreamContext;
use crate::stream::chunk::Chunk;
use crate::stream::position::Positions;
use crate::stream::replay::{Fetched, Request, fetch};
use crate::stream::replay_budget::PendingPage;

pub(super) struct ChannelReader {
    pub number: usize,
    pub membership: Membership,
    pub phase: Phase,
}

pub(super) enum Phase {
    Opening { start: StartPosition, verified: Option<u64>, refused: bool },
    Live(Cursor),
    Fetching(Cursor, Pin<Box<dyn Future<Output = Fetched> + Send>>),
    Sending(Cursor, Box<Sending>),
}

pub(super) struct Sending {
    slot: Arc<PendingPage>,
    page: Page,
    log_end: u64,
    end: StreamId,
}

impl ChannelReader {
    /// Writes what there is. True if the piece is full.
    pub fn advance(
        &mut self,
        context: &StreamContext,
        positions: &mut Positions,
        out: &mut Chunk,
        cx: &mut Context<'_>,
    ) -> bool {
        loop {
            match &mut self.phase {
                Phase::Opening { start, verified, refused } => {
                    match self.membership.open(*start, verified, cx.waker()) {
                        OpenResult::Pending => return false,
                        OpenResult::WrongType => {
                            if !std::mem::replace(refused, true) {
                                out.error(self.membership.name());
                            }
                            return false;
                        }
                        OpenResult::Opened(cursor, gap) => {
                            positions.set(self.number, Some(cursor.position));
                            out.connected(positions, self.membership.name(), cursor.position);
                            if let Some(gap) = gap {
                                out.gap(positions, self.membership.name(), gap);
                            }
                            self.phase = Phase::Live(cursor);
                        }
                    }
                }
                Phase::Live(cursor) => {
                    let number = self.number;
                    let sink = |item: &SequencedFrame| out.item(positions, number, item);
                    match self.membership.pull(cursor, cx.waker(), sink) {
                        PullResult::Full => return true,
                        PullResult::Idle => return out.is_full(),
                        PullResult::StoreReset(gap) => {
                            positions.set(self.number, Some(cursor.position));
                            out.gap(positions, self.membership.name(), gap);
                        }
                        PullResult::ReplayNeeded => {
                            let cursor = *cursor;
                            self.phase = self.fetching(context, cursor, true);
                        }
                    }
                }
                Phase::Fetching(cursor, future) => {
                    let Poll::Ready(fetched) = future.as_mut().poll(cx) else { return false };
                    let Fetched { slot, page, log_end, end } = fetched;
                    self.phase = Phase::Sending(*cursor, Box::new(Sending { slot, page, log_end, end }));
                }
                Phase::Sending(cursor, sending) => {
                    let mut taken_back = false;
                    match sending.slot.lock().as_mut() {
                        None => taken_back = true,
                        Some(held) => {
                            while let Some(item) = held.items.pop_front() {
                                if !out.item(positions, self.number, &item) {
                                    held.items.push_front(item);
                                    return true;
                                }
                                cursor.position = item.position;
                            }
                        }
                    }
                    let mut cursor = *cursor;
                    if taken_back {
                        self.phase = self.fetching(context, cursor, false);
                        continue;
                    }
                    cursor.position = cursor.position.max(sending.end);
                    if !sending.page.complete {
                        cursor.existed_to = sending.page.last();
                    }
                    self.membership.rejoin(&mut cursor, &sending.page, sending.log_end);
                    let more = !sending.page.complete && cursor.needs_replay();
                    self.phase = if more { self.fetching(context, cursor, false) } else { Phase::Live(cursor) };
                }
            }
        }
    }

    fn fetching(&self, context: &StreamContext, cursor: Cursor, first: bool) -> Phase {
        let request = Request {
            channel: Arc::clone(self.membership.name()),
            after: cursor.position,
            existed: cursor.existed_to,
            first,
            is_entry: cursor.is_entry,
            log_end: self.membership.buffer_end(),
        };
        Phase::Fetching(cursor, Box::pin(fetch(context.hub.clone(), Arc::clone(&context.replays), request)))
    }
}
