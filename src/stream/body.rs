//! One client's stream, as the body of its response: a cursor a channel, and nothing in between. It is polled when the socket
//! takes more, so that a client that stops reading stops everything here, and finds its place again when it goes on.

use crate::util::clock::now_ms;
use std::convert::Infallible;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use crate::channel::hub::{Hub, Membership};
use crate::channel::sequencer::{Gap, SequencedFrame};
use crate::channel::{Cursor, OpenResult, PullResult, StartPosition};
use crate::event::{StreamId, json_string};
use crate::store::Page;
use crate::stream::position::Positions;
use crate::stream::registry::{StreamInfo, StreamPermit};
use crate::stream::replay::{Fetched, PendingPage, ReplayBudget, Request, fetch};

/// A piece of the body is about so large at the most; beyond it lies what the socket holds.
const PIECE: usize = 16 * 1024;

/// What all streams of a node share.
#[derive(Clone)]
pub struct StreamContext {
    /// The channels.
    pub hub: Hub,
    /// Memory for replays.
    pub replays: Arc<ReplayBudget>,
    /// A silent stream says something this often.
    pub ping: Duration,
}

/// One channel of a stream that is about to start.
pub struct ChannelStart {
    /// Its number in the URL's list.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Where it starts.
    pub start: StartPosition,
}

/// The body of a stream's response.
pub struct EventStream {
    context: StreamContext,
    ticket: StreamPermit,
    lanes: Vec<ChannelReader>,
    positions: Positions,
    /// The lane that is asked first.
    turn: usize,
    /// The rest of a large frame.
    rest: Bytes,
    begun: bool,
    ended: bool,
    wrote_at: Instant,
    timer: Pin<Box<Sleep>>,
}

struct ChannelReader {
    number: usize,
    membership: Membership,
    phase: Phase,
}

enum Phase {
    Opening { start: StartPosition, verified: Option<u64>, refused: bool },
    Live(Cursor),
    Fetching(Cursor, Pin<Box<dyn Future<Output = Fetched> + Send>>),
    Sending(Cursor, Box<Sending>),
}

struct Sending {
    slot: Arc<PendingPage>,
    page: Page,
    log_end: u64,
    end: StreamId,
}

impl EventStream {
    /// A stream of these channels. `positions` are of the URL's whole list.
    #[must_use]
    pub fn new(context: StreamContext, ticket: StreamPermit, entries: Vec<ChannelStart>, positions: Positions) -> Self {
        let lanes = entries.into_iter().map(|entry| ChannelReader {
            number: entry.number,
            membership: context.hub.join(&entry.name),
            phase: Phase::Opening { start: entry.start, verified: None, refused: false },
        });
        let lanes: Vec<ChannelReader> = lanes.collect();
        let timer = Box::pin(tokio::time::sleep(context.ping));
        Self {
            context,
            ticket,
            lanes,
            positions,
            turn: 0,
            rest: Bytes::new(),
            begun: false,
            ended: false,
            wrote_at: Instant::now(),
            timer,
        }
    }

    /// The channels that it reads.
    #[must_use]
    pub fn channels(&self) -> Box<[Arc<str>]> {
        self.lanes.iter().map(|lane| Arc::clone(lane.membership.name())).collect()
    }

