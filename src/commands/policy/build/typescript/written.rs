//! Finds the pages of memory that an instance writes to: a copy of the runtime records its own writes.

use std::convert::Infallible;
use std::ops::Range;

use anyhow::{Context, Result};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, InstructionSink, MemArg, MemorySection, MemoryType, Module,
    ValType,
};
use wasmparser::{ExportSectionReader, FunctionBody, MemorySectionReader, Operator, Parser, Payload};

/// The exported memory with the record: a byte for each page, other than 0 if the page was written to.
pub const RECORD: &str = "tidegate-written";
/// Bytes of a page of the host.
pub const PAGE_BYTES: usize = 4096;
const PAGE_BITS: i32 = 12;
/// A byte for each of 2^20 pages, in pages of WebAssembly.
const RECORD_PAGES: u64 = 16;

/// Rewrites a core module with one memory, so that it records its writes to it.
pub fn recording(wasm: &[u8]) -> Result<Vec<u8>> {
    let mut recorder = Recorder { params: params(wasm)?.into_iter() };
    let mut module = Module::new();
    recorder.parse_core_module(&mut module, Parser::new(0), wasm).context("rewriting the runtime")?;
    Ok(module.finish())
}

/// How many parameters each function of a module has, in the order of the code.
fn params(wasm: &[u8]) -> Result<Vec<u32>> {
    let (mut types, mut params) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.context("reading the runtime")? {
            Payload::TypeSection(section) => {
                for function in section.into_iter_err_on_gc_types() {
                    types.push(function.context("reading a type")?.params().len());
                }
            }
            Payload::FunctionSection(section) => {
                for function in section {
                    let count = types.get(function.context("reading a function")? as usize);
                    params.push(u32::try_from(*count.context("a function without a type")?)?);
                }
            }
            _ => {}
        }
    }
    Ok(params)
}

struct Recorder {
    params: std::vec::IntoIter<u32>,
}

impl Reencode for Recorder {
    type Error = Infallible;

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: MemorySectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_memory_section(self, memories, section)?;
        memories.memory(MemoryType {
            minimum: RECORD_PAGES,
            maximum: Some(RECORD_PAGES),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: ExportSectionReader<'_>,
    ) -> Result<(), Error<Infallible>> {
        utils::parse_export_section(self, exports, section)?;
        exports.export(RECORD, ExportKind::Memory, 1);
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Result<(), Error<Infallible>> {
        let mut first = self.params.next().unwrap_or_default();
        let mut locals = Vec::new();
        for local in body.get_locals_reader()? {
            let (count, kind) = local?;
            first += count;
            locals.push((count, self.val_type(kind)?));
        }
        locals.extend([(3, ValType::I32), (1, ValType::I64), (1, ValType::F32), (1, ValType::F64)]);
        let locals_of_record = Locals { first };
        let mut function = Function::new(locals);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let operator = operators.read()?;
            locals_of_record.record(&operator, function.instructions());
            function.instruction(&self.instruction(operator)?);
        }
        code.function(&function);
        Ok(())
    }
}

/// The locals that a function gets for the record: three of type i32, then one of each other type.
#[derive(Clone, Copy)]
struct Locals {
    first: u32,
}

impl Locals {
    /// Adds what records the write of an operator, before it, and leaves the stack as it was.
    fn record(self, operator: &Operator<'_>, sink: InstructionSink<'_>) {
        let (address, value, length) = (self.first, self.first + 1, self.first + 2);
        match operator {
            Operator::I32Store { memarg } | Operator::I32Store8 { memarg } | Operator::I32Store16 { memarg } => {
                self.record_store(sink, value, memarg.offset);
            }
            Operator::I64Store { memarg }
            | Operator::I64Store8 { memarg }
            | Operator::I64Store16 { memarg }
            | Operator::I64Store32 { memarg } => self.record_store(sink, self.first + 3, memarg.offset),
            Operator::F32Store { memarg } => self.record_store(sink, self.first + 4, memarg.offset),
            Operator::F64Store { memarg } => self.record_store(sink, self.first + 5, memarg.offset),
            // The first and the last page: between them is a larger block, which an instance allocates after its start.
            Operator::MemoryCopy { .. } | Operator::MemoryFill { .. } => {
                let mut sink = sink;
                sink.local_set(length).local_set(value).local_tee(address);
                sink.local_get(length);
                sink.if_(wasm_encoder::BlockType::Empty);
                mark(&mut sink, address, 0);
                sink.local_get(address).local_get(length).i32_add().local_set(address);
                mark(&mut sink, address, -1);
                sink.end();
                sink.local_get(value).local_get(length);
            }
            _ => {}
        }
    }

