//! The read loop of a channel: it decides when to read, reads the store, and absorbs the page into the channel.
//!
//! At most one task reads a channel, so pages arrive in order however many streams and notifications there are. The task ends
//! when there is nothing to read and nothing waits; [`Channel::request_read`] starts the next one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::sequencer::{NOTIFICATION_GRACE, StoreReset};
use crate::channel::{Channel, ChannelState, Link};
use crate::event::StreamId;
use crate::store::{EventStore, KnownStream, Page, ReadLimits, ReadRequest, StoreError};
use crate::util::backoff::Backoff;
use crate::util::client_key::ClientKey;
use crate::util::fair_queue::{FairPermit, FairSemaphore};

/// Concurrent reads of all open channels. Memory for their pages is at most this times [`PAGE_BYTES`], except for single larger
/// entries.
const MAX_CONCURRENT_READS: usize = 16;
/// Concurrent reads that open a channel. They have permits of their own, so that the events of open channels do not wait for
/// them, and fetch at most the last entry.
const MAX_CONCURRENT_OPENS: usize = 16;
/// Members that are compared to find the one that is best off; of more, a sample.
const MAX_COMPARED_MEMBERS: usize = 64;
const PAGE_ENTRIES: usize = 256;
/// A larger entry comes in a page of its own.
const PAGE_BYTES: usize = 256 * 1024;
/// A larger last entry is not read when a channel opens. Memory for them is at most this times [`MAX_CONCURRENT_OPENS`].
const MAX_LAST_ENTRY_BYTES: usize = 16 * 1024;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Reads channels from the store. If there is a command barrier, reads wait for it.
pub(crate) struct StoreReader {
    pub(super) store: Arc<dyn EventStore>,
    /// A larger entry becomes a gap.
    pub(super) max_event_size: usize,
    read_permits: FairSemaphore,
    open_permits: FairSemaphore,
    /// Set at most once, at start; a node without commands has none.
    pub(super) barrier: OnceLock<Arc<CommandBarrier>>,
}

impl StoreReader {
    pub fn new(store: Arc<dyn EventStore>, max_event_size: usize) -> Self {
        let (read_permits, open_permits) =
            (FairSemaphore::new(MAX_CONCURRENT_READS), FairSemaphore::new(MAX_CONCURRENT_OPENS));
        Self { store, max_event_size, read_permits, open_permits, barrier: OnceLock::new() }
    }

    /// Reads a page of a channel. It is returned only when all commands that precede it were processed.
    pub async fn read(
        &self,
        channel: &str,
        request: ReadRequest,
        entries: usize,
        bytes: usize,
    ) -> Result<Page, StoreError> {
        let limits = ReadLimits { entries, bytes, max_event: self.max_event_size };
        let Some(barrier) = self.barrier.get() else { return self.store.read(channel, request, limits).await };
        // Until then the page would wait, with its memory.
        barrier.wait_open().await;
        let asked_at = Instant::now();
        let page = self.store.read(channel, request, limits).await?;
        barrier.admit(&page, asked_at).await?;
        Ok(page)
    }
}

impl StoreReader {
    /// The indices of the streams that have changed since they were read. No event is delivered by it, so it does not wait for commands; like a
    /// read it finds out whether there are new ones.
    pub async fn find_changed(&self, streams: &[KnownStream]) -> Result<Vec<usize>, StoreError> {
        let asked_at = Instant::now();
        let found = self.store.find_changed(streams).await?;
        if let (Some(barrier), Some(last)) = (self.barrier.get(), found.barrier_position)
            && barrier.fence.is_in_time(asked_at)
        {
            barrier.observed_at(last);
        }
        Ok(found.indices)
    }
}

impl Channel {
    /// The reading task.
    pub(super) async fn read_until_quiet(self: Arc<Self>) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut bytes = PAGE_BYTES;
        loop {
            // The state must be unlocked before the task awaits.
            let step = self.state.lock().next_step();
            match step {
                ReadStep::Stop => return,
                ReadStep::WaitUntil(deadline) => {
                    let _ = tokio::time::timeout_at(deadline, self.wake_reader.notified()).await;
                }
                ReadStep::Read { opens } => {
                    let permits = if opens { &self.reader.open_permits } else { &self.reader.read_permits };
                    let Some(permit) = self.permit(permits).await else { continue };
                    // A bound, so that the state is not locked in the body.
                    let read = self.state.lock().begin_read();
                    let Some(read) = read else { continue };
                    let limit = if read.entries > 0 { bytes } else { MAX_LAST_ENTRY_BYTES };
                    let result = self.reader.read(&self.name, read.request, read.entries, limit).await;
                    drop(permit);
                    bytes = result.as_ref().ok().and_then(|page| page.needs).unwrap_or(PAGE_BYTES);
                    let is_finished = self.state.lock().finish_read(result, &read);
                    self.proven.notify_waiters();
                    if is_finished {
                        backoff.reset();
                    } else {
                        tokio::time::sleep(jitter(backoff.next_delay())).await;
                    }
                }
            }
        }
    }
}

impl Channel {
    /// Waits for a permit on behalf of the member that is best off; `None` if there is no need to read any more.
    async fn permit(&self, permits: &FairSemaphore) -> Option<FairPermit> {
        let mut client = self.state.lock().best_off(permits);
        let permit = loop {
            tokio::select! {
                biased;
                permit = permits.acquire(&client) => break Some(permit),
                better = self.better_off_than(&client, permits) => match better {
                    Some(better) => client = better,
                    None => break None,
                }
            }
        };
        let reads = &mut self.state.lock().reads;
        (reads.waits_for_permit, reads.joined_while_waiting) = (false, Vec::new());
        permit
    }

