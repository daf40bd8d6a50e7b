//! A barrier on the fleet's command stream: no channel delivers an event before a check of the command stream that was sent after the event
//! was in this node's hands, and before all commands were processed that the check found.
//!
//! A command may revoke the right to read. Without the barrier a node that was cut off could deliver events that followed a
//! revocation before it knows of the revocation.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::channel::command_check::CommandChecks;
use crate::channel::fence::{Fence, proof_interval};
use crate::event::StreamId;
use crate::store::{EventStore, Page, StoreError};
use crate::util::backoff::Backoff;

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The state of the command stream, shared by the hub, which learns of changes, and the reader of the commands.
pub struct CommandBarrier {
    pub(super) key: Arc<str>,
    // A watch channel, since both sides wait for states: channels until all commands were read, the reader of the commands until
    // there are some to read.
    state: watch::Sender<BarrierState>,
    pub(super) store: Arc<dyn EventStore>,
    pub(super) checks: CommandChecks,
    pub(super) fence: Fence,
}

#[derive(Default)]
struct BarrierState {
    /// The subscription is confirmed: new commands are notified. Until then a read would not help.
    is_subscribed: bool,
    /// Grows with each report that there are or may be commands that were not read.
    revision: u64,
    /// The revision before the last read. A read that began before a report does not count as an answer to it.
    read_revision: u64,
    /// The position up to which commands were read.
    read_to: StreamId,
}

impl BarrierState {
    const fn is_synced(&self) -> bool {
        self.is_subscribed && self.read_revision == self.revision
    }
}

/// A task to read the commands. [`CommandBarrier::mark_synced`] takes it after a read that began after this was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUpToken(u64);

impl CommandBarrier {
    /// A barrier on the stream with this key. `fence` is how long a proof of the master counts, if the store needs one.
    pub(super) fn new(key: Arc<str>, store: Arc<dyn EventStore>, fence: Duration) -> Self {
        let answer_limit = store.is_proof_by_master().then_some(proof_interval(fence));
        let fence = Fence::new(store.needs_proof().then_some(fence), answer_limit);
        Self { key, state: watch::Sender::default(), store, checks: CommandChecks::default(), fence }
    }

    pub(super) fn set_subscribed(&self, is_subscribed: bool) {
        self.state.send_modify(|state| {
            state.is_subscribed = is_subscribed;
            state.revision += 1;
        });
    }

    pub(super) fn notified(&self) {
        self.state.send_modify(|state| state.revision += 1);
    }

    /// Whether all commands were processed that this node knows of.
    pub fn is_synced(&self) -> bool {
        self.state.borrow().is_synced()
    }

    /// Waits until all commands were processed that this node knows of.
    pub async fn wait_synced(&self) {
        if !self.is_synced() {
            // An error means that the sender was dropped, but `self` owns it.
            let _ = self.state.subscribe().wait_for(BarrierState::is_synced).await;
        }
    }

    /// Waits until channels may deliver events: all commands were processed, and this node proved that it reads from the current master.
    pub(super) async fn wait_open(&self) {
        loop {
            self.wait_synced().await;
            self.fence.wait_open().await;
            if self.is_synced() {
                return;
            }
        }
    }

    /// Waits until the events of a page may be delivered, which was asked for at this time and is in this node's hands now.
    pub(super) async fn admit(self: &Arc<Self>, page: &Page, asked_at: Instant) -> Result<(), StoreError> {
        match page.barrier_position {
            Some(last) if self.fence.is_in_time(asked_at) => self.observed_at(last),
            Some(_) => return Err(StoreError::Unavailable("the reply to a read came too late to count".into())),
            None => self.check().await,
        }
        // The page may show new commands, or the link may have been lost and restored during the read.
        self.wait_open().await;
        Ok(())
    }

    /// Reports the id of the last command, as a check that was sent after the events were read returned it, or the script that read them.
    /// Thus a lost notification of a command cannot let a later event pass.
    pub(super) fn observed_at(&self, last: StreamId) {
        self.state.send_if_modified(|state| {
            // A read of the commands that is in progress may have begun before this one was added.
            let is_news = state.read_to != last;
            state.revision += u64::from(is_news);
            is_news
        });
    }

    /// Reports that a read of the commands failed: channels wait until one succeeds.
    pub fn mark_unsynced(&self) {
        self.notified();
    }

    /// Reports the position up to which commands were read.
    pub fn set_read_to(&self, position: StreamId) {
        self.state.send_if_modified(|state| {
            state.read_to = position;
            // No task waits for a position.
            false
        });
    }

