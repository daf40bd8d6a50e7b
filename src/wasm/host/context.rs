//! `tidegate:policy/context` and `tidegate:policy/settings`: the current decision, the log and the operator's settings.

use crate::wasm::host::State;
use crate::wasm::host::tidegate::policy::context::{Host, Level};
use crate::wasm::host::tidegate::policy::settings;

/// Bytes that a policy may log in one decision; the rest is dropped with a warning.
pub const MAX_LOG_BYTES: usize = 8 * 1024;

impl State {
    /// Writes a line of the policy to the log, within the decision's budget and the policy's rate.
    pub(super) fn write_log(&mut self, level: Level, message: &str) {
        let (policy, request, logged_before) = (&self.digest, &self.decision.request_id, self.decision.logged_bytes);
        self.decision.logged_bytes += message.len() + 1;
        if self.decision.logged_bytes > MAX_LOG_BYTES {
            // Stays above the budget, so that shorter lines are dropped as well.
            if logged_before <= MAX_LOG_BYTES {
                tracing::warn!(target: "tidegate::policy", %policy, %request,
                    "the policy wrote more than {MAX_LOG_BYTES} bytes to the log in one decision; the rest is dropped");
            }
            return;
        }
        if !self.env.log_rate.allows() {
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
        self.decision.request_id.clone()
    }

    fn action(&mut self) -> String {
        "stream".into()
    }

    fn log(&mut self, level: Level, message: String) {
        self.write_log(level, &message);
    }
}

impl settings::Host for State {
    fn get(&mut self, name: String) -> Option<String> {
        self.env.settings.get(&name).map(ToOwned::to_owned)
    }
}
