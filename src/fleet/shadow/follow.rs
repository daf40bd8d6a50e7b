//! The node's side of the fleet's shadow policy: prepares it and evaluates it, or reports why not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::fleet::node::{FAILED_STAGE_RETRY_DELAY, Fleet, PolicyRecords, STORE_RETRY_DELAY, ShadowOnThisNode, lock};
use crate::fleet::node_status::truncate_shadow_error;
use crate::fleet::record;
use crate::fleet::record::{MissingBlob, PrepareFailure, ShadowPush};
use crate::policy::info::PolicyOrigin;
use crate::rollout::stage::Stage;
use crate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

/// The shadow record that this node handled last, and when it tries it again.
#[derive(Default)]
struct Handled {
    record: Option<Vec<u8>>,
    retry_at: Option<Instant>,
}

/// Why the shadow policy is not evaluated, and when the node tries again. A failed stage is final: it would fail again.
struct ShadowFailure {
    failure: PrepareFailure,
    retry_delay: Option<Duration>,
}

impl Fleet {
    /// Evaluates the shadow policy that the fleet's record names, for as long as it does. A task of its own, so that a shadow policy
    /// that compiles for long delays a push only by its turn in the activation pipeline.
    pub(crate) async fn follow_shadow(self: Arc<Self>, mut records: watch::Receiver<PolicyRecords>) {
        let mut handled = Handled::default();
        loop {
            let retry = async {
                match handled.retry_at {
                    Some(retry_at) => sleep_until(retry_at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = records.changed() => if changed.is_err() { return },
                () = retry => {}
            }
            let record = records.borrow_and_update().shadow.clone();
            let is_due = handled.retry_at.is_some_and(|retry_at| Instant::now() >= retry_at);
            if record != handled.record || is_due {
                let retry_at = self.replace_shadow(record.as_deref()).await;
                handled = Handled { record, retry_at };
            }
        }
    }

    /// Replaces this node's shadow policy with that of a record. Returns when to try the record again, if that is of use.
    async fn replace_shadow(&self, record: Option<&[u8]>) -> Option<Instant> {
        let Some(record) = record else {
            let previous = lock(&self.shadow).take();
            self.end_shadow(previous);
            return None;
        };
        let push = record::parse::<ShadowPush>(record);
        let push_id = push.as_ref().ok().map(|push| push.pointer.push_id.clone());
        let prepared = match push {
            Ok(push) => self.prepare_shadow(push).await,
            Err(error) => {
                tracing::error!(error, "the fleet's record of the shadow policy cannot be parsed");
                Err(shadow_failure(Stage::Fetched, &error, None))
            }
        };
        let retry_delay = prepared.as_ref().err().and_then(|error| error.retry_delay);
        let policy = prepared.map_err(|error| error.failure);
        if let Err(failure) = &policy {
            tracing::warn!(reason = failure.reason, "this node does not evaluate the fleet's shadow policy");
        }
        let previous = lock(&self.shadow).replace(ShadowOnThisNode { push_id, policy });
        self.end_shadow(previous);
        self.wake_heartbeat();
        retry_delay.map(|delay| Instant::now() + delay)
    }

    /// Ends a shadow policy that this node has replaced or removed already.
    fn end_shadow(&self, previous: Option<ShadowOnThisNode>) {
        if let Some(ShadowOnThisNode { policy: Ok(policy), .. }) = previous {
            self.rollout.stop_shadow(&policy);
        }
    }

    async fn prepare_shadow(&self, push: ShadowPush) -> Result<Arc<ShadowPolicy>, ShadowFailure> {
        let ShadowPush { pointer, share } = push;
        let artifact = pointer.fetch(&*self.store).await.map_err(|missing| {
            let is_store_error = matches!(missing, MissingBlob::Store(_));
            let delay = if is_store_error { STORE_RETRY_DELAY } else { FAILED_STAGE_RETRY_DELAY };
            shadow_failure(Stage::Fetched, &missing.to_string(), Some(delay))
        })?;
        if pointer.has_sequence_mismatch() {
            return Err(shadow_failure(Stage::Verified, record::SEQUENCE_MISMATCH, None));
        }
        let origin =
            PolicyOrigin { source: "fleet".into(), sequence: Some(pointer.sequence), ..PolicyOrigin::default() };
        let sampling = ShadowSampling { share: share.into(), concurrency: self.shadow_concurrency };
        let prepared = self.rollout.start_fleet_shadow(artifact, origin, sampling).await;
        prepared.map_err(|error| shadow_failure(error.stage, &error.reason, None))
    }
}

fn shadow_failure(stage: Stage, reason: &str, retry_delay: Option<Duration>) -> ShadowFailure {
    ShadowFailure { failure: PrepareFailure { stage, reason: truncate_shadow_error(reason) }, retry_delay }
}
