//! From WebAssembly to machine code: in a child process with bounds, kept in a folder for the next start.
//!
//! A compilation cannot be stopped in a thread, and a component may be made to compile for ever, or to take all memory. So the
//! gateway starts its own program once more, nicely, and ends it when it takes too long.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::artifact::policy_store::PolicyStore;
use crate::policy::Limits;
use crate::util::files;
use crate::wasm::engine;
use crate::wasm::load_error::LoadError;

/// The hidden command that [`child`] is.
pub const COMMAND: &str = "compile-policy";
/// How a child says that the component is at fault, and not the machine.
const INVALID: i32 = 3;
/// CPU time of a child, whatever the operator says: both cores of an hour.
const CPU: u64 = 7200;
/// Address space of a child. The largest policy that was seen here takes 0.5 GB.
const MEMORY: u64 = 3 << 30;
/// Machine code is some three to ten times the WebAssembly that it was made of.
const MAX_CODE: u64 = 1 << 30;
/// What of a child's words is read.
const MAX_WORDS: u64 = 4 << 10;

/// Makes components of bytes that may be anything.
#[derive(Clone)]
pub struct Compiler {
    engine: Engine,
    child: Option<Child>,
}

#[derive(Clone)]
struct Child {
    program: PathBuf,
    store: Option<PolicyStore>,
    time: Duration,
}

/// In this process and without bounds: for tests and benchmarks, which know what they compile.
impl From<Engine> for Compiler {
    fn from(engine: Engine) -> Self {
        Self { engine, child: None }
    }
}

impl Compiler {
    /// Compiles in children of this program, and keeps what comes of it in the policy store below `cache_dir`.
    pub fn new(limits: &Limits, cache_dir: Option<&Path>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().map_err(|error| anyhow::anyhow!("cannot find this program: {error}"))?;
        let store = cache_dir.map(PolicyStore::new);
        let child = Child { program, store, time: limits.compile_timeout };
        Ok(Self { engine: engine::engine(limits)?, child: Some(child) })
    }

    /// The engine that runs what is compiled.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Compiles a component, `digest` of which is in hexadecimal.
    pub(super) fn compile(&self, bytes: &[u8], digest: &str) -> Result<Component, LoadError> {
        let invalid = |error: wasmtime::Error| LoadError::Invalid(format!("{error:#}"));
        let Some(child) = &self.child else { return Component::from_binary(&self.engine, bytes).map_err(invalid) };
        let file = child.store.as_ref().map(|store| (store, store.compiled(&self.name(digest))));
        if let Some((_, file)) = &file
            && file.exists()
        {
            match files::check_private(file).map_err(wasmtime::Error::from).and_then(|()| load(&self.engine, file)) {
                Ok(component) => return Ok(component),
                // Cut off by a full disk, or of another version: it is made again.
                Err(error) => tracing::warn!(file = %file.display(), %error, "a compiled policy cannot be used"),
            }
        }
        let code = child.run(bytes)?;
        if let Some((store, file)) = &file {
            match store
                .write_compiled(file, &code)
                .map_err(wasmtime::Error::from)
                .and_then(|()| load(&self.engine, file))
            {
                Ok(component) => return Ok(component),
                Err(error) => tracing::warn!(file = %file.display(), %error, "a compiled policy cannot be kept"),
            }
        }
        // The child compiled it for this very engine; what may still be wrong is that no instance of its pool is so large.
        load_bytes(&self.engine, &code).map_err(|error| LoadError::TooBig(format!("{error:#}")))
    }

    /// What tells this engine's code for a component from every other.
    fn name(&self, digest: &str) -> String {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{digest}-{:016x}", hasher.finish())
    }
}

impl Child {
    fn run(&self, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
        let failed = |error: std::io::Error| LoadError::Compiler(error.to_string());
        let mut command = Command::new(&self.program);
        command.arg(COMMAND).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(failed)?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(mut input), Some(output), Some(errors)) = pipes else { unreachable!("all three are piped") };
        std::thread::scope(|scope| {
            // A child that ends early reads no more; why it did is told by its status.
            scope.spawn(move || input.write_all(bytes));
            let code = scope.spawn(move || read(output, MAX_CODE));
            let words = scope.spawn(move || read(errors, MAX_WORDS));
            let status = wait(&mut process, self.time);
            // An output that could not be read is cut short, and no code for the engine.
            let (code, words) = (code.join().unwrap_or_default(), words.join().unwrap_or_default());
            let words = String::from_utf8_lossy(&words).trim_end().to_owned();
            match status.map_err(failed)? {
                None => Err(LoadError::TooLong(self.time)),
                Some(status) if status.success() => Ok(code),
                Some(status) if status.code() == Some(INVALID) => Err(LoadError::Invalid(words)),
                // Out of memory, most often: the allocator aborts.
                Some(status) => Err(LoadError::TooHard(format!("{status}: {words}"))),
            }
        })
    }
}

fn read(from: impl Read, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The rest is thrown away, so that the writer does not wait for ever.
    let mut from = from;
    let _ = from.by_ref().take(limit).read_to_end(&mut bytes);
    let _ = std::io::copy(&mut from, &mut std::io::sink());
    bytes
}

/// Waits for a child's end; none if it had to be ended.
fn wait(process: &mut std::process::Child, time: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let end = Instant::now() + time;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            process.kill()?;
            process.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[expect(unsafe_code, reason = "machine code is run as it is; see the comment")]
fn load(engine: &Engine, file: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the policy store wrote the file, from what this very program compiled, into a directory that only this user may
    // write to. Whoever can change it can change the program too.
    unsafe { Component::deserialize_file(engine, file) }
}

#[expect(unsafe_code, reason = "machine code is run as it is; see the comment")]
fn load_bytes(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` is what a child of this very program compiled, and came through a pipe of our own.
    unsafe { Component::deserialize(engine, code) }
}

/// The child: compiles standard input to standard output, within the bounds, and ends.
pub fn child() -> anyhow::Result<()> {
    let limit = |resource, value| setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) });
    limit(Resource::As, MEMORY)?;
    // The parent ends a child by the clock; this is for one whose parent is gone.
    limit(Resource::Cpu, CPU)?;
    limit(Resource::Core, 0)?;
    // Where that is forbidden it runs as all others do.
    let _ = nice(10);
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(crate::wasm::load_error::MAX_SIZE + 1).read_to_end(&mut bytes)?;
    match engine::compiler()?.precompile_component(&bytes) {
        Ok(code) => Ok(std::io::stdout().lock().write_all(&code)?),
        Err(error) => {
            eprintln!("{error:#}");
            std::process::exit(INVALID)
        }
    }
}
