//! The policy runtime: compiles components and runs one instance per decision under CPU and memory limits.

pub(crate) mod abi;
pub(crate) mod code_cache;
pub(crate) mod compile;
pub mod component;
pub(crate) mod cpu_budget;
pub mod engine;
pub(crate) mod features;
pub mod host;
pub(crate) mod host_trace;
pub(crate) mod imports;
pub(crate) mod instance;
pub(crate) mod load_error;
pub(crate) mod log_rate;
pub(crate) mod low_priority_pool;
pub(crate) mod memory_limiter;
pub(crate) mod ticker;
