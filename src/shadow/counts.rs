//! Counts of shadow decisions by their result.

use serde::{Deserialize, Serialize};

use crate::shadow::decision_change::DecisionChange;

/// Shadow decisions of one shadow policy, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowCounts {
    /// The same decision.
    pub agree: u64,
    /// The active policy allowed, the shadow policy rejected.
    pub allow_to_reject: u64,
    /// The active policy rejected, the shadow policy allowed.
    pub reject_to_allow: u64,
    /// The same outcome with other fields, or a shadow decision where the active policy failed.
    pub other: u64,
    /// Only the shadow policy failed: a trap, a limit or a timeout.
    pub error: u64,
    /// The shadow policy made a host call that was not recorded, or an outbound request, so its decision means nothing.
    pub incomparable: u64,
    /// Not evaluated, because too many shadow decisions were in progress.
    pub dropped: u64,
    /// Not evaluated, because the decision came from the cache and no host calls were recorded.
    pub cached: u64,
}

impl ShadowCounts {
    /// The count of decisions that were compared with this result.
    pub fn compared(&mut self, change: Option<DecisionChange>) -> &mut u64 {
        match change {
            None => &mut self.agree,
            Some(DecisionChange::AllowToReject) => &mut self.allow_to_reject,
            Some(DecisionChange::RejectToAllow) => &mut self.reject_to_allow,
            Some(DecisionChange::AllowToError | DecisionChange::RejectToError) => &mut self.error,
            Some(DecisionChange::ErrorToAllow | DecisionChange::ErrorToReject | DecisionChange::Other) => {
                &mut self.other
            }
        }
    }

    /// The sum with the counts of another node.
    pub const fn plus(self, other: Self) -> Self {
        Self {
            agree: self.agree.saturating_add(other.agree),
            allow_to_reject: self.allow_to_reject.saturating_add(other.allow_to_reject),
            reject_to_allow: self.reject_to_allow.saturating_add(other.reject_to_allow),
            other: self.other.saturating_add(other.other),
            error: self.error.saturating_add(other.error),
            incomparable: self.incomparable.saturating_add(other.incomparable),
            dropped: self.dropped.saturating_add(other.dropped),
            cached: self.cached.saturating_add(other.cached),
        }
    }

    /// All counts with their names.
    pub const fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("agree", self.agree),
            ("allow_to_reject", self.allow_to_reject),
            ("reject_to_allow", self.reject_to_allow),
            ("other", self.other),
            ("error", self.error),
            ("incomparable", self.incomparable),
            ("dropped", self.dropped),
            ("cached", self.cached),
        ]
    }
}
