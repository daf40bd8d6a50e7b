//! The JavaScript runtime of Tidegate's TypeScript policies.
//!
//! The layers, from the lowest: `gateway` is the world outside, `bindings` gives functions in Rust to the platform script of `js/`, `engine`
//! evaluates that script and runs its event loop, `component` has the exports of a policy.

#[cfg_attr(not(target_arch = "wasm32"), allow(dead_code))]
mod heap;
#[cfg(target_arch = "wasm32")]
mod checkpoint;
#[cfg(target_arch = "wasm32")]
mod memory;
#[cfg(not(target_arch = "wasm32"))]
mod memory {
    /// Calls `work`: on the host, all memory is alike.
    pub fn temporarily<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
}
pub mod gateway;
pub mod crypto;
pub mod web;
mod slim;
mod compiler;
mod script;
mod spare;
mod program;
pub mod bindings;
mod event_loop;
pub mod engine;
#[cfg(target_arch = "wasm32")]
mod component;
