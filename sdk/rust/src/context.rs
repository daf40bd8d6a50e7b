//! About the decision that is being made.

use crate::host;

/// The gateway's clock, ms since 1970.
#[must_use]
pub fn now() -> u64 {
    host::context::now()
}

/// The same in every line of the log about this request.
#[must_use]
pub fn request_id() -> String {
    host::context::request_id()
}

/// `stream` or `history`.
#[must_use]
pub fn action() -> String {
    host::context::action()
}