    fn record_store(self, mut sink: InstructionSink<'_>, value: u32, offset: u64) {
        let address = self.first;
        sink.local_set(value).local_tee(address);
        // An offset has 32 bits in a memory of 32 bits.
        mark(&mut sink, address, offset as u32 as i32);
        sink.local_get(value);
    }
}

/// Marks the page of an address.
fn mark(sink: &mut InstructionSink<'_>, address: u32, offset: i32) {
    sink.local_get(address).i32_const(offset).i32_add().i32_const(PAGE_BITS).i32_shr_u().i32_const(1);
    sink.i32_store8(MemArg { offset: 0, align: 0, memory_index: 1 });
}

/// The pages of a record that were written to, as at most `max` ranges, with as few other pages as that allows.
pub fn ranges(record: &[u8], max: usize) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for page in record.iter().enumerate().filter(|(_, written)| **written != 0).map(|(page, _)| page) {
        match ranges.last_mut() {
            // A page costs less to copy than a range to find.
            Some(last) if page <= last.end + 1 => last.end = page + 1,
            _ => ranges.push(page..page + 1),
        }
    }
    while ranges.len() > max.max(1) {
        let gaps = ranges.windows(2).map(|pair| pair[1].start - pair[0].end);
        let Some((at, _)) = gaps.enumerate().min_by_key(|(_, gap)| *gap) else { break };
        let next = ranges.remove(at + 1);
        ranges[at].end = next.end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_has_the_pages_of_all_writes() {
        let wasm = wat::parse_str(
            r#"(module
                (memory (export "memory") 4)
                (func (export "write") (param i64) (result i32) (local f64)
                    (i32.store (i32.const 4096) (i32.const 1))
                    (i64.store32 offset=8192 (i32.const 4100) (local.get 0))
                    (f64.store (i32.const 20480) (f64.const 1))
                    (memory.fill (i32.const 28672) (i32.const 7) (i32.const 4097))
                    (memory.fill (i32.const 0) (i32.const 7) (i32.const 0))
                    (memory.copy (i32.const 40960) (i32.const 28672) (i32.const 1))
                    (i32.load8_u (i32.const 40960))))"#,
        )
        .expect("valid");
        let engine = wasmtime::Engine::default();
        let module = wasmtime::Module::new(&engine, recording(&wasm).expect("rewritten")).expect("valid");
        let mut store = wasmtime::Store::new(&engine, ());
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("an instance");
        let write = instance.get_typed_func::<i64, i32>(&mut store, "write").expect("a function");
        assert_eq!(write.call(&mut store, 5).expect("called"), 7);
        let memory = instance.get_memory(&mut store, "memory").expect("a memory");
        assert_eq!(memory.data(&store)[12292], 5);
        let record = instance.get_memory(&mut store, RECORD).expect("a record").data(&store);
        let pages: Vec<usize> = (0..64).filter(|page| record[*page] != 0).collect();
        assert_eq!(pages, [1, 3, 5, 7, 8, 10]);
    }

    #[test]
    fn ranges_have_the_smallest_gaps() {
        let mut record = [0; 40];
        for page in [1, 2, 4, 10, 14, 30] {
            record[page] = 1;
        }
        assert_eq!(ranges(&record, 9), [1..5, 10..11, 14..15, 30..31]);
        assert_eq!(ranges(&record, 3), [1..5, 10..15, 30..31]);
        assert_eq!(ranges(&record, 2), [1..15, 30..31]);
        assert!(ranges(&[0; 4], 2).is_empty());
    }
}
