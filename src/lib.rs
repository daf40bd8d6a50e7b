//! Tidegate, a self-hosted realtime gateway: the library of the `tidegate` program. The list below is the order of the layers: a
//! module imports only from modules listed below it, which `tests/layers.rs` checks.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "unit tests read files that they wrote"))]

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[allow(clippy::expect_used, clippy::panic, reason = "what does not hold is a finding")]
pub mod fuzz;

pub mod commands;
pub mod server;
pub mod fleet;
pub mod rollout;
pub mod config;
pub mod policytest;
pub mod shadow;
pub mod audit;
pub mod authz;
pub mod wasm;
pub mod stream;
pub mod channel;
pub mod tokens;
pub mod egress;
pub mod policy;
pub mod artifact;
pub mod store;
pub mod telemetry;
pub mod event;
pub mod util;
