//! The fence: a node that cannot prove that it reads from the current master delivers nothing.
//!
//! A master that was cut off from the others, or stopped and continued, may answer although another one has taken over, and does not have
//! the commands that the other one has. A store that is one server needs no proof.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The number of proofs that are asked for within the time that one counts; but at most one per second.
const PROOFS_PER_LIMIT: u32 = 5;
const MAX_PROOF_INTERVAL: Duration = Duration::from_secs(1);

/// The time between two proofs, if one counts for this long.
pub(super) fn proof_interval(limit: Duration) -> Duration {
    (limit / PROOFS_PER_LIMIT).min(MAX_PROOF_INTERVAL)
}

/// Whether this node may deliver events, by its last proof.
pub(super) struct Fence {
    /// How long a proof counts; `None` if the store needs no proof.
    pub limit: Option<Duration>,
    /// How long the master may take to answer, if it answers for itself: a master that did not answer may have been stopped while another one
    /// took over, and what it says first when it goes on is old.
    answer_limit: Option<Duration>,
    // Readers wait until the fence opens. It closes by the passing of time.
    state: watch::Sender<FenceState>,
}

#[derive(Clone, Copy, Default)]
struct FenceState {
    /// When the last proof was asked for.
    proven_at: Option<Instant>,
    /// When the first proof after that one was asked for.
    unanswered_since: Option<Instant>,
    /// There was no proof before the last one for too long, and the commands were not read since.
    is_resuming: bool,
}

impl Fence {
    /// `limit` is how long a proof counts, if one is needed. `answer_limit` is for masters that answer for themselves.
    pub fn new(limit: Option<Duration>, answer_limit: Option<Duration>) -> Self {
        let state = FenceState { is_resuming: true, ..FenceState::default() };
        Self { limit, answer_limit, state: watch::Sender::new(state) }
    }

    fn is_proven_in(&self, state: &FenceState) -> bool {
        let is_recent = |limit| state.proven_at.is_some_and(|at| at.elapsed() <= limit);
        self.limit.is_none_or(is_recent) && state.unanswered_since.is_none_or(|at| self.is_prompt(at))
    }

    /// Whether events may be delivered, as far as the fence is concerned.
    pub fn is_open(&self) -> bool {
        // Each stream asks this whenever it writes, so a store that needs no proof costs no lock.
        self.limit.is_none() || self.is_open_in(&self.state.borrow())
    }

    fn is_open_in(&self, state: &FenceState) -> bool {
        self.is_proven_in(state) && !state.is_resuming
    }

    /// Whether a proof is there that counts. The commands may still have to be read.
    pub fn is_proven(&self) -> bool {
        self.is_proven_in(&self.state.borrow())
    }

    /// Waits until events may be delivered.
    pub async fn wait_open(&self) {
        if !self.is_open() {
            // An error means that the sender was dropped, but `self` owns it.
            let _ = self.state.subscribe().wait_for(|state| self.is_open_in(state)).await;
        }
    }

    /// Takes in that a proof is asked for now.
    pub fn set_asked(&self, asked_at: Instant) {
        self.state.send_if_modified(|state| {
            state.unanswered_since.get_or_insert(asked_at);
            // No task waits for a question.
            false
        });
    }

    /// Whether a proof that arrives now, and was asked for at this time, comes soon enough for a master that answers for itself.
    pub fn is_prompt(&self, asked_at: Instant) -> bool {
        self.answer_limit.is_none_or(|limit| asked_at.elapsed() <= limit)
    }

    /// Whether a master that answers for itself did not do so for too long.
    pub fn is_interrupted(&self) -> bool {
        self.state.borrow().unanswered_since.is_some_and(|at| !self.is_prompt(at))
    }

    /// Takes in a proof that was asked for at this time. With `is_resuming` the fence stays closed until [`Self::resume`].
    pub fn set_proven(&self, asked_at: Instant, is_resuming: bool) {
        if self.is_in_time(asked_at) && self.is_prompt(asked_at) {
            self.state.send_modify(|state| {
                let is_resuming = state.is_resuming || is_resuming;
                *state = FenceState { proven_at: Some(asked_at), unanswered_since: None, is_resuming };
            });
        }
    }

    /// Whether a reply that arrives now to a request of this time counts. A later one may come from a master that was stopped meanwhile.
    pub fn is_in_time(&self, sent_at: Instant) -> bool {
        self.limit.is_none_or(|limit| sent_at.elapsed() <= limit)
    }

    /// All commands were read, after the last proof that followed a time without one.
    pub fn resume(&self) {
        self.state.send_if_modified(|state| self.is_proven_in(state) && std::mem::take(&mut state.is_resuming));
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
        let fence = Fence::new(Some(LIMIT), None);
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
        let fence = Fence::new(None, None);
        assert!(fence.is_open() && fence.is_proven() && fence.is_in_time(Instant::now()));
        let sent_at = Instant::now();
        tokio::time::advance(LIMIT * 100).await;
        assert!(fence.is_open() && fence.is_in_time(sent_at));
        assert!(!Fence::new(Some(LIMIT), None).is_in_time(sent_at));
    }

    #[tokio::test(start_paused = true)]
    async fn master_that_answers_late_for_itself_has_to_answer_again() {
        let answer_limit = Duration::from_secs(1);
        let fence = Fence::new(Some(LIMIT), Some(answer_limit));
        let ask = || {
            fence.set_asked(Instant::now());
            Instant::now()
        };
        let asked_at = ask();
        fence.set_proven(asked_at, true);
        fence.resume();
        assert!(fence.is_open());
        // It is stopped, and continued later.
        let asked_at = ask();
        tokio::time::advance(answer_limit).await;
        assert!(fence.is_open());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(fence.is_interrupted());
        assert!(!fence.is_open() && !fence.is_proven(), "before the last proof has ended");
        // A failed question does not make a new one the first.
        let again_at = ask();
        fence.set_proven(asked_at, false);
        assert!(!fence.is_open(), "it is late");
        fence.set_proven(again_at, true);
        assert!(fence.is_proven() && !fence.is_open(), "the commands were not read");
        fence.resume();
        assert!(fence.is_open());
    }
}
