//! The shadow policy: evaluated on a share of requests after the active policy decided, without effect.

pub mod counts;
pub mod decision_change;
pub(crate) mod replay;
pub(crate) mod sample;
pub mod shadow_policy;
