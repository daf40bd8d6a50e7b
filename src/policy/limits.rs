//! The bound on a decision's memory: all memories and tables of the instance together.

use wasmtime::{Error, ResourceLimiter};

/// Counts what the instance's memories and tables hold.
#[derive(Debug)]
pub struct MemoryLimiter {
    left: usize,
    /// It wanted more than it may have. Guests trap on that in their own ways, so this is what tells the cause.
    pub denied: bool,
}

/// A table's element, as wasmtime stores it.
const ELEMENT: usize = 8;

impl MemoryLimiter {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { left: bytes, denied: false }
    }

    /// Bytes that it may still take.
    pub fn left(&self) -> usize {
        self.left
    }

    fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => self.denied = true,
        }
        !self.denied
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, Error> {
        Ok(self.take(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool, Error> {
        Ok(self.take(desired.saturating_sub(current).saturating_mul(ELEMENT)))
    }

    fn memory_grow_failed(&mut self, _: Error) -> Result<(), Error> {
        self.denied = true;
        Ok(())
    }
}
