//! What a linked module imports, exports and calls.

use std::collections::HashSet;

use anyhow::{Result, anyhow};
use wasm_encoder::ValType;
use wasmparser::{ElementItems, ExternalKind, Operator, Parser, Payload, TypeRef};

use crate::wasm::load_error::AUTHORIZER_INTERFACE;

pub struct FunctionImport {
    pub module: String,
    pub name: String,
    pub type_index: u32,
    /// The number of parameters.
    pub params: usize,
    pub results: Vec<ValType>,
}

/// The functions of a module, and the calls between them.
#[derive(Default)]
pub struct Contents {
    /// By function index.
    pub imports: Vec<FunctionImport>,
    /// Calls of each defined function, in the order of their indices after the imports.
    pub calls: Vec<Vec<u32>>,
    /// Functions that the host calls: the exports and the start function.
    exports: Vec<u32>,
    /// Functions in the table.
    elements: Vec<u32>,
    /// The number of types.
    pub types: u32,
    is_policy: bool,
}

impl Contents {
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut contents = Self::default();
        let mut types: Vec<(usize, Vec<ValType>)> = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::TypeSection(section) => {
                    for function in section.into_iter_err_on_gc_types() {
                        let function = function?;
                        types.push((function.params().len(), value_types(function.results())?));
                    }
                    contents.types = u32::try_from(types.len())?;
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        let TypeRef::Func(type_index) = import.ty else { continue };
                        let (params, results) = types.get(type_index as usize).cloned().unwrap_or_default();
                        let (module, name) = (import.module.to_owned(), import.name.to_owned());
                        contents.imports.push(FunctionImport { module, name, type_index, params, results });
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        contents.is_policy |= is_authorizer(export.name);
                        if export.kind == ExternalKind::Func && !is_for_javascript(export.name) {
                            contents.exports.push(export.index);
                        }
                    }
                }
                Payload::StartSection { func, .. } => contents.exports.push(func),
                Payload::ElementSection(section) => {
                    for element in section {
                        if let ElementItems::Functions(functions) = element?.items {
                            for function in functions {
                                contents.elements.push(function?);
                            }
                        }
                    }
                }
                Payload::CodeSectionEntry(body) => {
                    let mut calls = Vec::new();
                    for operator in body.get_operators_reader()? {
                        match operator? {
                            Operator::Call { function_index }
                            | Operator::ReturnCall { function_index }
                            | Operator::RefFunc { function_index } => calls.push(function_index),
                            _ => {}
                        }
                    }
                    contents.calls.push(calls);
                }
                _ => {}
            }
        }
        Ok(contents)
    }

    /// Whether the module exports the function that decides.
    pub fn is_policy(&self) -> bool {
        self.is_policy
    }

    /// The imports that are neither of an interface nor of a browser: functions that the linker did not find, such as those of C.
    pub fn undefined(&self) -> Vec<String> {
        let is_provided = |module: &str| module.contains(':') || is_intrinsic(module) || is_browsers(module);
        let undefined = self.imports.iter().filter(|import| !is_provided(&import.module));
        undefined.map(|import| import.name.clone()).collect()
    }

    pub fn browser_imports(&self) -> impl Iterator<Item = (u32, &FunctionImport)> {
        (0..).zip(&self.imports).filter(|(_, import)| is_browsers(&import.module))
    }

    /// The functions that the policy's exports reach: by calls, and with `by_table` also through the table of functions.
    pub fn reachable(&self, by_table: bool) -> HashSet<u32> {
        let mut queue = self.exports.clone();
        if by_table {
            queue.extend(&self.elements);
        }
        let mut reached = HashSet::new();
        while let Some(function) = queue.pop() {
            let defined = (function as usize).checked_sub(self.imports.len());
            if reached.insert(function)
                && let Some(calls) = defined.and_then(|index| self.calls.get(index))
            {
                queue.extend(calls);
            }
        }
        reached
    }
}

fn value_types(types: &[wasmparser::ValType]) -> Result<Vec<ValType>> {
    types.iter().map(|kind| (*kind).try_into().map_err(|_| anyhow!("a type that no policy has: {kind}"))).collect()
}

/// Whether an export is a function of the interface of policies, also in the asynchronous ABI.
fn is_authorizer(export: &str) -> bool {
    export.strip_prefix("[async-lift]").unwrap_or(export).starts_with(AUTHORIZER_INTERFACE)
}

/// Whether a module of imports is the component model's own, such as the functions for tasks.
fn is_intrinsic(module: &str) -> bool {
    module.strip_prefix("[export]").unwrap_or(module) == "$root"
}

/// Whether a module of imports is wasm-bindgen's.
pub fn is_browsers(module: &str) -> bool {
    module.starts_with("__wbindgen_")
}

/// Whether an export is for the JavaScript that wasm-bindgen would generate.
pub fn is_for_javascript(export: &str) -> bool {
    ["__wbindgen_", "__wbg_", "__externref_"].iter().any(|start| export.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(text: &str) -> Contents {
        Contents::read(&wat::parse_str(text).expect("valid text")).expect("a module")
    }

    #[test]
    fn policy_of_either_abi_is_recognized() {
        for (export, expected) in [
            ("tidegate:policy/authorizer@0.1.0#authorize", true),
            ("[async-lift]tidegate:policy/authorizer@0.1.0#authorize", true),
            ("[callback][async-lift]tidegate:policy/authorizer@0.1.0#authorize", false),
            ("authorize", false),
        ] {
            let module = contents(&format!("(module (func (export \"{export}\")))"));
            assert_eq!(module.is_policy(), expected, "{export}");
        }
    }

    #[test]
    fn only_functions_that_the_linker_did_not_find_are_undefined() {
        let module = contents(
            r#"(module
                (import "$root" "[waitable-set-new]" (func (result i32)))
                (import "[export]$root" "[task-cancel]" (func))
                (import "[export]tidegate:policy/authorizer@0.1.0" "[task-return]authorize" (func (param i32)))
                (import "wasi:clocks/wall-clock@0.2.6" "now" (func (param i32)))
                (import "__wbindgen_placeholder__" "__wbg_now" (func))
                (import "env" "getpid" (func (result i32))))"#,
        );
        assert_eq!(module.undefined(), ["getpid"]);
    }
}
