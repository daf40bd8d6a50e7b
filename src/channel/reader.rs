//! What the task that reads a channel does next, and what it makes of a read.

use tokio::time::Instant;

use crate::channel::sequencer::PATIENCE;
use crate::channel::{Inner, Link};
use crate::event::StreamId;
use crate::store::{Page, StoreError};

/// What the reading task does next.
pub(super) enum Plan {
    End,
    Wait(Instant),
    Read { after: StreamId, patient: bool, number: u64 },
}

impl Inner {
    /// What is to be done now.
    pub(super) fn plan(&mut self) -> Plan {
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
    pub(super) fn read_done(&mut self, result: Result<Page, StoreError>, patient: bool, number: u64) -> bool {
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
}
