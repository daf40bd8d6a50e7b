//! The shadow policy of a whole fleet.

pub(crate) mod follow;
pub(crate) mod push;
