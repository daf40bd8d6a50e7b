//! `tidegate:policy/answer`: options that a policy sets in addition to its answer.

use std::time::Duration;

use crate::policy::cache_directive::{CacheDirective, Vary};
use crate::wasm::host::State;
use crate::wasm::host::tidegate::policy::answer::Host;

/// Characters of a reason; the rest is cut off.
const MAX_REASON_CHARS: usize = 512;

/// The options of one decision; of calls that set the same option, the last one counts.
#[derive(Clone, Debug, Default)]
pub struct AnswerOptions {
    /// The policy's reason, for the log.
    pub reason: Option<String>,
    /// Older events are not replayed; in ms since the Unix epoch.
    pub replay_since: Option<u64>,
    /// For how many seconds the decision may be cached, and the headers that it depends on.
    cache_for: Option<(u32, Vec<String>)>,
    cache_any_address: bool,
}

impl AnswerOptions {
    /// How the decision may be cached, if at all, or why the policy's `cache-for` is invalid.
    pub fn cache_directive(&self) -> Result<Option<CacheDirective>, String> {
        let Some((seconds, names)) = &self.cache_for else { return Ok(None) };
        let vary = Vary::new(names, self.cache_any_address)?;
        let max_age = Duration::from_secs(u64::from(*seconds));
        Ok(Some(CacheDirective { max_age, vary }).filter(|directive| !directive.max_age.is_zero()))
    }
}

impl Host for State {
    fn reason(&mut self, mut text: String) {
        if let Some((end, _)) = text.char_indices().nth(MAX_REASON_CHARS) {
            text.truncate(end);
        }
        self.decision.options.reason = Some(text);
    }

    fn replay_since(&mut self, time: u64) {
        self.decision.options.replay_since = Some(time);
    }

    fn cache_for(&mut self, seconds: u32, vary: Vec<String>) {
        self.decision.options.cache_for = Some((seconds, vary));
    }

    fn cache_any_address(&mut self) {
        self.decision.options.cache_any_address = true;
    }
}
