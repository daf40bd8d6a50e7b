//! Why a file cannot be loaded as a policy.
//!
//! Each text says what the author can do: for what a toolchain decides, the switch of the toolchain.

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
        "is a core module, not a component: build for wasm32-wasip2, or convert it with `wasm-tools component new` (with `--adapt wasi_snapshot_preview1=…` if it was built for wasm32-wasip1)"
    )]
    CoreModule,
    #[error(
        "is precompiled machine code (.cwasm), which is never loaded: use the .wasm file that it was compiled from"
    )]
    Precompiled,
    #[error("is not a valid component: {0}")]
    Invalid(String),
    /// It is valid, but needs a feature of WebAssembly that no engine has.
    #[error("uses {0}")]
    Unsupported(String),
    #[error("was not compiled within policy.compile-timeout ({0:?})")]
    CompileTimeout(Duration),
    /// The compiler crashed, usually because it ran out of memory.
    #[error("cannot be compiled within 3 GiB of memory: the compiler ended with {0}")]
    CompilerCrashed(String),
    /// No instance of the engine's pool is large enough.
    #[error("exceeds the limits of an instance: {0}")]
    InstanceTooLarge(String),
    /// The compiler or the engine did not run, which is not the component's fault.
    #[error("cannot be compiled, because the compiler did not run: {0}")]
    CompilerUnavailable(String),
    #[error(
        "imports interfaces that Tidegate does not provide: {0}. A policy may import those of wit/policy.wit and, of WASI 0.2 and 0.3, wasi:cli, wasi:config and wasi:http for outbound requests"
    )]
    MissingImport(String),
    #[error(
        "imports functions of another type than Tidegate provides: {0}. Generate its bindings from the current wit/policy.wit"
    )]
    WrongImport(String),
    #[error(
        "does not export {AUTHORIZER_INTERFACE}, as a policy must; it exports {0}. Build it for the world `policy` of wit/policy.wit (`--world policy`, in some toolchains `-n policy` or `-w policy`)"
    )]
    MissingExport(String),
    #[error(
        "exports {AUTHORIZER_INTERFACE} with another type than wit/policy.wit has: {0}. Generate its bindings from the current wit/policy.wit"
    )]
    WrongExport(String),
}

/// The messages of an error and of its causes, each once: a cause is often contained in the message before it.
pub fn causes(error: &wasmtime::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in error.chain().map(ToString::to_string) {
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}
