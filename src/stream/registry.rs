//! The streams of this node: how many there may be, and the end that the gateway itself gives them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use slab::Slab;
use tokio::sync::Notify;

/// All streams of this node. Clones share it.
#[derive(Clone)]
pub struct Streams(Arc<Shared>);

struct Shared {
    max: usize,
    live: Mutex<Slab<Arc<End>>>,
    empty: Notify,
}

/// A stream's own end, for whoever wants it ended.
#[derive(Default)]
struct End {
    wanted: AtomicBool,
    waker: AtomicWaker,
}

impl Streams {
    /// At the most so many.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Shared { max, live: Mutex::default(), empty: Notify::new() }))
    }

    fn live(&self) -> MutexGuard<'_, Slab<Arc<End>>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.live().len()
    }

    /// A place for one more; `None` if all are taken.
    #[must_use]
    pub fn admit(&self) -> Option<Ticket> {
        let mut live = self.live();
        if live.len() >= self.0.max {
            return None;
        }
        let end = Arc::new(End::default());
        let key = live.insert(Arc::clone(&end));
        Some(Ticket { streams: self.clone(), end, key })
    }

    /// Asks every stream to tell its client to come back and to close, spread over a time, and waits until all are gone.
    pub async fn drain(&self, over: Duration) {
        let ends: Vec<Arc<End>> = self.live().iter().map(|(_, end)| Arc::clone(end)).collect();
        let start = tokio::time::Instant::now();
        let count = u32::try_from(ends.len()).unwrap_or(u32::MAX).max(1);
        for (i, end) in (0u32..).zip(ends) {
            tokio::time::sleep_until(start + over / count * i).await;
            end.wanted.store(true, Ordering::Release);
            end.waker.wake();
        }
        loop {
            let gone = self.0.empty.notified();
            if self.count() == 0 {
                return;
            }
            gone.await;
        }
    }
}

/// A stream's place; dropping it frees the place.
pub struct Ticket {
    streams: Streams,
    end: Arc<End>,
    key: usize,
}

impl Ticket {
    /// Whether the stream shall end. The waker is called when that changes.
    pub fn shall_end(&self, waker: &Waker) -> bool {
        self.end.waker.register(waker);
        self.end.wanted.load(Ordering::Acquire)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut live = self.streams.live();
        live.try_remove(self.key);
        if live.is_empty() {
            self.streams.0.empty.notify_waiters();
        }
    }
}
