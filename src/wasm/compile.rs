//! Compiles WebAssembly to machine code, in a child process with limits, and caches the code in a directory.
//!
//! A compilation cannot be stopped within a thread, and a hostile component may take forever or use all memory. So the gateway starts
//! its own program as a child with low priority, and kills the child when it takes too long.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::component::Component;
use wasmtime::{Engine, ResourcesRequired};

use crate::policy::Limits;
use crate::util::scheduling;
use crate::wasm::abi::Abi;
use crate::wasm::code_cache::CodeCache;
use crate::wasm::engine::{self, Engines, MEMORIES_PER_COMPONENT};
use crate::wasm::features;
use crate::wasm::load_error::{LoadError, MAX_COMPONENT_BYTES, causes};

/// The hidden command that runs [`run_child`].
pub const COMPILE_COMMAND: &str = "compile-policy";
/// The exit code of a child whose component is invalid.
const EXIT_INVALID: i32 = 3;
/// The exit code of a child whose component needs a feature that the engine does not have.
const EXIT_UNSUPPORTED: i32 = 4;
/// CPU time of a child, which compiles on several threads: two cores for an hour.
const MAX_CHILD_CPU_SECONDS: u64 = 7200;
/// Address space of a child. The largest policy measured takes 0.5 GB.
const MAX_CHILD_MEMORY_BYTES: u64 = 3 << 30;
/// Machine code is three to ten times as large as its WebAssembly.
const MAX_CODE_BYTES: u64 = 1 << 30;
/// A page of linear memory.
const PAGE_BYTES: u64 = 64 << 10;
/// Standard error of a child; the rest is discarded.
const MAX_STDERR_BYTES: u64 = 4 << 10;

/// Compiles untrusted bytes to components.
#[derive(Clone)]
pub struct Compiler {
    engines: Engines,
    child: Option<CompilerProcess>,
}

#[derive(Clone)]
struct CompilerProcess {
    program: PathBuf,
    cache: Option<CodeCache>,
    timeout: Duration,
}

/// Compiles in this process and without limits, for tests and benchmarks, which trust their components.
impl From<Engines> for Compiler {
    fn from(engines: Engines) -> Self {
        Self { engines, child: None }
    }
}

impl Compiler {
    /// Compiles in child processes, and caches the code in the policy store below `cache_dir`.
    pub fn new(limits: &Limits, cache_dir: Option<&Path>) -> anyhow::Result<Self> {
        let program = std::env::current_exe()
            .map_err(|error| anyhow::anyhow!("cannot find the executable of this process: {error}"))?;
        let engines = Engines::new(limits)?;
        let cache = cache_dir.map(CodeCache::new);
        let child = CompilerProcess { program, cache, timeout: limits.compile_timeout };
        Ok(Self { engines, child: Some(child) })
    }

    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// Compiles for the engine of `abi`, the component's. `digest` is that of `bytes`, in hexadecimal.
    pub(super) fn compile(&self, bytes: &[u8], abi: Abi, digest: &str) -> Result<Component, LoadError> {
        let engine = self.engines.get(abi).map_err(|error| LoadError::CompilerUnavailable(format!("{error:#}")))?;
        // The code is for an engine of the same version and settings, so all that can fail is that the pool's instances are too small.
        let load = |code: &[u8]| {
            load_bytes(&engine, code).map_err(|error| too_large(abi, self.engines.max_memory(), code, &error))
        };
        let Some(child) = &self.child else { return load(&precompile(&engine, bytes)?) };
        if let Some(component) = child.cache.as_ref().and_then(|cache| cache.load(&engine, digest)) {
            return Ok(component);
        }
        let code = child.run(bytes)?;
        if let Some(component) = child.cache.as_ref().and_then(|cache| cache.save(&engine, digest, &code)) {
            return Ok(component);
        }
        load(&code)
    }
}

