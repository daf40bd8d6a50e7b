//! What operators see from outside: the log, and numbers.

mod log;
pub mod metrics;
pub mod process;

pub use log::{Log, init};
pub use metrics::metrics;