    /// Waits until commands have to be read.
    pub async fn wait_work(&self) -> CatchUpToken {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| state.is_subscribed && !state.is_synced()).await;
        CatchUpToken(state.map_or(0, |state| state.revision))
    }

    /// Lets channels deliver events, unless something was reported since the token was obtained.
    pub fn mark_synced(&self, token: CatchUpToken) {
        self.state.send_if_modified(|state| {
            state.read_revision = state.read_revision.max(token.0);
            state.is_synced()
        });
        if self.is_synced() {
            self.fence.resume();
        }
    }
}

impl CommandBarrier {
    /// Waits for a check that is sent after this call. An error delays the answer: nothing is delivered meanwhile.
    async fn check(self: &Arc<Self>) {
        self.checks.wait(|| drop(tokio::spawn(send_checks(Arc::clone(self))))).await;
    }

    /// Whether this node has proved that it reads from the current master, if the store needs that.
    pub fn is_master_proven(&self) -> bool {
        self.fence.is_proven()
    }

    /// Takes in a proof that was asked for at this time.
    pub(super) fn proven(&self, asked_at: Instant) {
        let is_resuming = !self.fence.is_proven();
        if is_resuming {
            // First, so that no command that the current master has is unknown when the fence opens.
            self.mark_unsynced();
        }
        self.fence.set_proven(asked_at, is_resuming);
        // The commands may have been read since.
        if self.is_synced() {
            self.fence.resume();
        }
    }
}

/// Sends checks while pages wait for them.
async fn send_checks(barrier: Arc<CommandBarrier>) {
    let mut retry = Backoff::new(RETRY_MIN, RETRY_MAX);
    while let Some(check) = barrier.checks.begin() {
        let sent_at = Instant::now();
        match barrier.store.barrier_position().await {
            Ok(last) if barrier.fence.is_in_time(sent_at) => {
                retry.reset();
                barrier.observed_at(last);
                barrier.checks.answered(check);
            }
            // A master that was stopped and continued may answer although another one has taken over meanwhile.
            Ok(_) => {}
            Err(error) => {
                // The reader of the commands finds the same error, and reports it.
                tracing::debug!(%error, "the last command of the fleet cannot be read");
                barrier.mark_unsynced();
                tokio::time::sleep(retry.next_delay()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::util::clock::system_clock;

    fn barrier() -> CommandBarrier {
        let store = Arc::new(MemoryStore::new(1 << 16, Default::default(), system_clock()));
        CommandBarrier::new("commands".into(), store, Duration::from_secs(5))
    }

    #[test]
    fn reports_during_a_read_need_another_read() {
        let barrier = barrier();
        let work = || barrier.wait_work().now_or_never();
        let is_open = || barrier.wait_synced().now_or_never().is_some();
        assert!(work().is_none() && !is_open(), "the subscription is not confirmed");
        barrier.notified();
        assert!(work().is_none(), "a notification does not confirm the subscription");
        barrier.set_subscribed(true);
        let token = work().expect("commands have to be read");
        barrier.notified();
        barrier.mark_synced(token);
        assert!(!is_open(), "a command was notified during the read");
        barrier.mark_synced(work().expect("another read is needed"));
        assert!(is_open() && work().is_none());
        barrier.notified();
        let token = work().expect("a command was notified");
        assert!(!is_open());
        barrier.set_subscribed(false);
        barrier.set_subscribed(true);
        barrier.mark_synced(token);
        assert!(!is_open(), "the link was lost during the read");
        barrier.mark_synced(work().expect("another read is needed"));
        assert!(is_open());
    }

    #[test]
    fn channel_read_reveals_commands_that_were_not_notified() {
        let barrier = barrier();
        let read_to = |position| {
            let token = barrier.wait_work().now_or_never().expect("commands have to be read");
            barrier.set_read_to(position);
            barrier.mark_synced(token);
        };
        let [one, two] = [1, 2].map(|ms| StreamId::new(ms, 0));
        barrier.set_subscribed(true);
        read_to(one);
        barrier.observed_at(one);
        assert!(barrier.is_synced());
        for observed in [two, StreamId::ZERO] {
            barrier.observed_at(observed);
            assert!(!barrier.is_synced(), "the stream has more, or fewer, commands than were read");
            read_to(observed);
            assert!(barrier.is_synced());
        }
        barrier.mark_unsynced();
        assert!(!barrier.is_synced());
    }

    #[test]
    fn command_that_is_observed_while_others_are_read_needs_another_read() {
        let barrier = barrier();
        let [one, two] = [1, 2].map(|ms| StreamId::new(ms, 0));
        barrier.set_subscribed(true);
        let token = barrier.wait_work().now_or_never().expect("commands have to be read");
        // The read has seen the first command only when a page shows the second one.
        barrier.observed_at(two);
        barrier.set_read_to(one);
        barrier.mark_synced(token);
        assert!(!barrier.is_synced());
        let token = barrier.wait_work().now_or_never().expect("the second command has to be read");
        barrier.set_read_to(two);
        barrier.mark_synced(token);
        assert!(barrier.is_synced());
    }
}
