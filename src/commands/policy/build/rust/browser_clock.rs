//! The clock and the randomness of a browser, for crates that take them by `wasm-bindgen` on `wasm32-unknown-unknown`, such as `chrono` and
//! `jsonwebtoken`. Their imports are meant for JavaScript. Here these functions are replaced by the gateway's clock and randomness, and what
//! only JavaScript would call is removed.

use std::collections::HashSet;

use anyhow::{Result, anyhow};
use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, EntityType, ExportSection, Function, FunctionSection, ImportSection, MemArg, Module,
    ValType,
};
use wasmparser::{Parser, TypeRef};

use crate::commands::policy::build::rust::module::{Contents, FunctionImport, is_browsers, is_for_javascript};

/// The gateway's clock: `now: func() -> u64`, in ms since 1970.
const CLOCK: (&str, &str) = ("tidegate:policy/context@0.1.0", "now");
/// The gateway's randomness, which the SDK imports: `get-random-u64: func() -> u64`.
const RANDOM: (&str, &str) = ("wasi:random/random@0.2.0", "get-random-u64");
/// A handle of an object of JavaScript, of those that need not be released.
const HANDLE: i32 = 1;

/// The module without imports from a browser.
pub struct Rewritten {
    pub module: Vec<u8>,
    /// Functions of a browser that the policy calls and that are not about time or randomness. They trap.
    pub missing: Vec<String>,
}

/// Replaces the imports of wasm-bindgen. None if there are none.
pub fn rewrite(bytes: &[u8], contents: &Contents) -> Result<Option<Rewritten>> {
    if contents.browser_imports().next().is_none() {
        return Ok(None);
    }
    // A function in the table may be called by any other. But it is there as soon as one of JavaScript's exports uses it, so that it says
    // nothing about the policy.
    let called = contents.reachable(false);
    let missing = contents.browser_imports().filter(|(index, import)| {
        called.contains(index) && Stand::of(import) == Stand::Trap && !is_internal(&import.name)
    });
    let missing = missing.map(|(_, import)| base_name(&import.name).to_owned()).collect();
    let module = Rewriter::new(contents).rewrite(bytes)?;
    Ok(Some(Rewritten { module, missing }))
}

/// What stands for a function of a browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// The time in ms since 1970.
    Now,
    /// Fills a buffer with random bytes.
    Random,
    Handle,
    /// Zero of each result.
    Zero,
    Trap,
}

impl Stand {
    fn of(import: &FunctionImport) -> Self {
        match (base_name(&import.name), &*import.results) {
            ("now" | "getTime", [ValType::F64]) => Self::Now,
            ("new_0" | "new0" | "performance", [ValType::I32]) => Self::Handle,
            (name, [ValType::I32]) if name.starts_with("static_accessor_") => Self::Handle,
            // Of an object that stands for all buffers: their address and length are parameters.
            ("getRandomValues", []) if import.params >= 2 => Self::Random,
            // The zone of the gateway is UTC.
            ("getTimezoneOffset" | "timeOrigin", [ValType::F64]) => Self::Zero,
            ("__wbindgen_object_drop_ref" | "__wbindgen_externref_table_set_null", [])
            | ("__wbindgen_object_clone_ref" | "__wbindgen_externref_statics_end", [ValType::I32])
            | ("__wbindgen_is_undefined" | "__wbindgen_is_null", [ValType::I32]) => Self::Zero,
            _ => Self::Trap,
        }
    }

    fn body(self, results: &[ValType], host: HostFunctions) -> Function {
        let mut body = Function::new([]);
        let mut code = body.instructions();
        match self {
            Self::Now => {
                code.call(host.clock).f64_convert_i64_u();
            }
            Self::Handle => {
                code.i32_const(HANDLE);
            }
            Self::Zero => {
                for result in results {
                    match result {
                        ValType::F64 => code.f64_const(0.0.into()),
                        _ => code.i32_const(0),
                    };
                }
            }
            Self::Random => {
                let (address, left) = (0, 1);
                let byte = MemArg { offset: 0, align: 0, memory_index: 0 };
                code.block(BlockType::Empty).loop_(BlockType::Empty);
                code.local_get(left).i32_eqz().br_if(1);
                code.local_get(address).call(host.random).i32_wrap_i64().i32_store8(byte);
                code.local_get(address).i32_const(1).i32_add().local_set(address);
                code.local_get(left).i32_const(1).i32_sub().local_set(left);
                code.br(0).end().end();
            }
            Self::Trap => {
                code.unreachable();
            }
        }
        code.end();
        body
    }
}

