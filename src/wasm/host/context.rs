//! `tidegate:policy/context` and `tidegate:policy/settings`: the current decision, the log, and the operator's values.

use crate::wasm::host::State;
use crate::wasm::host::tidegate::policy::context::{Host, Level};
use crate::wasm::host::tidegate::policy::settings;

/// Bytes that a policy may log in one decision; the rest is dropped with a warning.
pub const MAX_LOG_BYTES: usize = 8 * 1024;

/// The bytes that the decision may still log.
pub struct LogBudget {
    remaining: usize,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self { remaining: MAX_LOG_BYTES }
    }
}

impl State {
    /// Writes a line of the policy to the log, within the decision's budget and the policy's rate.
    pub(super) fn write_log(&mut self, level: Level, message: &str) {
        let (policy, request) = (&self.digest, &self.request_id);
        let Some(remaining) = self.log_budget.remaining.checked_sub(message.len() + 1) else {
            if self.log_budget.remaining > 0 {
                self.log_budget.remaining = 0;
                tracing::warn!(target: "tidegate::policy", %policy, %request,
                    "the policy wrote more than {MAX_LOG_BYTES} bytes to the log in one decision; the rest is dropped");
            }
            return;
        };
        self.log_budget.remaining = remaining;
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
        self.request_id.clone()
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
