//! Asks the store for proofs that this node reads from the current master, and reports when they are missing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::channel::barrier::CommandBarrier;

/// The number of proofs that are asked for within the time that one counts; but at most one per second.
const PROOFS_PER_LIMIT: u32 = 5;
const MAX_PROOF_INTERVAL: Duration = Duration::from_secs(1);

/// Asks for proofs for as long as the barrier exists.
pub(super) async fn keep_proving(barrier: Weak<CommandBarrier>) {
    let mut log = FenceLog::default();
    loop {
        let Some(barrier) = barrier.upgrade() else { return };
        let Some(limit) = barrier.fence.limit else { return };
        let asked_at = Instant::now();
        let missing = match tokio::time::timeout(limit, barrier.store.prove_master()).await {
            Ok(Ok(true)) => {
                barrier.proven(asked_at);
                None
            }
            Ok(Ok(false)) => Some("others do not confirm that the store's server is the master".to_owned()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("there was no reply in time".to_owned()),
        };
        log.update(&barrier, missing);
        drop(barrier);
        tokio::time::sleep_until(asked_at + (limit / PROOFS_PER_LIMIT).min(MAX_PROOF_INTERVAL)).await;
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
