//! Why a file cannot be loaded as a policy.

use std::time::Duration;

/// Larger files are not loaded. Policies of the heaviest languages have some 20 MB.
pub const MAX_COMPONENT_BYTES: u64 = 64 << 20;
/// The interface that a policy exports.
pub const AUTHORIZER_INTERFACE: &str = "tidegate:policy/authorizer@0.1.0";

/// The texts are predicates of the file: callers put its name before them.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot be read")]
    Read(#[from] std::io::Error),
    #[error("has {0} bytes; a policy has at most {MAX_COMPONENT_BYTES}")]
    TooLarge(u64),
    #[error("is not WebAssembly: expected a component, a .wasm file that begins with the bytes 00 61 73 6d")]
    NotWasm,
    #[error(
        "is a core module and not a component: `wasm-tools component new` makes one of it, or build for wasm32-wasip2"
    )]
    CoreModule,
    #[error("is precompiled machine code (.cwasm), which is never run from a file: give the .wasm that it was made of")]
    Precompiled,
    #[error("is not a valid component: {0}")]
    Invalid(String),
    #[error("was not compiled after {0:?}; the compiler was stopped")]
    CompileTimeout(Duration),
    /// The compiler crashed, usually because it ran out of memory.
    #[error("cannot be compiled within 3 GiB of memory; the compiler ended with {0}")]
    CompilerCrashed(String),
    /// The engine's pool has no instance that is large enough.
    #[error("needs more than an instance has: {0}")]
    InstanceTooLarge(String),
    /// The compiler did not run, which is not the component's fault.
    #[error("cannot be compiled here: {0}")]
    CompilerUnavailable(String),
    #[error(
        "imports what Tidegate does not have: {0}. A policy may import what wit/policy.wit names, and of WASI 0.2 wasi:cli, wasi:config and wasi:http/outgoing-handler"
    )]
    MissingImport(String),
    #[error("does not export {AUTHORIZER_INTERFACE}, as a policy must; it exports {0}")]
    MissingExport(String),
}
