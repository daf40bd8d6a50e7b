//! The engines that policies run in: one for each canonical ABI.
//!
//! Support for the asynchronous ABI is a setting of an engine, and makes the calls of every component in it slower. So synchronous
//! components have an engine without it, and the second engine is made when the first component needs it. An engine is not public: a
//! store, a linker and an instance get theirs from the component that they are made for, in `wasm::component`.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::policy::Limits;
use crate::wasm::abi::Abi;
use crate::wasm::ticker::Ticker;

/// Instances for the test cases of a new policy: a case takes one or two, and the one before may not be torn down yet.
const TEST_INSTANCES: usize = 4;
const MAX_UNUSED_WARM_SLOTS: u32 = 8;
/// Adapters and shims of a component have core instances, memories and tables of their own. The largest components measured have 30 core
/// instances and 12 tables (Python), and 3 memories (QuickJS with stubs for WASI).
const CORE_INSTANCES_PER_COMPONENT: u32 = 48;
pub(super) const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 16;
/// Memories of a pool for each instance: as many as a component may have, or those of nearly all components. Each reserves 4 GiB of address
/// space, whatever `policy.max-memory` is, so that accesses need no bounds checks.
const POOLED_MEMORIES: [u32; 2] = [MEMORIES_PER_COMPONENT, 2];
/// Stacks of a pool for each instance of an asynchronous component: one for each of its tasks that waits in the middle of a function.
const STACKS_PER_ASYNC_INSTANCE: u32 = 4;

/// The engines of a gateway or of a command, which share one thread that ticks for them.
#[derive(Clone)]
pub struct Engines(Arc<Shared>);

struct Shared {
    kind: Kind,
    synchronous: Engine,
    /// Made on its first use.
    asynchronous: Mutex<Option<Engine>>,
    ticker: Option<Ticker>,
}

enum Kind {
    /// With a pool of an instance per concurrent decision. The permits of decisions are shared, so there are never more instances in both
    /// pools together than in one of them.
    Pooled(Limits),
    /// With fuel instead of epochs.
    Metered,
}

impl Engines {
    /// Engines for decisions. On a machine without the address space for a pool, each instance is allocated by itself.
    pub fn new(limits: &Limits) -> anyhow::Result<Self> {
        let ticker = Ticker::start()?;
        Self::with(Kind::Pooled(limits.clone()), Some(ticker))
    }

    /// Engines that count instructions as fuel, for benchmarks. They have no epochs, so only the end of its fuel stops a policy.
    pub fn metered() -> anyhow::Result<Self> {
        Self::with(Kind::Metered, None)
    }

    fn with(kind: Kind, ticker: Option<Ticker>) -> anyhow::Result<Self> {
        let synchronous = kind.engine(Abi::Synchronous, ticker.as_ref())?;
        Ok(Self(Arc::new(Shared { kind, synchronous, asynchronous: Mutex::default(), ticker })))
    }

    /// The engine for components of this ABI.
    pub(super) fn get(&self, abi: Abi) -> anyhow::Result<Engine> {
        let Shared { kind, synchronous, asynchronous, ticker } = &*self.0;
        match abi {
            Abi::Synchronous => Ok(synchronous.clone()),
            Abi::Async => {
                // Locked meanwhile, so that a second one is never made.
                let mut asynchronous = asynchronous.lock();
                if let Some(engine) = &*asynchronous {
                    return Ok(engine.clone());
                }
                let engine = kind.engine(abi, ticker.as_ref())?;
                Ok(asynchronous.insert(engine).clone())
            }
        }
    }

    /// Bytes of the memories of an instance; those of metered engines have no limit.
    pub(super) fn max_memory(&self) -> usize {
        match &self.0.kind {
            Kind::Pooled(limits) => limits.max_memory,
            Kind::Metered => usize::MAX,
        }
    }

    /// What the pools hold, if there is address space for pools.
    pub fn pool_usage(&self) -> Option<PoolUsage> {
        let Shared { synchronous, asynchronous, .. } = &*self.0;
        let asynchronous = asynchronous.lock().clone();
        let pools = [Some(synchronous), asynchronous.as_ref()].into_iter().flatten();
        pools.filter_map(PoolUsage::of).reduce(PoolUsage::plus)
    }
}

impl Kind {
    fn engine(&self, abi: Abi, ticker: Option<&Ticker>) -> anyhow::Result<Engine> {
        let engine = match self {
            Self::Pooled(limits) => pooled(limits, abi),
            Self::Metered => {
                let mut config = config(abi, None);
                config.epoch_interruption(false).consume_fuel(true);
                Engine::new(&config)
            }
        };
        let engine = engine.map_err(|error| anyhow::anyhow!("cannot start the WebAssembly engine: {error:#}"))?;
        if let Some(ticker) = ticker {
            ticker.add(&engine);
        }
        Ok(engine)
    }
}

