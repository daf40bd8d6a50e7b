//! What operators see from outside: the log, and numbers.

pub(crate) mod log;
pub mod metrics;
pub(crate) mod process;