/// The name in JavaScript: `getTime` of `__wbg_getTime_edc91481cbc4cd78`.
fn base_name(name: &str) -> &str {
    let Some(rest) = name.strip_prefix("__wbg_") else { return name };
    match rest.rsplit_once('_') {
        Some((base, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => base,
        _ => rest,
    }
}

/// Whether a function belongs to wasm-bindgen itself and not to a browser: errors, descriptions, the table of objects.
fn is_internal(name: &str) -> bool {
    base_name(name).starts_with("__wbindgen_")
}

/// The indices of the host functions in the new module.
#[derive(Clone, Copy, Default)]
struct HostFunctions {
    clock: u32,
    random: u32,
}

/// Encodes the module again: functions for the browser's imports follow the defined functions.
struct Rewriter<'a> {
    contents: &'a Contents,
    /// The new index of each function.
    indices: Vec<u32>,
    host: HostFunctions,
    /// Host functions that the module does not import yet, in the order of their new indices.
    added: Vec<(&'static str, &'static str)>,
    reachable: HashSet<u32>,
    /// The old index of the next function body.
    next_body: u32,
}

impl<'a> Rewriter<'a> {
    fn new(contents: &'a Contents) -> Self {
        let mut next = 0..;
        let mut number = || next.next().unwrap_or_default();
        let mut indices = vec![0; contents.imports.len()];
        for (index, _) in indices.iter_mut().zip(&contents.imports).filter(|(_, import)| !is_browsers(&import.module)) {
            *index = number();
        }
        let mut added = Vec::new();
        let stands: Vec<Stand> = contents.browser_imports().map(|(_, import)| Stand::of(import)).collect();
        let mut host_function = |function: (&'static str, &'static str), stand| {
            let mut imports = indices.iter().zip(&contents.imports);
            match imports.find(|(_, import)| (&*import.module, &*import.name) == function) {
                Some((index, _)) => *index,
                None if stands.contains(&stand) => {
                    added.push(function);
                    number()
                }
                None => 0,
            }
        };
        let host =
            HostFunctions { clock: host_function(CLOCK, Stand::Now), random: host_function(RANDOM, Stand::Random) };
        let defined: Vec<u32> = contents.calls.iter().map(|_| number()).collect();
        for (index, _) in indices.iter_mut().zip(&contents.imports).filter(|(_, import)| is_browsers(&import.module)) {
            *index = number();
        }
        indices.extend(defined);
        let next_body = u32::try_from(contents.imports.len()).unwrap_or(u32::MAX);
        Self { contents, indices, host, added, reachable: contents.reachable(true), next_body }
    }

    fn rewrite(mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut module = Module::new();
        self.parse_core_module(&mut module, Parser::new(0), bytes).map_err(|error| anyhow!("{error}"))?;
        Ok(module.finish())
    }
}

type Encoded = Result<(), reencode::Error>;

impl Reencode for Rewriter<'_> {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, reencode::Error> {
        Ok(self.indices.get(function as usize).copied().unwrap_or(function))
    }

    fn parse_type_section(
        &mut self,
        types: &mut wasm_encoder::TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Encoded {
        utils::parse_type_section(self, types, section)?;
        types.ty().function([], [ValType::I64]);
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Encoded {
        for import in section.into_imports() {
            let import = import?;
            if !(matches!(import.ty, TypeRef::Func(_)) && is_browsers(import.module)) {
                utils::parse_import(self, imports, import)?;
            }
        }
        for (module, name) in &self.added {
            imports.import(module, name, EntityType::Function(self.contents.types));
        }
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Encoded {
        utils::parse_function_section(self, functions, section)?;
        for (_, import) in self.contents.browser_imports() {
            functions.function(import.type_index);
        }
        Ok(())
    }

    fn parse_export(&mut self, exports: &mut ExportSection, export: wasmparser::Export<'_>) -> Encoded {
        if is_for_javascript(export.name) { Ok(()) } else { utils::parse_export(self, exports, export) }
    }

    fn parse_code_section(&mut self, code: &mut CodeSection, section: wasmparser::CodeSectionReader<'_>) -> Encoded {
        utils::parse_code_section(self, code, section)?;
        for (_, import) in self.contents.browser_imports() {
            code.function(&Stand::of(import).body(&import.results, self.host));
        }
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, function: wasmparser::FunctionBody<'_>) -> Encoded {
        let index = self.next_body;
        self.next_body += 1;
        if self.reachable.contains(&index) {
            return utils::parse_function_body(self, code, function);
        }
        code.function(&Stand::Trap.body(&[], self.host));
        Ok(())
    }

    fn parse_custom_section(&mut self, module: &mut Module, section: wasmparser::CustomSectionReader<'_>) -> Encoded {
        if section.name() == "__wasm_bindgen_unstable" {
            Ok(())
        } else {
            utils::parse_custom_section(self, module, section)
        }
    }
}
