//! `tidegate:policy/settings`: the operator's values.

use super::State;
use super::tidegate::policy::settings::Host;

impl Host for State {
    fn get(&mut self, name: String) -> Option<String> {
        self.surroundings.settings.get(&name).cloned()
    }
}
