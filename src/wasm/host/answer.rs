//! `tidegate:policy/answer`: what a policy says beside its answer.

use std::time::Duration;

use crate::policy::cache_directive::CacheDirective;
use crate::policy::cache_directive::Vary;
use crate::wasm::host::State;
use crate::wasm::host::tidegate::policy::answer::Host;

/// What was said so far in one decision.
#[derive(Clone, Debug, Default)]
pub struct AnswerOptions {
    /// Why, for the log.
    pub reason: Option<String>,
    /// Nothing older is replayed, ms since 1970.
    pub replay_since: Option<u64>,
    /// For how many seconds the answer may be given again, and on which headers it depends.
    cache_for: Option<(u32, Vec<String>)>,
    cache_any_address: bool,
}

impl AnswerOptions {
    /// How the answer may be given again, if at all, or what is wrong with what was said of that.
    pub fn keep(&self) -> Result<Option<CacheDirective>, String> {
        let Some((seconds, names)) = &self.cache_for else { return Ok(None) };
        let vary = Vary::new(names, self.cache_any_address)?;
        let time = Duration::from_secs(u64::from(*seconds));
        Ok(Some(CacheDirective { time, vary }).filter(|keep| !keep.time.is_zero()))
    }
}

impl Host for State {
    fn reason(&mut self, text: String) {
        self.said.reason = Some(text.chars().take(512).collect());
    }

    fn replay_since(&mut self, time: u64) {
        self.said.replay_since = Some(time);
    }

    /// What was said last counts.
    fn cache_for(&mut self, seconds: u32, vary: Vec<String>) {
        self.said.cache_for = Some((seconds, vary));
    }

    fn cache_any_address(&mut self) {
        self.said.cache_any_address = true;
    }
}
