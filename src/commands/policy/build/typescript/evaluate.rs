//! The second half of a build: evaluates a program in the runtime, and takes a snapshot of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use futures_util::FutureExt;
use wasmtime::{Config, Engine, Instance, Linker, Module, Store, StoreLimits, StoreLimitsBuilder, Trap, Val};
use wasmtime_wizer::{InstanceState, ModuleContext, SnapshotVal, ValType, Wizer};

use crate::commands::policy::build::typescript::{Mistake, written};

/// The exports of the runtime that only a build calls.
const ALLOCATE: &str = "tidegate-build-alloc";
const BUILD: &str = "tidegate-build";
const SAVE: &str = "tidegate-build-save";
const SAMPLE: &str = "tidegate-build-sample";
pub const BUILD_EXPORTS: [&str; 4] = [ALLOCATE, BUILD, SAVE, SAMPLE];
/// Bytes of an element of a state.
const WORD_BYTES: usize = 8;
/// Memory for a parameter, by the canonical ABI.
const REALLOC: &str = "cabi_realloc";
/// Initializes the C library. The snapshot has its result.
const INITIALIZE: &str = "_initialize";

/// Bounds of the evaluation of top-level code, which may be hostile.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Instructions. The largest app measured takes a tenth of the default.
    pub fuel: u64,
    pub memory_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { fuel: 10_000_000_000, memory_bytes: 512 << 20 }
    }
}

/// Instructions of the sample decision.
const SAMPLE_FUEL: u64 = 500_000_000;
/// A larger report is not one.
const MAX_REPORT_BYTES: usize = 64 << 20;
/// What decisions may need in addition to the sample.
const ROOM_BYTES: usize = 16 << 10;
/// What an instance has at most at its start for what a decision allocates. A sample that needs more is not like others.
const MAX_ROOM_BYTES: usize = 1 << 20;
const WASM_PAGE_BYTES: usize = 64 << 10;
const MAX_WASM_STACK_BYTES: usize = 1 << 20;

/// The compiled runtime.
pub struct Runtime<'a> {
    context: ModuleContext<'a>,
    wizer: Wizer,
    module: Module,
    bounds: Bounds,
}

/// An instance of the runtime that evaluated a program.
pub struct Evaluation {
    /// JSON.
    pub report: Vec<u8>,
    /// Where the runtime has its list of ranges of pages, the first one and the end of each in four bytes, and for how many it has room.
    ranges: (usize, usize),
    /// The memory that an instance needs, and the globals, at the end of the evaluation.
    memory: Vec<u8>,
    globals: BTreeMap<String, Val>,
    store: Store<StoreLimits>,
    instance: Instance,
}

impl<'a> Runtime<'a> {
    pub fn new(wasm: &'a [u8], bounds: Bounds) -> Result<Self> {
        let mut wizer = Wizer::new();
        wizer.init_func(BUILD);
        let (context, instrumented) = wizer.instrument(wasm).map_err(failed)?;
        let mut config = Config::new();
        config.consume_fuel(true).max_wasm_stack(MAX_WASM_STACK_BYTES);
        // Every build compiles the runtime, and runs it for less time than that takes.
        config.cranelift_opt_level(wasmtime::OptLevel::None);
        let engine = Engine::new(&config).map_err(failed)?;
        let module = Module::new(&engine, written::recording(&instrumented)?).map_err(failed)?;
        Ok(Self { context, wizer, module, bounds })
    }

