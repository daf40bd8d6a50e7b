//! The response body of a client's stream. It has one cursor for each channel and no queue: the body produces a chunk when
//! the socket accepts one. A client that stops reading therefore costs no memory here, and continues from its cursors.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use crate::channel::cursor::StartPosition;
use crate::channel::delivery::{Batch, Subscriber};
use crate::event::StreamId;
use crate::stream::StreamContext;
use crate::stream::channel_reader::{ChannelReader, Taken};
use crate::stream::chunk::Chunk;
use crate::stream::large_frames::HeldFrame;
use crate::stream::position::Positions;
use crate::stream::registry::{StreamInfo, StreamPermit};
use crate::util::client_key::ClientKey;
use crate::util::clock::now_ms;
use crate::util::shares::Refusal;

/// One channel of a stream that is about to start.
pub struct ChannelStart {
    /// The channel's index in the list of the URL.
    pub number: usize,
    pub name: String,
    pub start: StartPosition,
    /// The stream never goes back to before this position: what precedes it is not for this client.
    pub floor: StreamId,
}

/// How much of a stream's first block was sent. It begins with the head of the response, and its first frame completes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstBlock {
    None,
    Begun,
    Complete,
}

/// The body of a stream's response.
pub struct EventStream {
    context: StreamContext,
    permit: StreamPermit,
    readers: Vec<ChannelReader>,
    positions: Positions,
    /// The index of the reader that is polled first: the one that filled the last chunk.
    next_channel: usize,
    /// A large frame that is being sent.
    remainder: Option<HeldFrame>,
    first_block: FirstBlock,
    ended: bool,
    last_write: Instant,
    ping_timer: Pin<Box<Sleep>>,
}

impl EventStream {
    /// A stream of these channels, if there is room for them. `positions` are those of the URL's whole list.
    pub fn new(
        context: StreamContext,
        permit: StreamPermit,
        channels: &[ChannelStart],
        positions: Positions,
        client: &Arc<ClientKey>,
    ) -> Result<Self, Refusal> {
        let joined = context.hub.join(channels.iter().map(|channel| &*channel.name), client)?;
        let readers = channels.iter().zip(joined);
        let readers = readers
            .map(|(channel, joined)| ChannelReader::new(channel.number, joined, channel.start, channel.floor))
            .collect();
        let ping_timer = Box::pin(tokio::time::sleep(context.ping_interval));
        Ok(Self {
            context,
            permit,
            readers,
            positions,
            next_channel: 0,
            remainder: None,
            first_block: FirstBlock::None,
            ended: false,
            last_write: Instant::now(),
            ping_timer,
        })
    }

    /// The channels that the stream reads.
    pub fn channels(&self) -> Box<[Arc<str>]> {
        self.readers.iter().map(|reader| Arc::clone(reader.membership.name())).collect()
    }

    /// Registers who reads the stream, and when its grant expires. From now on rotations and revocations apply to it.
    pub fn register(&self, info: StreamInfo, expires: Option<Instant>) {
        self.permit.register(info, expires);
    }

