//! Memory limits that all channels of a node share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Notifications that wait for a read. Beyond it they are dropped: entries are then delivered as the store has them.
const MAX_PENDING_BYTES: usize = 8 << 20;
/// Entries that were read and wait for their notifications. Beyond it, entries of other channels do not wait.
const MAX_STAGED_BYTES: usize = 8 << 20;

/// A limit in bytes, and how much of it is used.
#[derive(Debug)]
pub struct ByteBudget {
    limit: usize,
    used: AtomicUsize,
}

impl ByteBudget {
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Takes bytes, if they fit.
    pub fn try_take(&self, bytes: usize) -> bool {
        let fits = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.limit;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    /// Takes bytes that are in memory already, also beyond the limit.
    pub fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether nothing is left.
    pub fn is_exhausted(&self) -> bool {
        self.used() >= self.limit
    }

    /// Whether more is used than the limit allows.
    pub fn is_exceeded(&self) -> bool {
        self.used() > self.limit
    }
}

/// The budgets of the sequencers of a node.
#[derive(Debug)]
pub struct SequencerBudgets {
    pub pending: ByteBudget,
    pub staged: ByteBudget,
}

impl Default for SequencerBudgets {
    fn default() -> Self {
        Self { pending: ByteBudget::new(MAX_PENDING_BYTES), staged: ByteBudget::new(MAX_STAGED_BYTES) }
    }
}