    /// Evaluates a program, which is JSON, in a new instance.
    pub fn evaluate(&self, program: &[u8]) -> Result<Evaluation> {
        let limits = StoreLimitsBuilder::new().memory_size(self.bounds.memory_bytes).build();
        let mut store = Store::new(self.module.engine(), limits);
        store.limiter(|limits| limits);
        store.set_fuel(self.bounds.fuel).map_err(failed)?;
        let mut linker = Linker::new(self.module.engine());
        // Top-level code has no settings, no clock, no randomness and no network.
        linker.define_unknown_imports_as_traps(&self.module).map_err(failed)?;
        let instance = linker.instantiate(&mut store, &self.module).map_err(failed)?;
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, INITIALIZE) {
            initialize.call(&mut store, ()).map_err(stopped)?;
        }
        run(store, instance, program)
    }

    /// The runtime as a module whose instances start with the state of the evaluation.
    pub fn snapshot(&self, mut evaluation: Evaluation) -> Result<Vec<u8>> {
        evaluation.decide_sample()?;
        let snapshot = self.wizer.snapshot(&self.context, &mut State(evaluation)).now_or_never();
        snapshot.context("the snapshot was not taken at once")?.map_err(failed)
    }
}

impl Evaluation {
    /// Lets the instance decide about a request, after its memory was copied, and puts the pages that this changes into the list of the
    /// copy.
    fn decide_sample(&mut self) -> Result<()> {
        let state = self.saved_state()?;
        let record = self.instance.get_memory(&mut self.store, written::RECORD).context("there is no record")?;
        record.data_mut(&mut self.store).fill(0);
        self.store.set_fuel(SAMPLE_FUEL).map_err(failed)?;
        let parameter = self.parameter(&state)?;
        if let Ok(sample) = self.instance.get_typed_func::<(u32, u32), u32>(&mut self.store, SAMPLE) {
            // Code that stops has written to pages until then.
            let used = sample.call(&mut self.store, parameter).unwrap_or_default() as usize;
            // Instances have this memory from the start: to let it grow are calls of the system.
            let end = (used + ROOM_BYTES).next_multiple_of(WASM_PAGE_BYTES).min(self.memory.len() + MAX_ROOM_BYTES);
            self.memory.resize(end.max(self.memory.len()), 0);
        }
        let pages = record.data(&self.store).get(..self.memory.len() / written::PAGE_BYTES).unwrap_or_default();
        let (mut at, max) = self.ranges;
        for range in written::ranges(pages, max) {
            for page in [range.start, range.end] {
                let word = self.memory.get_mut(at..at + 4).context("the runtime has no list of pages")?;
                word.copy_from_slice(&u32::try_from(page)?.to_le_bytes());
                at += 4;
            }
        }
        Ok(())
    }

    /// The state that the preparation of an instance leaves, empty if there is none. Afterwards the instance is as before.
    fn saved_state(&mut self) -> Result<Vec<u8>> {
        self.store.set_fuel(SAMPLE_FUEL).map_err(failed)?;
        let memory = self.instance.get_memory(&mut self.store, "memory").context("the runtime has no memory")?;
        let save = self.instance.get_typed_func::<(), u32>(&mut self.store, SAVE);
        let saved = save.and_then(|save| save.call(&mut self.store, ())).ok();
        let data = memory.data(&self.store);
        let state = saved.and_then(|at| {
            let (start, words) = (word(data, at as usize)?, word(data, at as usize + 4)?);
            data.get(start..start.checked_add(words.checked_mul(WORD_BYTES)?)?)
        });
        let state = state.map_or_else(Vec::new, <[u8]>::to_vec);
        let data = memory.data_mut(&mut self.store);
        data.fill(0);
        data.get_mut(..self.memory.len()).context("the memory of the runtime shrank")?.copy_from_slice(&self.memory);
        for (name, value) in &self.globals {
            let global = self.instance.get_global(&mut self.store, name);
            // Those that never change are as they were.
            let _ = global.map(|global| global.set(&mut self.store, *value));
        }
        Ok(state)
    }

