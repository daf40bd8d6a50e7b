//! A stream's membership in a channel: where it opens, what it takes from the log, and how it comes back after a read of its own.

use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use crate::channel::gap::{Gap, GapReason};
use crate::channel::reader::StoreReader;
use crate::channel::sequencer::SequencedFrame;
use crate::channel::{Channel, Inner, Link};
use crate::event::StreamId;
use crate::store::Page;

/// Where a stream wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// At the stream's end.
    Tail,
    /// Behind this position, which need not be an entry's: a time, on somebody's clock.
    From(StreamId),
    /// Behind this entry, which the client has seen.
    Id(StreamId),
}

/// A stream's place in a channel.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// Everything up to here was handed over.
    pub at: StreamId,
    /// The number of the log's item that comes next; none while the store has to be read.
    next: Option<u64>,
    epoch: u32,
    /// Something up to here did exist after `at`, for the log held it.
    pub existed: StreamId,
    /// `at` is an entry, as far as the client says.
    pub is_entry: bool,
}

impl Cursor {
    fn new(inner: &Inner, at: StreamId) -> Self {
        Self { at, next: inner.log.after(at), epoch: inner.epoch, existed: StreamId::ZERO, is_entry: false }
    }

    /// What comes next has to be read from the store.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.next.is_none()
    }
}

/// What [`Membership::open`] answers.
#[derive(Debug)]
pub enum OpenResult {
    /// Not yet: the store has to be heard first. The waker is called.
    Wait,
    /// The key is no stream. The waker is called when that changes.
    Wrong,
    /// The place, and what is known to be gone before it.
    Open(Cursor, Option<Gap>),
}

/// What [`Membership::pull`] answers.
#[derive(Debug)]
pub enum PullResult {
    /// The sink had enough.
    Full,
    /// There is no more for now. The waker is called.
    Idle,
    /// What comes next is no longer in the log: read the store after `cursor.at`, then [`Membership::rejoin`].
    Behind,
    /// The store went back before the cursor, which now stands where the store ends.
    Back(Gap),
}

/// A stream's membership in a channel.
pub struct Membership {
    reader: Arc<StoreReader>,
    pub(super) channel: Arc<Channel>,
    member: usize,
}

impl Membership {
    pub(super) fn new(reader: Arc<StoreReader>, channel: Arc<Channel>) -> Self {
        let member = channel.inner().members.insert(None);
        Self { reader, channel, member }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        self.channel.name()
    }

    /// Finds the place to begin at. `verified` is the caller's memory between two calls. The flag says that the caller has
    /// to start a read.
    pub fn open(&self, start: StartPosition, verified: &mut Option<u64>, waker: &Waker) -> OpenResult {
        let mut inner = self.channel.inner();
        let opening = match (inner.link, start) {
            (Link::Wrong, _) => OpenResult::Wrong,
            (Link::Down | Link::Unread, _) => OpenResult::Wait,
            (Link::Up, StartPosition::Tail) => OpenResult::Open(Cursor::new(&inner, inner.tail), None),
            (Link::Up, StartPosition::From(id)) => OpenResult::Open(Cursor::new(&inner, inner.tail.min(id)), None),
            (Link::Up, StartPosition::Id(id)) if id <= inner.tail => {
                OpenResult::Open(Cursor { is_entry: id > StreamId::ZERO, ..Cursor::new(&inner, id) }, None)
            }
            (Link::Up, StartPosition::Id(id)) => {
                // Another node may have seen more than this one has: only a read that began after now can tell.
                let need = *verified.get_or_insert(inner.begun + 1);
                if inner.done >= need {
                    let why = GapReason::WentBack;
                    let gap = Gap { after: id, resumed: inner.tail, certain: inner.tail > StreamId::ZERO, why };
                    OpenResult::Open(Cursor::new(&inner, inner.tail), Some(gap))
                } else {
                    inner.awaited = true;
                    OpenResult::Wait
                }
            }
        };
        let read = matches!(opening, OpenResult::Wait) && inner.awaited && inner.want_read();
        if !matches!(opening, OpenResult::Open(..)) {
            inner.wait(self.member, waker);
        }
        drop(inner);
        if read {
            self.reader.start(&self.channel);
        }
        opening
    }

    /// Hands the items behind the cursor to the sink until that answers false.
    pub fn pull(
        &self,
        cursor: &mut Cursor,
        waker: &Waker,
        mut sink: impl FnMut(&SequencedFrame) -> bool,
    ) -> PullResult {
        let mut inner = self.channel.inner();
        if cursor.epoch != inner.epoch {
            cursor.epoch = inner.epoch;
            cursor.next = inner.log.after(cursor.at.min(inner.back));
            if cursor.at > inner.back {
                let gap = Gap { after: cursor.at, resumed: inner.back, certain: true, why: GapReason::WentBack };
                cursor.at = inner.back;
                return PullResult::Back(gap);
            }
        }
        let Some(items) = cursor.next.and_then(|next| inner.log.from(next)) else {
            if cursor.next.take().is_some() {
                cursor.existed = inner.log.floor();
            }
            return PullResult::Behind;
        };
        let mut next = cursor.next.unwrap_or_default();
        for item in items {
            // What waited for its doorbell comes to the log after the stream was seen to hold it: a stream that began, or
            // read for itself, behind that has no use for it.
            if item.at < cursor.at || (item.at == cursor.at && item.gap.is_none()) {
                next += 1;
                continue;
            }
            if !sink(item) {
                cursor.next = Some(next);
                return PullResult::Full;
            }
            next += 1;
            cursor.at = item.at;
        }
        cursor.next = Some(next);
        inner.wait(self.member, waker);
        PullResult::Idle
    }

    /// The log's end, to be given to [`Self::rejoin`] behind a read that begins now.
    pub fn log_end(&self) -> u64 {
        self.channel.inner().log.end()
    }

    /// After a read brought everything up to `cursor.at`: goes on in the log, if that reaches back so far. `page` is what
    /// the read said of the stream, `end` the log's end before it. True if the store ends before the log begins: it went
    /// back, and the caller has to start a read that shows it.
    pub fn rejoin(&self, cursor: &mut Cursor, page: &Page, end: u64) {
        let mut inner = self.channel.inner();
        if cursor.epoch != inner.epoch {
            return;
        }
        cursor.next = match page.stream {
            // Without a key there is nothing but what came since.
            None => inner.log.from(end).is_some().then_some(end),
            Some(stream) if page.complete => {
                cursor.at = cursor.at.max(stream.last);
                inner.log.after(cursor.at)
            }
            Some(_) => inner.log.after(cursor.at),
        };
        let read = cursor.next.is_none() && page.complete && inner.want_read();
        drop(inner);
        if read {
            self.reader.start(&self.channel);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut inner = self.channel.inner();
        inner.members.try_remove(self.member);
        inner.idle_since = Instant::now();
    }
}
