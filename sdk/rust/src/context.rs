//! Context of the current decision.

use crate::host;

/// The gateway's clock, ms since 1970.
#[must_use]
pub fn now() -> u64 {
    host::context::now()
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
