//! The gateway's log. Lines come with the policy's digest, and there is a limit to how many.

use crate::bindings::tidegate::policy::context::Level;
use crate::host;

/// For who looks closely.
pub fn debug(message: &str) {
    host::context::log(Level::Debug, message);
}

/// Worth a line.
pub fn info(message: &str) {
    host::context::log(Level::Info, message);
}

/// Odd.
pub fn warn(message: &str) {
    host::context::log(Level::Warn, message);
}

/// Wrong.
pub fn error(message: &str) {
    host::context::log(Level::Error, message);
}
