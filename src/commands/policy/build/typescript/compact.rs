//! Reduces the size of a snapshot: without names of functions, without exports for the build, and without long runs of zeros.

use anyhow::{Context, Result};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ConstExpr, DataCountSection, DataSection, ExportSection, Module, RawSection, SectionId};
use wasmparser::{DataKind, DataSectionReader, Operator, Parser, Payload};

/// Zeros between two segments cost less than the head of a segment, whose offset takes up to five bytes.
const MIN_ZEROS: usize = 8;
/// Validators accept 100,000 segments.
const MAX_SEGMENTS: usize = 90_000;

/// Rewrites a core module. Its instances start with the same memory. `unused` are exports to remove.
pub fn compact(wasm: &[u8], unused: &[&str]) -> Result<Vec<u8>> {
    let mut module = Module::new();
    let mut data = None;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.context("reading the snapshot")?;
        if let Payload::DataSection(reader) = payload {
            data = Some(split(reader)?);
        }
    }
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.context("reading the snapshot")?;
        match (&payload, &data) {
            (Payload::CustomSection(section), _)
                if section.name() == "name" || section.name().starts_with(".debug") => {}
            (Payload::DataCountSection { .. }, Some(section)) => {
                module.section(&DataCountSection { count: section.len() });
            }
            (Payload::DataSection(_), Some(section)) => {
                module.section(section);
            }
            (Payload::ExportSection(reader), _) => {
                let mut exports = ExportSection::new();
                for export in reader.clone() {
                    let export = export.context("reading the exports of the snapshot")?;
                    if !unused.contains(&export.name) {
                        let kind = RoundtripReencoder.export_kind(export.kind).context("copying an export")?;
                        exports.export(export.name, kind, export.index);
                    }
                }
                module.section(&exports);
            }
            _ => {
                if let Some((id, range)) = payload.as_section().filter(|(id, _)| *id != u8::from(SectionId::Data)) {
                    let data = wasm.get(range).context("reading a section of the snapshot")?;
                    module.section(&RawSection { id, data });
                }
            }
        }
    }
    Ok(module.finish())
}

/// The data section without long runs of zeros.
fn split(reader: DataSectionReader<'_>) -> Result<DataSection> {
    let mut active = Vec::new();
    let mut section = DataSection::new();
    for data in reader {
        let data = data.context("reading the data of the snapshot")?;
        match data.kind {
            // They come first in a snapshot, so that their numbers stay the same.
            DataKind::Passive => {
                section.passive(data.data.iter().copied());
            }
            DataKind::Active { memory_index, offset_expr } => {
                let Ok(Operator::I32Const { value }) = offset_expr.get_operators_reader().read() else {
                    anyhow::bail!("a data segment of the snapshot has an offset that is not a constant");
                };
                active.push((memory_index, value, data.data));
            }
        }
    }
    let mut min_zeros = MIN_ZEROS;
    while active.iter().map(|(_, _, data)| parts(data, min_zeros).len()).sum::<usize>() > MAX_SEGMENTS {
        min_zeros *= 2;
    }
    for (memory, offset, data) in active {
        for (start, part) in parts(data, min_zeros) {
            // Offsets above 2 GiB are negative.
            let offset = offset.wrapping_add(i32::try_from(start).context("a data segment is too large")?);
            section.active(memory, &ConstExpr::i32_const(offset), part.iter().copied());
        }
    }
    Ok(section)
}

/// The parts of a segment between runs of at least `min_zeros` zeros, with their offsets.
fn parts(data: &[u8], min_zeros: usize) -> Vec<(usize, &[u8])> {
    let mut parts = Vec::new();
    // The start of the current part, and the end of its last byte that is not zero.
    let mut part: Option<(usize, usize)> = None;
    for (at, _) in data.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        part = Some(match part {
            Some((start, end)) if at - end < min_zeros => (start, at + 1),
            last => {
                parts.extend(last);
                (at, at + 1)
            }
        });
    }
    parts.extend(part);
    parts.into_iter().filter_map(|(start, end)| Some((start, data.get(start..end)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::{Engine, Instance, Store};

    fn memory(wasm: &[u8]) -> Vec<u8> {
        let engine = Engine::default();
        let module = wasmtime::Module::new(&engine, wasm).expect("valid");
        let mut store = Store::new(&engine, ());
        let instance = Instance::new(&mut store, &module, &[]).expect("an instance");
        instance.get_memory(&mut store, "memory").expect("a memory").data(&store).to_vec()
    }

    #[test]
    fn memory_stays_the_same_without_its_zeros() {
        let zeros = "\\00".repeat(2000);
        let text = format!(
            r#"(module (memory (export "memory") 9)
                (func $named (export "kept")) (func (export "unused"))
                (data (i32.const 16) "\00\00ab\00\00\00c{zeros}d\00")
                (data (i32.const 9000) "{zeros}"))"#
        );
        let wasm = wat::parse_str(text).expect("valid");
        let small = compact(&wasm, &["unused"]).expect("compacted");
        assert!(small.len() < 150, "{}", small.len());
        assert_eq!(memory(&small), memory(&wasm));
        let module = wasmtime::Module::new(&Engine::default(), &small).expect("valid");
        assert!(module.get_export("unused").is_none() && module.get_export("kept").is_some());
    }

    #[test]
    fn parts_keep_short_runs() {
        let parts = |data: &[u8]| parts(data, 3).into_iter().map(|(at, part)| (at, part.to_vec())).collect::<Vec<_>>();
        assert_eq!(parts(&[0, 1, 0, 0, 2, 0, 0, 0, 3]), [(1, vec![1, 0, 0, 2]), (8, vec![3])]);
        assert!(parts(&[0; 9]).is_empty());
    }
}