    /// The next bytes of the stream; `None` at its end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(frame) = &mut self.remainder {
            if self.permit.is_revoked() {
                return self.end_silently();
            }
            let Ok((piece, is_last)) = frame.next_piece() else {
                // The client has to read the frame again.
                self.count_cut();
                return self.end_silently();
            };
            if is_last {
                self.remainder = None;
            }
            return Poll::Ready(Some(piece));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let mut chunk = Chunk::new(self.first_block != FirstBlock::Complete);
        if self.first_block == FirstBlock::None {
            self.first_block = FirstBlock::Begun;
            // When a node fails, all its clients reconnect: spread them over two seconds.
            chunk.push_retry(rand::random_range(1000..3000));
        }
        if self.permit.is_end_requested(cx.waker()) {
            chunk.push_reconnect(&self.positions, self.reconnect_time());
            self.ended = true;
            return Poll::Ready(Some(chunk.bytes.freeze()));
        }
        for reader in &mut self.readers {
            reader.open(&mut self.positions, cx);
        }
        let may_deliver = self.context.hub.may_deliver();
        if !may_deliver {
            self.readers.iter().for_each(|reader| reader.membership.wait(cx.waker()));
            self.context.hub.wake_when_delivering();
        }
        for step in 0..self.readers.len() {
            let i = (self.next_channel + step) % self.readers.len();
            if !may_deliver && self.readers[i].is_open() {
                continue;
            }
            if self.readers[i].advance(&self.context, &mut self.positions, &mut chunk, cx) {
                self.next_channel = i;
                break;
            }
        }
        if !chunk.is_first {
            self.first_block = FirstBlock::Complete;
        }
        if !chunk.bytes.is_empty() {
            // The revocation may have come during this call, and the chunk may have events from after it.
            if self.permit.is_revoked() {
                return self.end_silently();
            }
            self.last_write = Instant::now();
            self.remainder = (!chunk.remainder.is_empty()).then(|| self.context.large_frames.hold(chunk.remainder));
            self.context.hub.metrics().events_sent.inc_by(chunk.events);
            return Poll::Ready(Some(chunk.bytes.freeze()));
        }
        self.poll_ping(cx)
    }

    /// Counts bytes that are sent.
    pub(super) fn count_sent(&self, bytes: &Bytes) {
        self.context.hub.metrics().stream_sent_bytes.inc_by(bytes.len() as u64);
    }

    /// Counts that the stream ends within a frame, since the client did not read it in time.
    pub(super) fn count_cut(&self) {
        self.context.hub.metrics().slow_client_disconnects.inc();
    }

    /// The permit of the stream.
    pub(super) const fn permit(&self) -> &StreamPermit {
        &self.permit
    }

    /// From now on new frames go to the subscriber.
    pub(super) fn deliver_to(&self, subscriber: &Weak<dyn Subscriber>) {
        for (i, reader) in self.readers.iter().enumerate() {
            reader.membership.deliver_to(Weak::clone(subscriber), i);
        }
    }

    /// Writes the frames of a batch that the stream does not have to the chunk, if it has all earlier ones and owes nothing else.
    pub(super) fn take_batch(&mut self, reader: usize, batch: &Batch, chunk: &mut Chunk) -> Taken {
        if self.first_block != FirstBlock::Complete || self.ended || self.remainder.is_some() {
            return Taken::Later;
        }
        if self.permit.has_to_end() || !self.context.hub.may_deliver() {
            return Taken::Wake;
        }
        let before = chunk.bytes.len();
        let taken = self.readers[reader].take_batch(batch, &mut self.positions, chunk);
        if chunk.bytes.len() > before {
            self.last_write = batch.now;
        }
        taken
    }

    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // Writes do not reset the timer: when it fires, it is set again for the time since the last write.
        while self.ping_timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let is_silent = self.last_write + self.context.ping_interval <= now;
            if is_silent {
                self.last_write = now;
            }
            self.ping_timer.as_mut().reset(self.last_write + self.context.ping_interval);
            if is_silent {
                let mut chunk = Chunk::new(self.first_block != FirstBlock::Complete);
                chunk.push_ping(&self.positions, now_ms());
                self.first_block = FirstBlock::Complete;
                return Poll::Ready(Some(chunk.bytes.freeze()));
            }
        }
        Poll::Pending
    }

    /// Ends the stream without another frame, perhaps in the middle of one. Clients drop an incomplete frame and reconnect.
    fn end_silently(&mut self) -> Poll<Option<Bytes>> {
        self.ended = true;
        self.remainder = None;
        Poll::Ready(None)
    }

    /// The time in a `reconnect` frame. The stock client starts there in each channel of which it has no position: one of this stream that
    /// is not open yet, for which it asked for a time, and any that it joins later, which must replay nothing older than this stream.
    fn reconnect_time(&self) -> u64 {
        let asked = self.readers.iter().filter_map(ChannelReader::pending_time).min();
        // With 0, all events that are stored would be replayed.
        asked.unwrap_or_else(|| self.context.store_clock.now_ms()).max(1)
    }
}

/// Less spare capacity than this is not worth a copy.
const MIN_SPARE_BYTES: usize = 64;

/// Returns spare capacity: a client that does not read keeps its last chunk in memory.
fn shrink(bytes: Bytes) -> Bytes {
    match bytes.try_into_mut() {
        Ok(bytes) if bytes.capacity() > bytes.len() + (bytes.len() / 8).max(MIN_SPARE_BYTES) => {
            Bytes::copy_from_slice(&bytes)
        }
        Ok(bytes) => bytes.freeze(),
        Err(bytes) => bytes,
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.poll_chunk(cx).map(|chunk| {
            let bytes = chunk?;
            self.count_sent(&bytes);
            Some(Ok(Frame::data(shrink(bytes))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.remainder.is_none()
    }
}

#[cfg(test)]
mod tests;
