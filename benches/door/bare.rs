//! The simplest host of a policy, with wasmtime's own settings: one linker, one `InstancePre`, a pool, epochs and a memory limit, and for
//! each call a fresh store and WASI context.

use std::sync::Arc;

use ::tidegate::store::EventStore as Events;
use http::HeaderMap;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store, StoreLimits, StoreLimitsBuilder,
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

wasmtime::component::bindgen!({
    path: "wit",
    world: "policy",
    imports: {
        default: trappable,
        "tidegate:policy/lookup.get": async | trappable,
        "tidegate:policy/lookup.hash-get": async | trappable,
        "tidegate:policy/lookup.set-contains": async | trappable,
    },
    exports: { default: async },
});

use self::tidegate::policy::{answer, context, lookup, settings, tokens, types};

struct State {
    events: Arc<dyn Events>,
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

pub struct Bare {
    engine: Engine,
    pre: PolicyPre<State>,
    events: Arc<dyn Events>,
}

impl Bare {
    pub fn new(component: &[u8], events: Arc<dyn Events>) -> Self {
        let mut config = Config::new();
        config.epoch_interruption(true);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::default()));
        let engine = Engine::new(&config).expect("an engine");
        let component = Component::from_binary(&engine, component).expect("the example compiles");
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI links");
        Policy::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state).expect("the interface links");
        let pre = PolicyPre::new(linker.instantiate_pre(&component).expect("it links")).expect("it is a policy");
        Self { engine, pre, events }
    }

    pub async fn decide(&self, headers: &HeaderMap) {
        let state = State {
            events: Arc::clone(&self.events),
            wasi: WasiCtxBuilder::new().build(),
            table: ResourceTable::new(),
            limits: StoreLimitsBuilder::new().memory_size(64 << 20).build(),
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(20);
        store.epoch_deadline_async_yield_and_update(1);
        let policy = self.pre.instantiate_async(&mut store).await.expect("an instance");
        let headers = headers
            .iter()
            .map(|(name, value)| types::Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() });
        let request = types::Request {
            method: "GET".into(),
            scheme: "https".into(),
            authority: "gate.example".into(),
            path_with_query: "/api/realtime?channel=default".into(),
            headers: headers.collect(),
            client_address: "192.0.2.7".into(),
        };
        let channels = ["default".to_owned()];
        let answer = policy.tidegate_policy_authorizer().call_authorize(&mut store, &request, &channels).await;
        assert!(answer.expect("no trap").is_ok(), "alice is allowed");
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for State {}

impl context::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(::tidegate::util::clock::now_ms())
    }
    fn request_id(&mut self) -> wasmtime::Result<String> {
        Ok(String::new())
    }
    fn action(&mut self) -> wasmtime::Result<String> {
        Ok("stream".into())
    }
    fn log(&mut self, _: context::Level, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl answer::Host for State {
    fn reason(&mut self, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
    fn replay_since(&mut self, _: u64) -> wasmtime::Result<()> {
        Ok(())
    }
    fn cache_for(&mut self, _: u32, _: Vec<String>) -> wasmtime::Result<()> {
        Ok(())
    }
    fn cache_any_address(&mut self) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl lookup::Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, lookup::Error>> {
        Ok(self.events.get(&key).await.map_err(|error| lookup::Error::Unavailable(error.to_string())))
    }
    async fn hash_get(&mut self, _: String, _: String) -> wasmtime::Result<Result<Option<Vec<u8>>, lookup::Error>> {
        Ok(Err(lookup::Error::Denied))
    }
    async fn set_contains(&mut self, _: String, _: String) -> wasmtime::Result<Result<bool, lookup::Error>> {
        Ok(Err(lookup::Error::Denied))
    }
}

impl settings::Host for State {
    fn get(&mut self, _: String) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl tokens::Host for State {
    fn verify(&mut self, _: String) -> wasmtime::Result<Result<String, tokens::Error>> {
        Ok(Err(tokens::Error::Malformed))
    }
    fn verify_with(&mut self, _: String, _: String) -> wasmtime::Result<Result<String, tokens::Error>> {
        Ok(Err(tokens::Error::Malformed))
    }
}
