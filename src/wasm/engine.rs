//! The one engine that all policies run in, and the ticker that counts their CPU time.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::policy::Limits;

/// The unit of CPU time. A policy that runs longer than one tick yields to the others on its thread.
pub const TICK: Duration = Duration::from_millis(5);

/// A case is asked once or twice, and the last one's instance may not be gone yet.
const CASES: usize = 4;
/// Memories that are kept for policies which have none in use.
const WARM: u32 = 8;
/// A component brings adapters and shims with it: core instances, memories and tables beside those of its own module.
/// The largest that was seen here (Python) has 30 core instances, 2 memories and 12 tables.
const CORE_INSTANCES: u32 = 48;
const MEMORIES: u32 = 2;
const TABLES: u32 = 16;

/// Makes an engine whose pool holds an instance for each concurrent decision, or, where the machine has no address space
/// for that, one that allocates on demand.
pub fn engine(limits: &Limits) -> anyhow::Result<Engine> {
    let engine = Engine::new(&config(Some(pool(limits)))).or_else(|error| {
        tracing::warn!(%error, "no address space for a pool of instances: each is allocated by itself, which is slower");
        Engine::new(&config(None))
    });
    let engine = engine.map_err(|error| anyhow::anyhow!("cannot start the WebAssembly engine: {error:#}"))?;
    start_ticker(&engine)?;
    Ok(engine)
}

/// An engine that only compiles, for those made by [`engine`]: what it compiles does not depend on where instances live.
pub fn compiler() -> anyhow::Result<Engine> {
    Engine::new(&config(None)).map_err(|error| anyhow::anyhow!("cannot start the compiler: {error:#}"))
}

/// An engine that counts the instructions that it runs, for benchmarks. Nothing stops a policy in it but the counting.
pub fn metered() -> anyhow::Result<Engine> {
    let mut config = config(None);
    config.epoch_interruption(false).consume_fuel(true);
    Engine::new(&config).map_err(|error| anyhow::anyhow!("cannot start the engine that counts: {error:#}"))
}

fn config(pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // Policies are plain functions: what serves concurrent calls within one instance would be set up for nothing.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    // A policy's own stack; deeper recursion is a trap. The fiber's stack holds it and the host's frames.
    config.max_wasm_stack(512 << 10);
    config.async_stack_size(1 << 20);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn pool(limits: &Limits) -> PoolingAllocationConfig {
    // While one policy replaces another both have instances made ahead, and the new one is asked its cases.
    let instances = limits.concurrency.saturating_add(limits.prepared.saturating_mul(2)).saturating_add(limits.shadow);
    let instances = instances.saturating_add(CASES);
    let instances = u32::try_from(instances).unwrap_or(u32::MAX);
    let times = |n: u32| instances.saturating_mul(n);
    let mut pool = PoolingAllocationConfig::default();
    // Small policies need few of each; the pool is for the usual case of a fleet of one small policy, and for the worst of
    // an eighth as many large ones. Running out of it is an error outcome, never a wait.
    pool.total_component_instances(instances);
    pool.total_core_instances(times(CORE_INSTANCES / 4));
    pool.total_memories(times(MEMORIES));
    pool.total_tables(times(TABLES / 4));
    pool.total_stacks(instances);
    pool.max_core_instances_per_component(CORE_INSTANCES);
    pool.max_memories_per_component(MEMORIES);
    pool.max_tables_per_component(TABLES);
    pool.max_component_instance_size(1 << 20);
    pool.max_core_instance_size(1 << 20);
    pool.max_memory_size(limits.memory);
    pool.table_elements(50_000);
    // A new policy takes the memories of those before it, rather than ones that nobody used yet: else each swap would leave some of what
    // stays resident behind, up to 100 memories of it. Who was here first has its own back as long as there are some.
    pool.max_unused_warm_slots(WARM);
    // What an instance has used is zeroed up to here, and only the rest given back: giving back means that every other core
    // is interrupted, which costs more than zeroing what a small policy uses. A policy in Rust that has 192 KiB and does not grow took
    // 16.6 µs with this, and 28.8 with half of it (`cargo bench --bench door`).
    pool.linear_memory_keep_resident(256 << 10);
    pool.table_keep_resident(64 << 10);
    pool
}

/// One thread ticks for the engine as long as that lives. A plain one: a task on the runtime would be late when it matters.
fn start_ticker(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new().name("policy-ticker".into()).spawn(tick).context("cannot start the policy ticker")?;
    Ok(())
}

/// An engine for tests and one-off commands, made once a process.
pub fn shared() -> anyhow::Result<Engine> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    if let Some(engine) = ENGINE.get() {
        return Ok(engine.clone());
    }
    // Several gateways of a test share it, each of which may have as many decisions at once as one has by default.
    let limits = Limits::default();
    let engine = engine(&Limits { concurrency: 2 * limits.concurrency, ..limits })?;
    Ok(ENGINE.get_or_init(|| engine).clone())
}
