//! The task that reads a channel: what it does next, and what it makes of a read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::sequencer::PATIENCE;
use crate::channel::{Channel, Inner, Link};
use crate::event::StreamId;
use crate::store::{Limits, Page, Store, StoreError};
use crate::util::backoff::Backoff;

/// Reads of channels under way at once; what they bring is bounded by this times [`PAGE`].
const READS: usize = 16;
/// One read of a channel, in entries and bytes. A larger entry comes alone.
const PAGE: (usize, usize) = (256, 256 * 1024);
/// The first and the longest delay before a failed read is tried again.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Reads channels from the store, one read at a time a channel.
pub(crate) struct StoreReader {
    store: Arc<dyn Store>,
    max_event: usize,
    permits: Semaphore,
    /// What is read before any of them, if there is such a thing.
    pub(super) barrier: OnceLock<Arc<CommandBarrier>>,
}

impl StoreReader {
    pub fn new(store: Arc<dyn Store>, max_event: usize) -> Self {
        Self { store, max_event, permits: Semaphore::new(READS), barrier: OnceLock::new() }
    }

    /// Reads a channel. What it brings is handed on only when all that goes before is known.
    pub async fn read(&self, channel: &str, after: StreamId, entries: usize, bytes: usize) -> Result<Page, StoreError> {
        let limits = Limits { entries, bytes, max_event: self.max_event };
        let Some(lead) = self.barrier.get() else { return self.store.read(channel, after, limits).await };
        lead.passed().await;
        let page = self.store.read(channel, after, limits).await;
        if let Ok(page) = &page {
            lead.stands_at(page.lead);
        }
        // There is something to be read first, or the link was lost, and is back, while this was read.
        lead.passed().await;
        page
    }

    pub fn start(self: &Arc<Self>, channel: &Arc<Channel>) {
        tokio::spawn(Arc::clone(self).read_until_quiet(Arc::clone(channel)));
    }

    /// The one task that reads a channel, while anything is to be read or waits to be settled.
    async fn read_until_quiet(self: Arc<Self>, channel: Arc<Channel>) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut bytes = PAGE.1;
        loop {
            let plan = channel.inner().plan();
            match plan {
                Plan::End => return,
                Plan::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(until) => {}
                        () = channel.rung.notified() => {}
                    }
                }
                Plan::Read { after, patient, number } => {
                    let entries = if channel.inner().opened { PAGE.0 } else { 0 };
                    // Never closed, so the permit is always had.
                    let permit = self.permits.acquire().await;
                    let result = self.read(channel.name(), after, entries, bytes).await;
                    drop(permit);
                    bytes = PAGE.1;
                    if let Ok(page) = &result
                        && let Some(needs) = page.needs
                    {
                        bytes = needs;
                    }
                    if channel.inner().read_done(result, patient, number) {
                        backoff.reset();
                    } else {
                        tokio::time::sleep(jitter(backoff.next_delay())).await;
                    }
                }
            }
        }
    }
}

/// What the reading task does next.
enum Plan {
    End,
    Wait(Instant),
    Read { after: StreamId, patient: bool, number: u64 },
}

impl Inner {
    /// What is to be done now.
    fn plan(&mut self) -> Plan {
        let now = Instant::now();
        let waits = self.settle(now);
        if self.link == Link::Down {
            // The confirmation of the next subscription asks for a read.
            self.reading = false;
            return Plan::End;
        }
        let wanted = self.again || (self.opened && self.order.wants_read());
        if wanted && !self.order.is_full() {
            self.again = false;
            self.in_flight = true;
            self.begun += 1;
            self.order.begin_read();
            let patient = self.link == Link::Up;
            return Plan::Read { after: self.order.read_to(), patient, number: self.begun };
        }
        if let Some(until) = waits {
            return Plan::Wait(until);
        }
        self.reading = false;
        Plan::End
    }

    /// Takes a read's result in. False if it has to be tried again, later.
    fn read_done(&mut self, result: Result<Page, StoreError>, patient: bool, number: u64) -> bool {
        let now = Instant::now();
        self.in_flight = false;
        match result {
            Ok(page) => {
                if self.opened && !page.complete {
                    self.again = true;
                }
                // A link that was lost meanwhile is not up because an older read came through.
                if self.link == Link::Down {
                    self.again = true;
                    return true;
                }
                let was = self.link;
                self.absorb(page, patient.then(|| now + PATIENCE), now);
                self.done = number;
                if was != self.link || std::mem::take(&mut self.awaited) {
                    self.wake();
                }
                true
            }
            Err(StoreError::WrongType) => {
                if self.link != Link::Wrong && self.link != Link::Down {
                    self.link = Link::Wrong;
                    self.opened = false;
                    self.wake();
                }
                true
            }
            Err(_) => {
                self.again = true;
                false
            }
        }
    }

    /// Takes in what a read brought.
    fn absorb(&mut self, page: Page, patience_ends: Option<Instant>, now: Instant) {
        let last = page.last();
        // Catching up goes on until the end is reached: only then is what waits for a doorbell worth waiting for.
        if !self.opened || page.complete || self.link != Link::Unread {
            self.link = Link::Up;
        }
        if self.opened {
            if let Some(gap) = self.order.absorb(page, patience_ends, now) {
                self.epoch = self.epoch.wrapping_add(1);
                self.back = gap.resumed;
                self.log.restart(gap.resumed);
            }
            self.settle(now);
        } else {
            // The first time; or the key was no stream for a while, and whoever was in the channel before has to look anew.
            self.opened = true;
            self.epoch = self.epoch.wrapping_add(1);
            self.back = last;
            self.order.open(&page);
            self.log.restart(last);
        }
        self.tail = last;
    }
}

/// Between three and five quarters of a time.
pub(super) fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.75..1.25))
}
