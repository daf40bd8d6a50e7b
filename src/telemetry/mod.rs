//! What operators measure from outside: metrics, and figures of this process.

pub mod metrics;
pub mod process;

pub use metrics::metrics;
