//! Asks the store for proofs that this node reads from the current master, and reports when they are missing.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;
use crate::channel::fence::proof_interval;

/// Asks for proofs for as long as the barrier exists.
///
/// A master that answers for itself may have been stopped while another one took over. After a time without an answer its first one does not
/// count: it may come before the master hears from the others. The next one does, which is asked for some time later.
pub(super) async fn keep_proving(barrier: Weak<CommandBarrier>) {
    let (mut log, mut is_back) = (FenceLog::default(), false);
    loop {
        let Some(barrier) = barrier.upgrade() else { return };
        let Some(limit) = barrier.fence.limit else { return };
        let asked_at = Instant::now();
        barrier.fence.set_asked(asked_at);
        let answer = tokio::time::timeout(limit, barrier.store.prove_master()).await;
        let is_answered = matches!(answer, Ok(Ok(true)));
        let missing = match answer {
            Ok(Ok(true)) if barrier.fence.is_prompt(asked_at) && (is_back || !barrier.fence.is_interrupted()) => {
                is_back = false;
                barrier.proven(asked_at);
                None
            }
            Ok(Ok(true)) => {
                is_back = true;
                Some("the master was late to answer".to_owned())
            }
            Ok(Ok(false)) => Some("others do not confirm that the store's server is the master".to_owned()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("there was no reply in time".to_owned()),
        };
        is_back &= is_answered;
        log.update(&barrier, missing);
        drop(barrier);
        let next_at =
            if is_back { Instant::now() + proof_interval(limit) / 2 } else { asked_at + proof_interval(limit) };
        tokio::time::sleep_until(next_at).await;
    }
}

/// Logs once that the fence is closed, and once that it is open again.
#[derive(Default)]
struct FenceLog {
    started_at: Option<Instant>,
    is_reported: bool,
}

impl FenceLog {
    fn update(&mut self, barrier: &Arc<CommandBarrier>, missing: Option<String>) {
        // At the start there was no time for a proof yet.
        let started_at = *self.started_at.get_or_insert_with(Instant::now);
        let is_proven = barrier.is_master_proven();
        if let Some(reason) = missing
            && !is_proven
            && !barrier.fence.is_in_time(started_at)
            && !std::mem::replace(&mut self.is_reported, true)
        {
            tracing::error!(
                reason,
                "event delivery is paused: this node has no proof that it reads from the store's current master"
            );
        }
        if is_proven && std::mem::take(&mut self.is_reported) {
            tracing::info!("this node reads from the store's current master again: event delivery continues");
        }
    }
}
