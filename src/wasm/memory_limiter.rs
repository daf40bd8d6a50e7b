//! The memory limit of a decision: all memories and tables of its instance, and its objects in the host, together.

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::{Error, ResourceLimiterAsync};

use crate::wasm::cpu_budget::CpuBudget;
use crate::wasm::ticker::{count_slow_call, had_slow_call};

/// Counts the bytes of the instance's memories and tables, and of its objects in the host.
#[derive(Debug)]
pub struct MemoryLimiter {
    limit: usize,
    /// Without what the instance's memories and tables have.
    remaining: usize,
    /// Bytes of memory that stay resident from one instance to the next.
    resident: usize,
    /// What its objects in the host have.
    host_bytes: usize,
    /// The growth in this call, without memory that is resident: its pages exist.
    grown_in_call: usize,
    cpu_budget: Arc<CpuBudget>,
    /// A growth beyond the limit was refused. Guests trap on that in their own ways, so the trap does not tell the cause.
    pub limit_exceeded: bool,
}

/// An element of a table, as wasmtime stores it.
const TABLE_ELEMENT_BYTES: usize = 8;
/// A call that grows by more is slow. A guest uses what it allocates, and no tick interrupts a single instruction that fills all of it:
/// 100 MB of fresh pages took 100 ms, on a thread that serves other clients. Policies in Rust, C or Zig grow by a MiB or two.
const LARGE_GROWTH_BYTES: usize = 8 << 20;
/// The same after a call was slow: 2 MB take 2 ms.
const LARGE_GROWTH_BYTES_AFTER_SLOW_CALL: usize = 2 << 20;
/// Every call of a prewarmed instance that has more is slow, for the same reason.
const LARGE_INSTANCE_BYTES: usize = 32 << 20;

impl MemoryLimiter {
    /// A call that allocates much is marked as slow in `cpu_budget`.
    pub fn new(limit: usize, resident: usize, cpu_budget: Arc<CpuBudget>) -> Self {
        Self { limit, remaining: limit, resident, host_bytes: 0, grown_in_call: 0, cpu_budget, limit_exceeded: false }
    }

    pub fn start_call(&mut self) {
        self.grown_in_call = 0;
    }

    /// Bytes that the instance's memories and tables have.
    pub fn in_use(&self) -> usize {
        self.limit - self.remaining
    }

    /// Bytes of its memory that stay resident for the next instance.
    pub fn resident(&self) -> usize {
        self.resident
    }

    /// Whether the instance has enough memory that any call may be slow.
    pub fn is_large(&self) -> bool {
        self.in_use() > LARGE_INSTANCE_BYTES
    }

    /// Sets the bytes of the objects in the host. Returns false if they do not fit.
    pub fn set_host_bytes(&mut self, bytes: usize) -> bool {
        self.host_bytes = bytes;
        self.limit_exceeded |= bytes > self.remaining;
        bytes <= self.remaining
    }

    async fn grow(&mut self, bytes: usize) -> bool {
        let in_use = self.in_use();
        let new_pages = in_use.saturating_add(bytes).saturating_sub(in_use.max(self.resident));
        match self.remaining.checked_sub(bytes) {
            Some(remaining) if remaining >= self.host_bytes => self.remaining = remaining,
            _ => self.limit_exceeded = true,
        }
        let before = self.grown_in_call;
        self.grown_in_call = before.saturating_add(new_pages);
        if self.grown_in_call > LARGE_GROWTH_BYTES && before <= LARGE_GROWTH_BYTES {
            count_slow_call();
        }
        let max_fast = if had_slow_call() { LARGE_GROWTH_BYTES_AFTER_SLOW_CALL } else { LARGE_GROWTH_BYTES };
        if !self.limit_exceeded && self.grown_in_call > max_fast && !self.cpu_budget.mark_slow() {
            // Returns to `low_priority_pool::run`, which moves the call to its own threads before the memory is filled.
            tokio::task::yield_now().await;
        }
        !self.limit_exceeded
    }
}

#[async_trait]
impl ResourceLimiterAsync for MemoryLimiter {
    async fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, Error> {
        Ok(self.grow(desired.saturating_sub(current)).await)
    }

    async fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, Error> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES)).await)
    }

    fn memory_grow_failed(&mut self, _: Error) -> Result<(), Error> {
        self.limit_exceeded = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_that_is_resident_does_not_make_a_call_slow() {
        // From now on for a second, new memory of more than 2 MiB does.
        count_slow_call();
        for (resident, is_slow) in [(4 << 20, false), (0, true)] {
            let budget = Arc::<CpuBudget>::default();
            let mut limiter = MemoryLimiter::new(64 << 20, resident, Arc::clone(&budget));
            assert!(limiter.memory_growing(0, 3 << 20, None).await.expect("decided"));
            assert_eq!(budget.is_slow(), is_slow, "{resident}");
            assert!(limiter.memory_growing(3 << 20, 16 << 20, None).await.expect("decided"));
            assert!(budget.is_slow());
        }
    }
}
