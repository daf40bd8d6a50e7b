//! Tidegate, a self-hosted realtime gateway: the library behind the `tidegate` program. Each module knows those below it.

pub mod channel;
pub mod commands;
pub mod config;
pub mod egress;
pub mod event;
pub mod files;
pub mod fleet;
pub mod own_files;
pub mod policy;
pub mod rollout;
pub mod server;
pub mod stamp;
pub mod store;
pub mod stream;
pub mod telemetry;
mod times;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(clippy::expect_used, clippy::panic, reason = "what does not hold is a finding")]
pub mod fuzz;
#[cfg(test)]
mod golden;
