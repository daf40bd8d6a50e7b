//! What came of asking a candidate, as numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::shadow::decision_change::DecisionChange;

/// What came of it since it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowCounts {
    /// It answered the same.
    pub agree: u64,
    /// It would have kept out whom the policy in force let in.
    pub allow_to_reject: u64,
    /// It would have let in whom the policy in force kept out.
    pub reject_to_allow: u64,
    /// It answered otherwise, and let in or kept out as the policy in force did.
    pub other: u64,
    /// It had no answer: a trap, a limit, a time that ran out. The policy in force had one.
    pub error: u64,
    /// It asked for what the policy in force had not, or wanted to send a request: what it would have said is not known.
    pub incomparable: u64,
    /// It was not asked, since it was busy.
    pub dropped: u64,
    /// It was not asked, since the policy in force was not: that answer was given again.
    pub cached: u64,
}

impl ShadowCounts {
    /// These and others, of another node.
    #[must_use]
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

    /// All of them by name.
    #[must_use]
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

#[derive(Default)]
pub struct ShadowCounters {
    agree: AtomicU64,
    allow_to_reject: AtomicU64,
    reject_to_allow: AtomicU64,
    other: AtomicU64,
    error: AtomicU64,
    incomparable: AtomicU64,
    dropped: AtomicU64,
    cached: AtomicU64,
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl ShadowCounters {
    pub fn incomparable(&self) {
        one_more(&self.incomparable);
    }

    pub fn dropped(&self) {
        one_more(&self.dropped);
    }

    pub fn cached(&self) {
        one_more(&self.cached);
    }

    pub fn compared(&self, flip: Option<DecisionChange>) {
        one_more(match flip {
            None => &self.agree,
            Some(DecisionChange::AllowToReject) => &self.allow_to_reject,
            Some(DecisionChange::RejectToAllow) => &self.reject_to_allow,
            Some(DecisionChange::AllowToError | DecisionChange::RejectToError) => &self.error,
            Some(DecisionChange::ErrorToAllow | DecisionChange::ErrorToReject | DecisionChange::Other) => &self.other,
        });
    }

    pub fn now(&self) -> ShadowCounts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ShadowCounts {
            agree: load(&self.agree),
            allow_to_reject: load(&self.allow_to_reject),
            reject_to_allow: load(&self.reject_to_allow),
            other: load(&self.other),
            error: load(&self.error),
            incomparable: load(&self.incomparable),
            dropped: load(&self.dropped),
            cached: load(&self.cached),
        }
    }
}
