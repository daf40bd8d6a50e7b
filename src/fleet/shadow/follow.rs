//! The node's side of the fleet's shadow policy: prepares it and evaluates it, or reports why not.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::fleet::heartbeat::{FollowedShadow, NodeContext, PolicyRecords, StateChange};
use crate::fleet::record;
use crate::fleet::record::{ShadowPush, stage_error};
use crate::rollout::shadow::ShadowOwner;
use crate::rollout::stage::{Stage, StageError};
use crate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

/// Follows the shadow record on a node whose policy the fleet manages.
pub struct ShadowFollower {
    node: Arc<NodeContext>,
    changes: mpsc::Sender<StateChange>,
    /// The policy that this node evaluates.
    current: Option<Arc<ShadowPolicy>>,
}

/// Why the shadow policy is not evaluated, and the delay before the node tries it again. A failed stage is final: it would fail again.
type ShadowFailure = (StageError, Option<Duration>);

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
        let (mut shadow, mut retry_delay) = (None, None);
        if let Some(record) = record {
            let push = record::parse::<ShadowPush>(record);
            let push_id = push.as_ref().ok().map(|push| push.record.push_id.clone());
            let policy = self.start(push).await.map_err(|(error, delay)| {
                tracing::warn!(reason = error.reason, "this node does not evaluate the fleet's shadow policy");
                retry_delay = delay;
                error
            });
            self.current = policy.as_ref().ok().cloned();
            shadow = Some(FollowedShadow { push_id, policy });
        }
        // Fails after the heartbeat task was stopped.
        let _ = self.changes.send(StateChange::Shadow(shadow)).await;
        if let Some(previous) = previous {
            self.node.rollout.stop_shadow(&previous);
        }
        retry_delay
    }

    async fn start(&self, push: Result<ShadowPush, String>) -> Result<Arc<ShadowPolicy>, ShadowFailure> {
        let failed = |stage, reason: &dyn Display| (stage_error(stage, reason), None);
        let invalid = |error| failed(Stage::Fetched, &format!("the shadow record cannot be parsed: {error}"));
        let ShadowPush { record, share } = push.map_err(invalid)?;
        let bundle = record.fetch(&*self.node.store).await;
        let bundle = bundle.map_err(|missing| (stage_error(Stage::Fetched, &missing), Some(missing.retry_delay())))?;
        record.check_sequence().map_err(|error| (error, None))?;
        let sampling = ShadowSampling { share: share.into(), concurrency: self.node.shadow_concurrency };
        let origin = record.origin("fleet");
        let started = self.node.rollout.start_shadow_of(ShadowOwner::Fleet, bundle, origin, sampling).await;
        started.map_err(|error| failed(error.stage, &error.reason))
    }
}
