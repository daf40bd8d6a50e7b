//! Context of the current decision.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::host;

/// The gateway's clock, ms since 1970.
#[must_use]
pub fn now() -> u64 {
    host::context::now()
}

/// The gateway's clock, for crates that take a [`SystemTime`]. `SystemTime::now()` panics on the target `wasm32-unknown-unknown`.
#[must_use]
pub fn system_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(now())
}

/// The id of this request, as in all log lines about it.
#[must_use]
pub fn request_id() -> String {
    host::context::request_id()
}

/// The requested action: `stream` or `history`.
#[must_use]
pub fn action() -> String {
    host::context::action()
}
