//! Who answers what a policy asks: the gateway, or in a test the world that the test made.

#[cfg(target_family = "wasm")]
pub use crate::bindings::tidegate::policy::{answer, context, lookup, settings, tokens};
#[cfg(not(target_family = "wasm"))]
pub use crate::testing::host::{answer, context, lookup, settings, tokens};
