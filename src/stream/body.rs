//! One client's stream, as the body of its response: a cursor a channel, and nothing in between. It is polled when the socket
//! takes more, so that a client that stops reading stops everything here, and finds its place again when it goes on.

use std::convert::Infallible;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use crate::channel::membership::StartPosition;
use crate::stream::StreamContext;
use crate::stream::channel_reader::{ChannelReader, Phase};
use crate::stream::chunk::{Chunk, PIECE};
use crate::stream::position::Positions;
use crate::stream::registry::{StreamInfo, StreamPermit};
use crate::telemetry::metrics::metrics;
use crate::util::clock::now_ms;

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
            metrics().events_sent(out.events);
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

/// A client that does not read keeps what it was sent waiting: without the room that writing it took.
fn fit(bytes: BytesMut) -> Bytes {
    if bytes.capacity() > bytes.len() + bytes.len() / 8 { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_piece(cx).map(|piece| {
            piece.map(|bytes| {
                metrics().bytes_sent(bytes.len());
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
