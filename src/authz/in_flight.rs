//! The responses of one policy generation that are being written.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

#[derive(Default)]
pub struct InFlight {
    count: AtomicUsize,
    drained: Notify,
}

impl InFlight {
    /// Counts one more response until the guard is dropped.
    pub fn guard(self: &Arc<Self>) -> InFlightGuard {
        self.count.fetch_add(1, Ordering::SeqCst);
        InFlightGuard(Arc::clone(self))
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until the count is 0. Only the count of a retired generation stays there.
    pub async fn drained(&self) {
        loop {
            let mut drained = pin!(self.drained.notified());
            // Registers for a notification before the count is read, so that none is missed.
            drained.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            drained.await;
        }
    }
}

/// A response that is being written. It delays `Swap::drained` once its generation is retired.
pub struct InFlightGuard(Arc<InFlight>);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.drained.notify_waiters();
        }
    }
}
