//! `tidegate:policy/answer`: what a policy says beside its answer.

use super::State;
use super::tidegate::policy::answer::Host;

/// What was said so far in one decision.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Why, for the log.
    pub reason: Option<String>,
    /// Nothing older is replayed, ms since 1970.
    pub replay_since: Option<u64>,
}

impl Host for State {
    fn reason(&mut self, text: String) {
        self.said.reason = Some(text.chars().take(512).collect());
    }

    fn replay_since(&mut self, time: u64) {
        self.said.replay_since = Some(time);
    }

    fn cache_for(&mut self, _: u32, _: Vec<String>) {}

    fn cache_any_address(&mut self) {}
}
