//! The fence: a node that cannot prove that it reads from the current master delivers nothing.
//!
//! A master that was cut off from the others, or stopped and continued, may answer although another one has taken over, and does not have
//! the commands that the other one has. A store that is one server needs no proof.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Whether this node may deliver events, by its last proof.
pub(super) struct Fence {
    /// How long a proof counts; `None` if the store needs no proof.
    pub limit: Option<Duration>,
    // Readers wait until the fence opens. It closes by the passing of time.
    state: watch::Sender<FenceState>,
}

#[derive(Clone, Copy, Default)]
struct FenceState {
    /// When the last proof was asked for.
    proven_at: Option<Instant>,
    /// There was no proof before the last one for too long, and the commands were not read since.
    is_resuming: bool,
}

impl FenceState {
    fn is_proven(self, limit: Duration) -> bool {
        self.proven_at.is_some_and(|at| at.elapsed() <= limit)
    }
}

impl Fence {
    pub fn new(limit: Option<Duration>) -> Self {
        let state = FenceState { proven_at: None, is_resuming: true };
        Self { limit, state: watch::Sender::new(state) }
    }

    /// Whether events may be delivered, as far as the fence is concerned.
    pub fn is_open(&self) -> bool {
        self.is_open_in(&self.state.borrow())
    }

    fn is_open_in(&self, state: &FenceState) -> bool {
        self.limit.is_none_or(|limit| state.is_proven(limit) && !state.is_resuming)
    }

    /// Whether a proof is there that counts. The commands may still have to be read.
    pub fn is_proven(&self) -> bool {
        self.limit.is_none_or(|limit| self.state.borrow().is_proven(limit))
    }

    /// Waits until events may be delivered.
    pub async fn wait_open(&self) {
        if !self.is_open() {
            // An error means that the sender was dropped, but `self` owns it.
            let _ = self.state.subscribe().wait_for(|state| self.is_open_in(state)).await;
        }
    }

    /// Takes in a proof that was asked for at this time. With `is_resuming` the fence stays closed until [`Self::resume`].
    pub fn set_proven(&self, asked_at: Instant, is_resuming: bool) {
        if self.is_in_time(asked_at) {
            self.state.send_modify(|state| {
                *state = FenceState { proven_at: Some(asked_at), is_resuming: state.is_resuming || is_resuming };
            });
        }
    }

    /// Whether a reply that arrives now to a request of this time counts. A later one may come from a master that was stopped meanwhile.
    pub fn is_in_time(&self, sent_at: Instant) -> bool {
        self.limit.is_none_or(|limit| sent_at.elapsed() <= limit)
    }

    /// All commands were read, after the last proof that followed a time without one.
    pub fn resume(&self) {
        let is_proven = |state: &FenceState| self.limit.is_none_or(|limit| state.is_proven(limit));
        self.state.send_if_modified(|state| is_proven(state) && std::mem::take(&mut state.is_resuming));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn prove(fence: &Fence, asked_at: Instant) {
        fence.state.send_modify(|state| state.proven_at = Some(asked_at));
    }

    #[tokio::test(start_paused = true)]
    async fn fence_closes_without_a_proof_and_opens_after_the_commands_were_read() {
        let fence = Fence::new(Some(LIMIT));
        assert!(!fence.is_open() && !fence.is_proven());
        fence.resume();
        assert!(!fence.is_open(), "nothing was proved");
        prove(&fence, Instant::now());
        assert!(fence.is_proven() && !fence.is_open(), "the commands were not read");
        assert!(fence.wait_open().now_or_never().is_none());
        fence.resume();
        assert!(fence.is_open() && fence.wait_open().now_or_never().is_some());
        tokio::time::advance(LIMIT).await;
        assert!(fence.is_open());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!fence.is_open());
        // A proof counts from when it was asked for.
        prove(&fence, Instant::now() - LIMIT * 2);
        assert!(!fence.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn store_that_is_one_server_needs_no_proof() {
        let fence = Fence::new(None);
        assert!(fence.is_open() && fence.is_proven() && fence.is_in_time(Instant::now()));
        let sent_at = Instant::now();
        tokio::time::advance(LIMIT * 100).await;
        assert!(fence.is_open() && fence.is_in_time(sent_at));
        assert!(!Fence::new(Some(LIMIT)).is_in_time(sent_at));
    }
}
