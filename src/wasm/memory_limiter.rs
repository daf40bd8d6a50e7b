//! The bound on a decision's memory: all memories and tables of the instance together.

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::{Error, ResourceLimiterAsync};

use crate::wasm::cpu_budget::CpuBudget;

/// Counts what the instance's memories and tables hold.
#[derive(Debug)]
pub struct MemoryLimiter {
    most: usize,
    left: usize,
    /// What it took since its last call began.
    taken: usize,
    pace: Arc<CpuBudget>,
    /// It wanted more than it may have. Guests trap on that in their own ways, so this is what tells the cause.
    pub denied: bool,
}

/// A table's element, as wasmtime stores it.
const ELEMENT: usize = 8;
/// Whoever takes more in one call will use it. One instruction fills all of it, which nothing can interrupt: 100 MB of fresh pages were
/// seen to take 100 ms, on a thread that serves others. Policies of small languages take a MiB or two.
const QUICK: usize = 8 << 20;
/// The same for what an instance brings along that was made ahead.
const LARGE: usize = 32 << 20;

impl MemoryLimiter {
    /// So many bytes. `pace` is told when it takes much at once.
    pub fn new(bytes: usize, pace: Arc<CpuBudget>) -> Self {
        Self { most: bytes, left: bytes, taken: 0, pace, denied: false }
    }

    /// Bytes that it may still take.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Begins a call, which may take much by itself.
    pub fn begin(&mut self) {
        self.taken = 0;
    }

    /// Bytes that the instance holds.
    pub fn taken_in_all(&self) -> usize {
        self.most - self.left
    }

    /// Whether there is so much memory already that no call is quick for certain.
    pub fn is_large(&self) -> bool {
        self.taken_in_all() > LARGE
    }

    async fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => self.denied = true,
        }
        self.taken = self.taken.saturating_add(bytes);
        if !self.denied && self.taken > QUICK && !self.pace.slow_down() {
            // Here it leaves the thread that serves.
            tokio::task::yield_now().await;
        }
        !self.denied
    }
}

#[async_trait]
impl ResourceLimiterAsync for MemoryLimiter {
    async fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, Error> {
        Ok(self.take(desired.saturating_sub(current)).await)
    }

    async fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, Error> {
        Ok(self.take(desired.saturating_sub(current).saturating_mul(ELEMENT)).await)
    }

    fn memory_grow_failed(&mut self, _: Error) -> Result<(), Error> {
        self.denied = true;
        Ok(())
    }
}
