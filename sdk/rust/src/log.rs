//! The gateway's log. The gateway adds the policy's digest to each line, and limits the rate.

use crate::bindings::tidegate::policy::context::Level;
use crate::host;

/// Details for debugging.
pub fn debug(message: &str) {
    host::context::log(Level::Debug, message);
}

/// Normal events.
pub fn info(message: &str) {
    host::context::log(Level::Info, message);
}

/// Unexpected conditions that the policy handles.
pub fn warn(message: &str) {
    host::context::log(Level::Warn, message);
}

/// Failures.
pub fn error(message: &str) {
    host::context::log(Level::Error, message);
}
