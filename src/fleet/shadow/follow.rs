//! The node's side of the fleet's shadow policy: prepares it and evaluates it, or reports why not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::fleet::heartbeat::{FollowedShadow, NodeContext, PolicyRecords, StateChange};
use crate::fleet::record;
use crate::fleet::record::{PrepareFailure, ShadowPush};
use crate::rollout::shadow::ShadowOwner;
use crate::rollout::stage::Stage;
use crate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

/// Follows the shadow record on a node whose policy the fleet manages.
pub struct ShadowFollower {
    node: Arc<NodeContext>,
    changes: mpsc::Sender<StateChange>,
    /// The policy that this node evaluates.
    current: Option<Arc<ShadowPolicy>>,
}

/// Why the shadow policy is not evaluated, and the delay before the node tries it again. A failed stage is final: it would fail again.
type ShadowFailure = (PrepareFailure, Option<Duration>);

impl ShadowFollower {
    pub const fn new(node: Arc<NodeContext>, changes: mpsc::Sender<StateChange>) -> Self {
        Self { node, changes, current: None }
    }

    /// Evaluates the shadow policy that the fleet's record names, for as long as it does. A task of its own, so that a shadow policy
    /// that compiles for long delays a push only while both need the activation pipeline.
    pub async fn run(mut self, mut records: watch::Receiver<PolicyRecords>) {
        let (mut handled, mut retry_at): (Option<Vec<u8>>, Option<Instant>) = (None, None);
        loop {
            tokio::select! {
                changed = records.changed() => if changed.is_err() { return },
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
            }
            let record = records.borrow_and_update().shadow.clone();
            if record != handled || retry_at.is_some_and(|retry_at| Instant::now() >= retry_at) {
                let retry_delay = self.replace(record.as_deref()).await;
                retry_at = retry_delay.map(|delay| Instant::now() + delay);
                handled = record;
            }
        }
    }

    /// Replaces this node's shadow policy with that of a record. Returns the delay before the next attempt, if that is of use.
    async fn replace(&mut self, record: Option<&[u8]>) -> Option<Duration> {
        let previous = self.current.take();
        let (shadow, retry_delay) = match record {
            Some(record) => {
                let (shadow, retry_delay) = self.start(record).await;
                (Some(shadow), retry_delay)
            }
            None => (None, None),
        };
        // Fails after the heartbeat task was stopped.
        let _ = self.changes.send(StateChange::Shadow(shadow)).await;
        if let Some(previous) = previous {
            self.node.rollout.stop_shadow(&previous);
        }
        retry_delay
    }

    async fn start(&mut self, record: &[u8]) -> (FollowedShadow, Option<Duration>) {
        let (push_id, started) = match record::parse::<ShadowPush>(record) {
            Ok(push) => (Some(push.record.push_id.clone()), self.prepare(push).await),
            Err(error) => {
                tracing::error!(error, "the fleet's record of the shadow policy cannot be parsed");
                (None, Err((PrepareFailure::new(Stage::Fetched, error), None)))
            }
        };
        let retry_delay = started.as_ref().err().and_then(|(_, retry_delay)| *retry_delay);
        let policy = started.map_err(|(failure, _)| failure);
        match &policy {
            Ok(policy) => self.current = Some(Arc::clone(policy)),
            Err(PrepareFailure { reason, .. }) => {
                tracing::warn!(reason, "this node does not evaluate the fleet's shadow policy");
            }
        }
        (FollowedShadow { push_id, policy }, retry_delay)
    }

    async fn prepare(&self, push: ShadowPush) -> Result<Arc<ShadowPolicy>, ShadowFailure> {
        let ShadowPush { record, share } = push;
        let bundle = record
            .fetch(&*self.node.store)
            .await
            .map_err(|missing| (PrepareFailure::new(Stage::Fetched, &missing), Some(missing.retry_delay())))?;
        record.check_sequence().map_err(|failure| (failure, None))?;
        let sampling = ShadowSampling { share: share.into(), concurrency: self.node.shadow_concurrency };
        let origin = record.origin("fleet");
        let started = self.node.rollout.start_shadow_of(ShadowOwner::Fleet, bundle, origin, sampling).await;
        started.map_err(|error| (PrepareFailure::new(error.stage, &error.reason), None))
    }
}