    /// Writes a list into the memory, as a call of a component does it.
    fn parameter(&mut self, list: &[u8]) -> Result<(u32, u32)> {
        let (length, words) = (u32::try_from(list.len())?, u32::try_from(list.len() / WORD_BYTES)?);
        let realloc = self.instance.get_typed_func::<(u32, u32, u32, u32), u32>(&mut self.store, REALLOC);
        let Some(realloc) = realloc.ok().filter(|_| length > 0) else { return Ok((0, 0)) };
        let at = realloc.call(&mut self.store, (0, 0, u32::try_from(WORD_BYTES)?, length)).map_err(stopped)?;
        let memory = self.instance.get_memory(&mut self.store, "memory").context("the runtime has no memory")?;
        memory.write(&mut self.store, at as usize, list).context("a list does not fit into the memory")?;
        let record = self.instance.get_memory(&mut self.store, written::RECORD).context("there is no record")?;
        let pages = at as usize / written::PAGE_BYTES..(at as usize + list.len()).div_ceil(written::PAGE_BYTES);
        record.data_mut(&mut self.store).get_mut(pages).context("a list is not in the record")?.fill(1);
        Ok((at, words))
    }
}

fn run(mut store: Store<StoreLimits>, instance: Instance, program: &[u8]) -> Result<Evaluation> {
    let memory = instance.get_memory(&mut store, "memory").context("the runtime has no memory")?;
    let length = u32::try_from(program.len()).context("the program is too large")?;
    let allocate = instance.get_typed_func::<u32, u32>(&mut store, ALLOCATE).map_err(failed)?;
    let build = instance.get_typed_func::<(u32, u32), u32>(&mut store, BUILD).map_err(failed)?;
    let at = allocate.call(&mut store, length).map_err(stopped)?;
    memory.write(&mut store, at as usize, program).context("the program does not fit into the memory")?;
    let result = build.call(&mut store, (at, length)).map_err(stopped)? as usize;
    let data = memory.data(&store);
    let word = |at: usize| word(data, at);
    let report = word(result).zip(word(result + 4)).filter(|(_, length)| *length <= MAX_REPORT_BYTES);
    let report = report.and_then(|(at, length)| data.get(at..at.checked_add(length)?));
    let words = || Some((word(result + 8)?, (word(result + 12)?, word(result + 16)?)));
    let (report, (heap_end, ranges)) = report.zip(words()).context("the runtime returned no report")?;
    let report = report.to_vec();
    // After it is what only the build needed.
    let end = heap_end.next_multiple_of(WASM_PAGE_BYTES).min(data.len());
    let memory = data.get(..end).unwrap_or(data).to_vec();
    let globals = instance.exports(&mut store).filter_map(|it| Some((it.name().to_owned(), it.into_global()?)));
    let globals: Vec<_> = globals.collect();
    let globals = globals.into_iter().map(|(name, global)| (name, global.get(&mut store))).collect();
    Ok(Evaluation { report, ranges, memory, globals, store, instance })
}

/// A number in the memory of the runtime.
fn word(memory: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 4] = memory.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// The error of code that ran.
fn stopped(error: wasmtime::Error) -> anyhow::Error {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            Mistake("error: top-level code does not end: it was stopped after 10 billion instructions".into()).into()
        }
        Some(Trap::StackOverflow) => Mistake("error: top-level code recurses too deeply".into()).into(),
        _ => anyhow!("the runtime stopped while it evaluated top-level code: {error:#}"),
    }
}

fn failed(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("the runtime of this program is defective: {error:#}")
}

/// The state of an instance for a snapshot. The names are those that the snapshot added to the exports.
struct State(Evaluation);

