//! `tidegate:policy/settings` and `wasi:config/store`: the operator's values.

use wasmtime::component::Linker;
use wasmtime_wasi_config::WasiConfig;

use crate::wasm::host::State;
use crate::wasm::host::tidegate::policy::settings::Host;

impl Host for State {
    fn get(&mut self, name: String) -> Option<String> {
        self.env.settings.get(&name).map(ToOwned::to_owned)
    }
}

/// Links `wasi:config/store`.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_config::add_to_linker(linker, |state| WasiConfig::from(state.env.settings.variables()))
}
