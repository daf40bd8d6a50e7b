//! The memory of requests with a body, and of answers of `/redis`: one limit for all of them together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::util::client_key::ClientKey;
use crate::util::shares::{Share, Shares};

/// How long a request waits for memory.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The limit (`server.body-memory`), and the memory of each holder. While memory is scarce, the holders of most of it wait.
pub struct BodyBudget {
    limit: usize,
    shares: Shares<ClientKey>,
    released: Arc<Notify>,
}

/// There was no memory for a request in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMemory {
    #[error("too many requests with large bodies or answers are in progress (server.body-memory); try again")]
    Busy,
    #[error("the request needs {needed} bytes of memory, which is more than server.body-memory ({limit})")]
    TooLarge { needed: usize, limit: usize },
}

/// Memory that a request holds. Dropping it gives the memory back.
pub struct Reservation {
    budget: Arc<BodyBudget>,
    holder: Option<ClientKey>,
    shares: Vec<Share<ClientKey>>,
    bytes: usize,
}

impl BodyBudget {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, shares: Shares::new(limit), released: Arc::default() })
    }

    pub fn used_bytes(&self) -> usize {
        self.shares.total()
    }

    /// A reservation without memory yet. For `None` there is only the limit.
    pub fn reservation(self: &Arc<Self>, holder: Option<ClientKey>) -> Reservation {
        Reservation { budget: Arc::clone(self), holder, shares: Vec::new(), bytes: 0 }
    }
}

impl Reservation {
    /// Waits for memory, so that the reservation has at least this much. A request that holds memory waits for more only for a bounded
    /// time, so two requests do not wait for each other for long.
    pub async fn grow_to(&mut self, bytes: usize) -> Result<(), NoMemory> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        if bytes > self.budget.limit {
            return Err(NoMemory::TooLarge { needed: bytes, limit: self.budget.limit });
        }
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            // Created before the attempt, so that a release in between is noticed.
            let released = self.budget.released.notified();
            if let Ok(share) = self.budget.shares.take(self.holder.clone(), more) {
                self.shares.push(share);
                self.bytes = bytes;
                return Ok(());
            }
            timeout_at(deadline, released).await.map_err(|_| NoMemory::Busy)?;
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Exchanges the memory for this smaller amount, if that is free at the moment.
    pub fn shrink_to(&mut self, bytes: usize) {
        if bytes < self.bytes
            && let Ok(share) = self.budget.shares.take(self.holder.clone(), bytes)
        {
            self.shares = vec![share];
            self.bytes = bytes;
            self.budget.released.notify_waiters();
        }
    }

    /// Bytes that hold the memory until they are written to the client.
    pub fn hold_with(mut self, text: Vec<u8>) -> Bytes {
        self.shrink_to(text.capacity());
        Bytes::from_owner(HeldText { text, _memory: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shares.clear();
        self.budget.released.notify_waiters();
    }
}

struct HeldText {
    text: Vec<u8>,
    _memory: Reservation,
}

impl AsRef<[u8]> for HeldText {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_memory_for_a_bounded_time() {
        let budget = BodyBudget::new(100);
        let mut first = budget.reservation(None);
        first.grow_to(80).await.expect("all is free");
        let mut second = budget.reservation(None);
        assert_eq!(second.grow_to(30).await, Err(NoMemory::Busy));
        assert_eq!(second.grow_to(101).await, Err(NoMemory::TooLarge { needed: 101, limit: 100 }));
        let waiting = tokio::spawn(async move { second.grow_to(30).await.map(|()| second) });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        first.shrink_to(10);
        let second = waiting.await.expect("no panic").expect("memory was released");
        assert_eq!(budget.used_bytes(), 40);
        let text = second.hold_with(vec![b'x'; 25]);
        let slice = text.slice(..);
        drop((first, text));
        assert_eq!(budget.used_bytes(), 25, "held until the last reference to the bytes is dropped");
        drop(slice);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn client_with_most_memory_waits() {
        let key = |last| Some(ClientKey::of_address(Some([192, 0, 2, last].into())));
        let budget = BodyBudget::new(100);
        let (mut flood, mut more) = (budget.reservation(key(1)), budget.reservation(key(1)));
        flood.grow_to(80).await.expect("all is free");
        let mut other = budget.reservation(key(2));
        other.grow_to(10).await.expect("a fifth is reserved for others");
        assert_eq!(more.grow_to(5).await, Err(NoMemory::Busy), "the client has more than its share");
        other.grow_to(20).await.expect("its share is a half");
    }
}
