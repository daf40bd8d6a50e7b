//! The host functions: those of the gateway, or in a test those of the test gateway.

#[cfg(target_family = "wasm")]
pub use crate::bindings::tidegate::policy::{answer, context, lookup, settings, tokens};
#[cfg(not(target_family = "wasm"))]
pub use crate::testing::host::{answer, context, lookup, settings, tokens};
