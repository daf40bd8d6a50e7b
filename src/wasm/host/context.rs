//! `tidegate:policy/context`: the decision that is being made, and the log.

use crate::wasm::host::State;
use crate::wasm::host::tidegate::policy::context::{Host, Level};

/// What a policy may write to the log in one decision, in bytes; the rest is dropped and said so.
pub const LOG_BYTES: usize = 8 * 1024;

/// What of the log is left to an instance.
pub struct Log {
    left: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self { left: LOG_BYTES }
    }
}

impl State {
    /// Writes a line to the log, as long as there is room.
    pub(super) fn write_log(&mut self, level: Level, message: &str) {
        let (policy, request) = (&self.digest, &self.request_id);
        let Some(left) = self.log.left.checked_sub(message.len() + 1) else {
            if self.log.left > 0 {
                self.log.left = 0;
                tracing::warn!(target: "tidegate::policy", %policy, %request,
                    "the policy wrote more than {LOG_BYTES} bytes to the log in one decision; the rest is dropped");
            }
            return;
        };
        self.log.left = left;
        if !self.env.log.admits() {
            return;
        }
        match level {
            Level::Debug => tracing::debug!(target: "tidegate::policy", %policy, %request, "{message:?}"),
            Level::Info => tracing::info!(target: "tidegate::policy", %policy, %request, "{message:?}"),
            Level::Warn => tracing::warn!(target: "tidegate::policy", %policy, %request, "{message:?}"),
            Level::Error => tracing::error!(target: "tidegate::policy", %policy, %request, "{message:?}"),
        }
    }
}

impl Host for State {
    fn now(&mut self) -> u64 {
        (self.env.clock)()
    }

    fn request_id(&mut self) -> String {
        self.request_id.clone()
    }

    fn action(&mut self) -> String {
        "stream".into()
    }

    fn log(&mut self, level: Level, message: String) {
        self.write_log(level, &message);
    }
}