impl CompilerProcess {
    fn run(&self, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
        let failed = |error: std::io::Error| LoadError::CompilerUnavailable(error.to_string());
        let mut command = Command::new(&self.program);
        command.arg(COMPILE_COMMAND).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(failed)?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(mut input), Some(output), Some(errors)) = pipes else { unreachable!("all three are piped") };
        std::thread::scope(|scope| {
            // Writing fails if the child ends early; its exit status says why it ended.
            scope.spawn(move || input.write_all(bytes));
            let code = scope.spawn(move || read(output, MAX_CODE_BYTES));
            let message = scope.spawn(move || read(errors, MAX_STDERR_BYTES));
            let status = wait(&mut process, self.timeout);
            // Output that could not be read is truncated, and the engine rejects truncated code.
            let (code, message) = (code.join().unwrap_or_default(), message.join().unwrap_or_default());
            let message = String::from_utf8_lossy(&message).trim_end().to_owned();
            match status.map_err(failed)? {
                None => Err(LoadError::CompileTimeout(self.timeout)),
                Some(status) if status.success() => Ok(code),
                Some(status) if status.code() == Some(EXIT_INVALID) => Err(LoadError::Invalid(message)),
                Some(status) if status.code() == Some(EXIT_UNSUPPORTED) => Err(LoadError::Unsupported(message)),
                Some(status) => Err(LoadError::CompilerCrashed(format!("{status}: {message}"))),
            }
        })
    }
}

fn read(mut from: impl Read, max_bytes: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The rest is read and discarded, so that the writer does not block forever.
    let _ = from.by_ref().take(max_bytes).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut from, &mut std::io::sink());
    bytes
}

/// Waits until the child exits; `None` if it was killed after the timeout.
fn wait(process: &mut std::process::Child, timeout: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            process.kill()?;
            process.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn precompile(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    engine.precompile_component(bytes).map_err(|error| features::explain(bytes, &error))
}

/// The error for a component that no instance of the pool can hold.
fn too_large(abi: Abi, max_memory: usize, code: &[u8], error: &wasmtime::Error) -> LoadError {
    // An engine without a pool loads it and tells what it needs.
    let needed = engine::compiler(abi).ok().and_then(|engine| load_bytes(&engine, code).ok()?.resources_required());
    LoadError::InstanceTooLarge(match needed {
        Some(needed) if needed.num_memories > MEMORIES_PER_COMPONENT => format!(
            "it has {} linear memories, and a policy may have {MEMORIES_PER_COMPONENT}. Stubs and adapters for WASI have memories of their own: \
             build it without stubs (componentize-qjs: without `--stub-wasi`), because Tidegate provides WASI",
            needed.num_memories
        ),
        Some(ResourcesRequired { max_initial_memory_size: Some(pages), .. })
            if pages.saturating_mul(PAGE_BYTES) > max_memory as u64 =>
        {
            let size = pages.saturating_mul(PAGE_BYTES);
            format!("a memory of it has {size} bytes from its start, and policy.max-memory is {max_memory} bytes")
        }
        _ => causes(error),
    })
}

#[expect(unsafe_code, reason = "deserializing runs machine code as it is; see the comment")]
fn load_bytes(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: this process compiled `code`, or a child process of this program, which sent it through a pipe that only the two have.
    unsafe { Component::deserialize(engine, code) }
}

/// The child process: limits itself, then compiles standard input to standard output.
pub fn run_child() -> anyhow::Result<()> {
    let limit = |resource, value| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    limit(Resource::As, MAX_CHILD_MEMORY_BYTES)?;
    // The parent kills a child after a timeout; this limit is for a child whose parent died.
    limit(Resource::Cpu, MAX_CHILD_CPU_SECONDS)?;
    limit(Resource::Core, 0)?;
    scheduling::lower_priority(10);
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_COMPONENT_BYTES + 1).read_to_end(&mut bytes)?;
    // The parent reads the ABI from the same bytes.
    let (message, code) = match precompile(&engine::compiler(Abi::of(&bytes))?, &bytes) {
        Ok(code) => return Ok(std::io::stdout().lock().write_all(&code)?),
        Err(LoadError::Unsupported(message)) => (message, EXIT_UNSUPPORTED),
        Err(LoadError::Invalid(message)) => (message, EXIT_INVALID),
        Err(error) => return Err(error.into()),
    };
    eprintln!("{message}");
    std::process::exit(code)
}