    /// Says whose it is, and until when it may be. From now on it is found by whoever rotates or revokes.
    pub fn register(&self, reader: StreamInfo, expires: Option<Instant>) {
        self.ticket.register(reader, expires);
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.rest.is_empty() {
            if self.ticket.is_revoked() {
                return self.stop();
            }
            return Poll::Ready(Some(self.rest.split_to(self.rest.len().min(4 * PIECE))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if self.ticket.shall_end(cx.waker()) {
            return Poll::Ready(Some(self.farewell()));
        }
        let mut out = Chunk::default();
        if !self.begun {
            self.begun = true;
            // Clients that lose a node come back spread over two seconds.
            let _ = write!(out.bytes, "retry: {}\n\n", rand::random_range(1000..3000));
        }
        for step in 0..self.lanes.len() {
            let i = (self.turn + step) % self.lanes.len();
            if self.lanes[i].advance(&self.context, &mut self.positions, &mut out, cx) {
                self.turn = i;
                break;
            }
        }
        if !out.bytes.is_empty() {
            // It may have been revoked since this began, and what was taken may be younger than that.
            if self.ticket.is_revoked() {
                return self.stop();
            }
            self.wrote_at = Instant::now();
            self.rest = out.rest;
            self.context.hub.metrics().events_sent(out.events);
            return Poll::Ready(Some(fit(out.bytes)));
        }
        self.poll_timer(cx)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let silent = self.wrote_at + self.context.ping <= now;
            if silent {
                self.wrote_at = now;
            }
            self.timer.as_mut().reset(self.wrote_at + self.context.ping);
            if silent {
                let ping = format!("data: {{\"type\":\"ping\",\"timestamp\":{}}}\n\n", now_ms());
                return Poll::Ready(Some(ping.into()));
            }
        }
        Poll::Pending
    }

    /// Ends without a word, be it in the middle of a frame: clients drop that, and come back by themselves.
    fn stop(&mut self) -> Poll<Option<Bytes>> {
        self.ended = true;
        self.rest = Bytes::new();
        Poll::Ready(None)
    }

    /// Tells the client to come back: the last thing that a stream says when the gateway ends it.
    fn farewell(&mut self) -> Bytes {
        self.ended = true;
        // The stock client takes the time as its position in every channel that has none, those too that are not open yet.
        let asked = self.lanes.iter().filter_map(|lane| match lane.phase {
            Phase::Opening { start: StartPosition::From(at) | StartPosition::Id(at), .. } => Some(at.ms),
            _ => None,
        });
        let timestamp = asked.chain(self.positions.least_ms()).min().unwrap_or_else(now_ms);
        Bytes::from(format!("data: {{\"type\":\"reconnect\",\"timestamp\":{timestamp}}}\n\n"))
    }
}

impl ChannelReader {
    /// Writes what there is. True if the piece is full.
    fn advance(
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
                        OpenResult::Wait => return false,
                        OpenResult::Wrong => {
                            if !std::mem::replace(refused, true) {
                                out.error(self.membership.name());
                            }
                            return false;
                        }
                        OpenResult::Open(cursor, gap) => {
                            positions.set(self.number, Some(cursor.at));
                            out.connected(positions, self.membership.name(), cursor.at);
                            if let Some(gap) = gap {
                                context.hub.metrics().gap(gap.why.as_str());
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
                        PullResult::Back(gap) => {
                            positions.set(self.number, Some(cursor.at));
                            context.hub.metrics().gap(gap.why.as_str());
                            out.gap(positions, self.membership.name(), gap);
                        }
                        PullResult::Behind => {
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
                                cursor.at = item.at;
                            }
                        }
                    }
                    let mut cursor = *cursor;
                    if taken_back {
                        self.phase = self.fetching(context, cursor, false);
                        continue;
                    }
                    cursor.at = cursor.at.max(sending.end);
                    if !sending.page.complete {
                        cursor.existed = sending.page.last();
                    }
                    self.membership.rejoin(&mut cursor, &sending.page, sending.log_end);
                    let more = !sending.page.complete && cursor.is_behind();
                    self.phase = if more { self.fetching(context, cursor, false) } else { Phase::Live(cursor) };
                }
            }
        }
    }

    fn fetching(&self, context: &StreamContext, cursor: Cursor, first: bool) -> Phase {
        let request = Request {
            channel: Arc::clone(self.membership.name()),
            after: cursor.at,
            existed: cursor.existed,
            first,
            is_entry: cursor.is_entry,
            log_end: self.membership.log_end(),
        };
        Phase::Fetching(cursor, Box::pin(fetch(context.hub.clone(), Arc::clone(&context.replays), request)))
    }
}

/// A client that does not read keeps what it was sent waiting: without the room that writing it took.
fn fit(bytes: BytesMut) -> Bytes {
    if bytes.capacity() > bytes.len() + bytes.len() / 8 { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() }
}

/// A piece of the body that is being written.
#[derive(Default)]
struct Chunk {
    bytes: BytesMut,
    /// A large frame is not copied: it follows as it is, and ends the piece.
    rest: Bytes,
    events: u64,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE || !self.rest.is_empty()
    }

    /// Writes an item's block: the client's own `id:` line, then the bytes that all clients share. False, and nothing
    /// written, if the piece is full.
    fn item(&mut self, positions: &mut Positions, number: usize, item: &SequencedFrame) -> bool {
        if self.is_full() {
            return false;
        }
        positions.set(number, Some(item.at));
        if self.bytes.is_empty() {
            // Most pieces are one event: with room for just that, it is allocated once and has to be fitted no more.
            self.bytes.reserve(positions.length() + item.frame.len().min(PIECE));
        }
        positions.write(&mut self.bytes);
        if item.frame.len() < PIECE {
            self.bytes.extend_from_slice(&item.frame);
        } else {
            self.rest = item.frame.clone();
        }
        self.events += u64::from(item.gap.is_none());
        true
    }

    fn connected(&mut self, positions: &Positions, channel: &str, cursor: StreamId) {
        positions.write(&mut self.bytes);
        let channel = json_string(channel);
        // Writing to memory does not fail.
        let _ =
            write!(self.bytes, "data: {{\"type\":\"connected\",\"channel\":{channel},\"cursor\":\"{cursor}\"}}\n\n");
    }

    fn gap(&mut self, positions: &Positions, channel: &str, gap: Gap) {
        positions.write(&mut self.bytes);
        self.bytes.extend_from_slice(&gap.frame(channel));
    }

    fn error(&mut self, channel: &str) {
        let text = json_string(&format!("channel {channel:?} cannot be read"));
        let _ = write!(self.bytes, "data: {{\"type\":\"error\",\"error\":{text}}}\n\n");
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_piece(cx).map(|piece| {
            piece.map(|bytes| {
                self.context.hub.metrics().bytes_sent(bytes.len());
                Ok(Frame::data(bytes))
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests;