    /// Waits until a client joins that is served before this one; `None` if there is no need to read any more.
    async fn better_off_than(&self, client: &Arc<ClientKey>, permits: &FairSemaphore) -> Option<Arc<ClientKey>> {
        loop {
            self.wake_reader.notified().await;
            let mut state = self.state.lock();
            if !state.link.is_subscribed() {
                return None;
            }
            let joined = std::mem::take(&mut state.reads.joined_while_waiting);
            let best = permits.best_off(joined.iter().chain([client]));
            if let Some(better) = best.filter(|best| *best != client) {
                return Some(Arc::clone(better));
            }
        }
    }
}

/// What the reading task does next.
enum ReadStep {
    Stop,
    WaitUntil(Instant),
    /// Read, as soon as there is a permit.
    Read {
        opens: bool,
    },
}

struct PlannedRead {
    request: ReadRequest,
    entries: usize,
    /// [`ChannelState::takeovers`] when it began.
    takeovers: u32,
    /// Entries wait for their notifications: the channel was live when the read began.
    with_grace: bool,
}

impl ChannelState {
    fn next_step(&mut self) -> ReadStep {
        let deadline = self.flush_ready(Instant::now());
        if self.wants_read() {
            self.reads.waits_for_permit = true;
            return ReadStep::Read { opens: !self.opened };
        }
        if let Some(deadline) = deadline.filter(|_| self.link.is_subscribed()) {
            return ReadStep::WaitUntil(deadline);
        }
        self.reads.has_task = false;
        ReadStep::Stop
    }

    fn wants_read(&self) -> bool {
        let is_requested = self.reads.requested || (self.opened && self.sequencer.needs_read());
        self.link.is_subscribed() && is_requested && !self.sequencer.is_full()
    }

    /// Begins a read, if it is still wanted now that there is a permit.
    fn begin_read(&mut self) -> Option<PlannedRead> {
        if !self.wants_read() {
            return None;
        }
        self.reads.requested = false;
        self.reads.in_flight = true;
        self.reads.started += 1;
        self.sequencer.begin_read();
        Some(PlannedRead {
            // Opening takes the end of the stream only.
            request: if self.opened { self.sequencer.request() } else { ReadRequest::with_state(StreamId::ZERO) },
            entries: if self.opened { PAGE_ENTRIES } else { 0 },
            takeovers: self.takeovers,
            with_grace: self.link == Link::Live,
        })
    }

    /// The member that would be served first.
    fn best_off(&self, permits: &FairSemaphore) -> Arc<ClientKey> {
        let step = self.members.len().div_ceil(MAX_COMPARED_MEMBERS).max(1);
        let clients = self.members.iter().step_by(step).map(|(_, member)| &member.client);
        permits.best_off(clients).cloned().unwrap_or_default()
    }

    /// Takes in the result of a read. Returns false if the read has to be tried again after a delay.
    fn finish_read(&mut self, result: Result<Page, StoreError>, read: &PlannedRead) -> bool {
        self.reads.in_flight = false;
        match result {
            // If the link was lost during the read, the page does not make the channel current.
            // Nor if another master may have answered.
            Ok(_) if !self.link.is_subscribed() || read.takeovers != self.takeovers => self.reads.requested = true,
            Ok(page) => {
                self.reads.requested |= self.opened && !page.complete;
                let before = self.readiness();
                self.absorb(page, read.with_grace);
                self.reads.completed = self.reads.started;
                if self.readiness() != before || std::mem::take(&mut self.reads.awaited) {
                    self.wake_members();
                }
            }
            Err(StoreError::WrongType) => {
                if self.link != Link::WrongType && self.link.is_subscribed() {
                    self.link = Link::WrongType;
                    self.opened = false;
                    self.wake_members();
                }
            }
            Err(_) => {
                self.reads.requested = true;
                return false;
            }
        }
        true
    }

    /// What members wait for, apart from frames.
    fn readiness(&self) -> (Link, bool, u32) {
        (self.link, self.sequencer.needs_proof(), self.resets.epoch())
    }

    fn absorb(&mut self, page: Page, with_grace: bool) {
        let now = Instant::now();
        let last_id = if page.exists { page.last() } else { Some(StreamId::ZERO) };
        // A channel that catches up is live only when it has reached the end of the stream. Until then its notifications may
        // be lost, and entries do not wait for them.
        if !self.opened || page.complete || self.link != Link::CatchingUp {
            self.link = Link::Live;
        }
        if self.opened {
            let deadline = with_grace.then(|| now + NOTIFICATION_GRACE);
            if let Some(reset) = self.sequencer.absorb(page, deadline, now) {
                self.start_epoch(reset);
            }
            self.flush_ready(now);
        } else {
            // The channel opens, for the first time or after its key had another type. In the second case, the new epoch makes the
            // cursors of its members start from here.
            self.opened = true;
            self.sequencer.open(&page);
            let (position, lost) = (last_id.unwrap_or_default(), Arc::default());
            self.start_epoch(StoreReset { position, common: None, resumed: position, certain: true, lost });
        }
        if !self.sequencer.needs_proof() {
            self.last_id = last_id.unwrap_or_else(|| self.sequencer.read_to());
        }
    }

    /// Starts a new epoch, in which the buffer begins after the position of the reset.
    fn start_epoch(&mut self, reset: StoreReset) {
        self.buffer.restart(reset.position);
        self.resets.push(reset);
    }
}

/// A random duration between 75 % and 125 %, so that nodes and channels do not act in step.
pub(super) fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.75..1.25))
}
