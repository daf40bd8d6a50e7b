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
    #[error("has {0} bytes; the maximum size of a policy is {MAX_COMPONENT_BYTES}")]
    TooLarge(u64),
    #[error("is not WebAssembly: expected a component, a .wasm file that starts with the bytes 00 61 73 6d")]
    NotWasm,
    #[error(
        "is a core module, not a component: build for wasm32-wasip2, or convert it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error(
        "is precompiled machine code (.cwasm), which is never loaded: use the .wasm file that it was compiled from"
    )]
    Precompiled,
    #[error("is not a valid component: {0}")]
    Invalid(String),
    #[error("was not compiled within policy.compile-timeout ({0:?})")]
    CompileTimeout(Duration),
    /// The compiler crashed, usually because it ran out of memory.
    #[error("cannot be compiled within 3 GiB of memory: the compiler ended with {0}")]
    CompilerCrashed(String),
    /// The engine's pool has no instance that is large enough.
    #[error("exceeds the limits of an instance: {0}")]
    InstanceTooLarge(String),
    /// The compiler did not run, which is not the component's fault.
    #[error("cannot be compiled, because the compiler did not run: {0}")]
    CompilerUnavailable(String),
    #[error(
        "imports interfaces that Tidegate does not provide: {0}. A policy may import those of wit/policy.wit and, of WASI 0.2, wasi:cli, wasi:config and wasi:http/outgoing-handler"
    )]
    MissingImport(String),
    #[error("does not export {AUTHORIZER_INTERFACE}, as a policy must; it exports {0}")]
    MissingExport(String),
}
