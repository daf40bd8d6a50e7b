//! What operators measure from outside: metrics, and figures of this process.

pub mod metrics;
pub(crate) mod process;
