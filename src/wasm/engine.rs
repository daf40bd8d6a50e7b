//! The engine that all policies run in.

use std::sync::OnceLock;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::policy::Limits;
use crate::wasm::ticker;

/// Instances for the test cases of a new policy: a case takes one or two, and the one before may not be torn down yet.
const TEST_INSTANCES: usize = 4;
const MAX_UNUSED_WARM_SLOTS: u32 = 8;
/// Adapters and shims of a component have core instances, memories and tables of their own. The largest component measured (Python) has
/// 30 core instances, 2 memories and 12 tables.
const CORE_INSTANCES_PER_COMPONENT: u32 = 48;
const MEMORIES_PER_COMPONENT: u32 = 2;
const TABLES_PER_COMPONENT: u32 = 16;

/// An engine with a pool of an instance per concurrent decision or, on a machine without the address space for that, one that
/// allocates each instance by itself.
pub fn engine(limits: &Limits) -> anyhow::Result<Engine> {
    let engine = Engine::new(&config(Some(pool(limits)))).or_else(|error| {
        tracing::warn!(%error, "no address space for a pool of instances: allocating each by itself, which is slower");
        Engine::new(&config(None))
    });
    let engine = engine.map_err(|error| anyhow::anyhow!("cannot start the WebAssembly engine: {error:#}"))?;
    ticker::start(&engine)?;
    Ok(engine)
}

/// An engine that only compiles. Its code runs in the engines of [`engine`]: it does not depend on how instances are allocated.
pub fn compiler() -> anyhow::Result<Engine> {
    Engine::new(&config(None)).map_err(|error| anyhow::anyhow!("cannot start the compiler: {error:#}"))
}

/// An engine that counts instructions as fuel, for benchmarks. It has no epochs, so only the end of its fuel stops a policy.
pub fn metered() -> anyhow::Result<Engine> {
    let mut config = config(None);
    config.epoch_interruption(false).consume_fuel(true);
    Engine::new(&config).map_err(|error| anyhow::anyhow!("cannot start the metered engine: {error:#}"))
}

fn config(pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // An instance serves one call, so the machinery for concurrent calls would only cost time.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    // The stack of the guest; deeper recursion traps. The fiber's stack holds it and the frames of the host.
    config.max_wasm_stack(512 << 10);
    config.async_stack_size(1 << 20);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn pool(limits: &Limits) -> PoolingAllocationConfig {
    let Limits { concurrency, prewarmed_instances: prewarmed, shadow_concurrency: shadow, .. } = *limits;
    // During an activation both policies have prewarmed instances, and the new one runs its test cases.
    let instances =
        [concurrency, prewarmed, prewarmed, shadow, TEST_INSTANCES].into_iter().fold(0, usize::saturating_add);
    let instances = u32::try_from(instances).unwrap_or(u32::MAX);
    let for_all = |per_instance: u32| instances.saturating_mul(per_instance);
    let mut pool = PoolingAllocationConfig::default();
    // Small policies need few core instances and tables. A quarter of the maximum per instance is enough for the usual case, all
    // instances of one small policy, and for a quarter as many of the largest. An exhausted pool fails decisions; it never blocks.
    pool.total_component_instances(instances);
    pool.total_core_instances(for_all(CORE_INSTANCES_PER_COMPONENT / 4));
    pool.total_memories(for_all(MEMORIES_PER_COMPONENT));
    pool.total_tables(for_all(TABLES_PER_COMPONENT / 4));
    pool.total_stacks(instances);
    pool.max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT);
    pool.max_memories_per_component(MEMORIES_PER_COMPONENT);
    pool.max_tables_per_component(TABLES_PER_COMPONENT);
    pool.max_component_instance_size(1 << 20);
    pool.max_core_instance_size(1 << 20);
    pool.max_memory_size(limits.max_memory);
    pool.table_elements(50_000);
    // Few warm slots, so that a new policy reuses the memories of retired ones instead of fresh slots. With wasmtime's default (100) each
    // activation leaves up to 100 memories resident. An instance still gets a slot of its own policy while there is one.
    pool.max_unused_warm_slots(MAX_UNUSED_WARM_SLOTS);
    // Used memory is zeroed up to this size and only the rest is returned to the system, because returning interrupts every other core,
    // which costs more than zeroing what a small policy uses. A Rust policy with 192 KiB that does not grow took 16.6 µs with this size
    // and 28.8 µs with half of it (`cargo bench --bench door`).
    pool.linear_memory_keep_resident(256 << 10);
    pool.table_keep_resident(64 << 10);
    // Where Linux tells which pages were written (6.7 or newer), only these are reset.
    pool.pagemap_scan(Enabled::Auto);
    pool
}

/// The engine of tests and one-off commands, created once per process.
pub fn shared() -> anyhow::Result<Engine> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    if let Some(engine) = ENGINE.get() {
        return Ok(engine.clone());
    }
    // The gateways of one test process share it, and each may run the default number of decisions at once.
    let limits = Limits::default();
    let engine = engine(&Limits { concurrency: 2 * limits.concurrency, ..limits })?;
    Ok(ENGINE.get_or_init(|| engine).clone())
}
