//! Why a file cannot be loaded as a policy.

use std::time::Duration;

/// A larger file is not loaded. Policies of the heaviest languages have some 20 MB.
pub const MAX_SIZE: u64 = 64 << 20;
/// What a policy exports.
pub const EXPORT: &str = "tidegate:policy/authorizer@0.1.0";

/// Why a file is no policy. Each says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot be read")]
    Read(#[from] std::io::Error),
    /// It is too large.
    #[error("has {0} bytes; a policy has at most {MAX_SIZE}")]
    TooLarge(u64),
    /// It is not WebAssembly.
    #[error("is not WebAssembly: expected a component, a .wasm file that begins with the bytes 00 61 73 6d")]
    NotWasm,
    /// It is a core module.
    #[error(
        "is a core module and not a component: `wasm-tools component new` makes one of it, or build for wasm32-wasip2"
    )]
    CoreModule,
    /// It is compiled already, for some machine.
    #[error("is precompiled machine code (.cwasm), which is never run from a file: give the .wasm that it was made of")]
    Precompiled,
    /// It is broken.
    #[error("is not a valid component: {0}")]
    Invalid(String),
    /// It took too long to compile.
    #[error("was not compiled after {0:?}; the compiler was stopped")]
    TooLong(Duration),
    /// It took too much to compile.
    #[error("cannot be compiled within 3 GiB of memory; the compiler ended with {0}")]
    TooHard(String),
    /// No instance is so large.
    #[error("needs more than an instance has: {0}")]
    TooBig(String),
    /// The compiler is at fault, not the component.
    #[error("cannot be compiled here: {0}")]
    Compiler(String),
    /// It wants what the host does not give.
    #[error(
        "imports what Tidegate does not have: {0}. A policy may import what wit/policy.wit names, and of WASI 0.2 wasi:cli, wasi:config and wasi:http/outgoing-handler"
    )]
    MissingImport(String),
    /// It is no policy.
    #[error("does not export {EXPORT}, as a policy must; it exports {0}")]
    MissingExport(String),
}