fn pooled(limits: &Limits, abi: Abi) -> wasmtime::Result<Engine> {
    let mut last_error = None;
    for memories in POOLED_MEMORIES {
        match Engine::new(&config(abi, Some(pool(limits, abi, memories)))) {
            Ok(engine) => {
                if memories < MEMORIES_PER_COMPONENT {
                    tracing::warn!(
                        memories,
                        "the address space is small: when all instances are in use, those of a policy with more memories than this fail"
                    );
                }
                return Ok(engine);
            }
            Err(error) => last_error = Some(error),
        }
    }
    if let Some(error) = last_error {
        tracing::warn!(%error, "no address space for a pool of instances: allocating each by itself, which is slower");
    }
    Engine::new(&config(abi, None))
}

/// An engine that only compiles. Its code runs in the engine for this ABI of [`Engines::new`]: it does not depend on how instances are
/// allocated.
pub(super) fn compiler(abi: Abi) -> anyhow::Result<Engine> {
    Engine::new(&config(abi, None)).map_err(|error| anyhow::anyhow!("cannot start the compiler: {error:#}"))
}

/// Resources of pools that are in use, and the memory of idle ones in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUsage {
    pub component_instances: u64,
    pub core_instances: u64,
    pub memories: usize,
    pub tables: usize,
    pub stacks: usize,
    pub idle_memory_bytes: usize,
    pub idle_table_bytes: usize,
}

impl PoolUsage {
    fn of(engine: &Engine) -> Option<Self> {
        let pool = engine.pooling_allocator_metrics()?;
        Some(Self {
            component_instances: pool.component_instances(),
            core_instances: pool.core_instances(),
            memories: pool.memories(),
            tables: pool.tables(),
            stacks: pool.stacks(),
            idle_memory_bytes: pool.unused_memory_bytes_resident(),
            idle_table_bytes: pool.unused_table_bytes_resident(),
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            component_instances: self.component_instances + other.component_instances,
            core_instances: self.core_instances + other.core_instances,
            memories: self.memories + other.memories,
            tables: self.tables + other.tables,
            stacks: self.stacks + other.stacks,
            idle_memory_bytes: self.idle_memory_bytes + other.idle_memory_bytes,
            idle_table_bytes: self.idle_table_bytes + other.idle_table_bytes,
        }
    }
}

fn config(abi: Abi, pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    match abi {
        // The machinery for tasks would only cost time.
        Abi::Synchronous => config.concurrency_support(false),
        Abi::Async => config.concurrency_support(true).wasm_component_model_async(true),
    };
    config.epoch_interruption(true);
    // The stack of the guest; deeper recursion traps. The fiber's stack holds it and the frames of the host.
    config.max_wasm_stack(512 << 10);
    config.async_stack_size(1 << 20);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// A pool for the instances of `limits`, with this many memories for each.
fn pool(limits: &Limits, abi: Abi, memories: u32) -> PoolingAllocationConfig {
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
    pool.total_memories(for_all(memories));
    pool.total_tables(for_all(TABLES_PER_COMPONENT / 4));
    pool.total_stacks(for_all(if abi == Abi::Async { STACKS_PER_ASYNC_INSTANCE } else { 1 }));
    pool.max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT);
    pool.max_memories_per_component(MEMORIES_PER_COMPONENT);
    pool.max_tables_per_component(TABLES_PER_COMPONENT);
    // All of them may be in one module, as some tools that merge modules have it.
    pool.max_memories_per_module(MEMORIES_PER_COMPONENT);
    pool.max_tables_per_module(TABLES_PER_COMPONENT);
    pool.max_component_instance_size(1 << 20);
    pool.max_core_instance_size(1 << 20);
    pool.max_memory_size(limits.max_memory);
    pool.table_elements(50_000);
    // Few warm slots, so that a new policy reuses the memories of retired ones instead of fresh slots. With wasmtime's default (100) each
    // activation leaves up to 100 memories resident. An instance still gets a slot of its own policy while there is one.
    pool.max_unused_warm_slots(MAX_UNUSED_WARM_SLOTS);
    // Used memory is zeroed up to this size and only the rest is returned to the system, because returning interrupts every other core,
    // and the next instance takes a page fault for each page again.
    pool.linear_memory_keep_resident(limits.pool_resident.min(limits.max_memory));
    pool.table_keep_resident(64 << 10);
    // Where Linux tells which pages were written (6.7 or newer), only these are reset.
    pool.pagemap_scan(Enabled::Auto);
    pool
}

/// The engines of tests and one-off commands, created once per process.
pub fn shared() -> anyhow::Result<Engines> {
    static ENGINES: OnceLock<Engines> = OnceLock::new();
    if let Some(engines) = ENGINES.get() {
        return Ok(engines.clone());
    }
    // The gateways of one test process share it, and each may run the default number of decisions at once.
    let limits = Limits::default();
    let engines = Engines::new(&Limits { concurrency: 2 * limits.concurrency, ..limits })?;
    Ok(ENGINES.get_or_init(|| engines).clone())
}