impl InstanceState for State {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        match self.0.globals.get(name) {
            Some(Val::I32(value)) => SnapshotVal::I32(*value),
            Some(Val::I64(value)) => SnapshotVal::I64(*value),
            Some(Val::F32(value)) => SnapshotVal::F32(*value),
            Some(Val::F64(value)) => SnapshotVal::F64(*value),
            Some(Val::V128(value)) => SnapshotVal::V128(value.as_u128()),
            // The instrumentation exports only globals of these types.
            _ => SnapshotVal::I32(0),
        }
    }

    async fn memory_contents(&mut self, _: &str, contents: impl FnOnce(&[u8]) + Send) {
        contents(&self.0.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A runtime whose build function runs `body` and returns the program as its report.
    fn runtime(body: &str) -> Vec<u8> {
        let text = format!(
            r#"(module
                (import "host" "now" (func $now (result i32)))
                (memory (export "memory") 3)
                (global $count (mut i32) (i32.const 1))
                (func (export "_initialize") (global.set $count (i32.const 41)))
                (func (export "tidegate-build-alloc") (param i32) (result i32) (i32.const 1024))
                (func (export "tidegate-build") (param $at i32) (param $length i32) (result i32)
                    {body}
                    (global.set $count (i32.add (global.get $count) (i32.const 1)))
                    (i32.store (i32.const 8) (local.get $at))
                    (i32.store (i32.const 12) (local.get $length))
                    (i32.store (i32.const 16) (i32.const 65536))
                    (i32.store (i32.const 20) (i32.const 64))
                    (i32.store (i32.const 24) (i32.const 2))
                    (i32.const 8))
                (func (export "tidegate-build-sample") (param i32 i32) (result i32)
                    (i32.store (i32.const 8200) (global.get $count)) (i32.const 65537))
                (func (export "count") (result i32) (i32.add (global.get $count) (i32.load8_u (i32.const 1024)))))"#
        );
        wat::parse_str(text).expect("valid")
    }

    fn evaluate(body: &str, bounds: Bounds) -> Result<Vec<u8>> {
        let wasm = runtime(body);
        Ok(Runtime::new(&wasm, bounds)?.evaluate(b"{\"entry\":1}")?.report)
    }

    #[test]
    fn snapshot_starts_with_the_state_of_the_evaluation() {
        let wasm = runtime("");
        let runtime = Runtime::new(&wasm, Bounds::default()).expect("valid");
        let snapshot = || {
            let evaluation = runtime.evaluate(b"program").expect("evaluated");
            assert_eq!(evaluation.report, b"program");
            runtime.snapshot(evaluation).expect("a snapshot")
        };
        let module = snapshot();
        assert_eq!(module, snapshot(), "the same program gives the same bytes");
        let engine = Engine::default();
        let module = Module::new(&engine, &module).expect("valid");
        assert!(module.get_export(BUILD).is_none() && module.get_export(INITIALIZE).is_none());
        let mut store = Store::new(&engine, ());
        let mut linker = Linker::new(&engine);
        linker.define_unknown_imports_as_traps(&module).expect("linked");
        let instance = linker.instantiate(&mut store, &module).expect("an instance");
        let count = instance.get_typed_func::<(), i32>(&mut store, "count").expect("a function");
        assert_eq!(count.call(&mut store, ()).expect("called"), 42 + i32::from(b'p'));
        // Of the sample decision it has the list of the pages, here only the third, and not its effects.
        let memory = instance.get_memory(&mut store, "memory").expect("a memory").data(&store);
        assert_eq!(memory.len(), 131_072, "what a decision needs, without what only the build needed");
        assert_eq!((&memory[64..76], &memory[8200..8201]), (&[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..], &[0][..]));
    }

    #[test]
    fn endless_code_is_stopped() {
        let bounds = Bounds { fuel: 1_000_000, ..Bounds::default() };
        let error = evaluate("(loop (br 0))", bounds).expect_err("stopped");
        assert!(error.is::<Mistake>() && error.to_string().contains("does not end"), "{error}");
    }

    #[test]
    fn endless_memory_is_refused() {
        let grow = "(loop (br_if 0 (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) (unreachable)";
        let error = evaluate(grow, Bounds { memory_bytes: 8 << 20, ..Bounds::default() }).expect_err("stopped");
        assert!(error.to_string().contains("unreachable"), "{error}");
    }

    #[test]
    fn top_level_code_cannot_call_the_host() {
        let error = evaluate("(drop (call $now))", Bounds::default()).expect_err("stopped");
        assert!(error.to_string().contains("now"), "{error}");
    }
}
