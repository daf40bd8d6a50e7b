//! Features of WebAssembly that no engine here has, and what to tell the author of a component that needs one.

use wasmparser::{BinaryReaderError, Validator, WasmFeatures};

use crate::wasm::load_error::{LoadError, causes};

/// Features that components of current toolchains may need, with what avoids each of them.
const UNSUPPORTED: [(WasmFeatures, &str); 8] = [
    (
        WasmFeatures::THREADS.union(WasmFeatures::SHARED_EVERYTHING_THREADS),
        "threads or atomic instructions: build it without them (C: without `-pthread`; Rust: without the target feature `atomics`)",
    ),
    (
        WasmFeatures::EXCEPTIONS.union(WasmFeatures::LEGACY_EXCEPTIONS),
        "WebAssembly exceptions: build it without them (C++: `-fno-exceptions`; Rust: `panic = \"abort\"`)",
    ),
    (
        WasmFeatures::GC.union(WasmFeatures::CM_GC).union(WasmFeatures::STACK_SWITCHING),
        "garbage-collected objects or stack switching: build it for linear memory",
    ),
    (WasmFeatures::CM_THREADING, "threads of the component model: build it for a target without them (wasm32-wasip2)"),
    (
        WasmFeatures::CM_ASYNC_STACKFUL,
        "asynchronous functions without a callback: build it with synchronous functions (componentize-qjs: `--sync`; wit-bindgen: without `--async`)",
    ),
    (
        WasmFeatures::CM_MORE_ASYNC_BUILTINS.union(WasmFeatures::CM_ERROR_CONTEXT),
        "asynchronous functions that are not final in the component model: build it with synchronous functions (componentize-qjs: `--sync`; wit-bindgen: without `--async`)",
    ),
    (
        WasmFeatures::CM_VALUES
            .union(WasmFeatures::CM_FIXED_LENGTH_LISTS)
            .union(WasmFeatures::CM_MAP)
            .union(WasmFeatures::CM_NESTED_NAMES)
            .union(WasmFeatures::CM_IMPLEMENTS),
        "types or names that are not final in the component model: build it from the current wit/policy.wit alone",
    ),
    (
        WasmFeatures::MEMORY_CONTROL.union(WasmFeatures::CUSTOM_PAGE_SIZES).union(WasmFeatures::WIDE_ARITHMETIC),
        "instructions that are not final in WebAssembly: build it without features that are off by default (clang: without `-m…`; Rust: without `-C target-feature`)",
    ),
];

/// Why the compiler refused this component. Takes the time of several validations.
pub fn explain(component: &[u8], error: &wasmtime::Error) -> LoadError {
    let is_valid = |features| Validator::new_with_features(features).validate_all(component).is_ok();
    let needed = UNSUPPORTED.iter().find(|(features, _)| !is_valid(WasmFeatures::all().difference(*features)));
    match needed {
        Some((_, advice)) if is_valid(WasmFeatures::all()) => LoadError::Unsupported((*advice).into()),
        // The offset is of no use to an author.
        _ => LoadError::Invalid(match error.downcast_ref::<BinaryReaderError>() {
            Some(error) => error.message().into(),
            None => causes(error),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::abi::Abi;
    use crate::wasm::engine;

    fn refusal(component: &str) -> String {
        let bytes = wat::parse_str(component).expect("valid text");
        let engine = engine::compiler(Abi::of(&bytes)).expect("an engine");
        let error = engine.precompile_component(&bytes).expect_err("it is refused");
        explain(&bytes, &error).to_string()
    }

    #[test]
    fn unsupported_feature_is_named_with_the_switch_that_avoids_it() {
        let module = |text: &str| format!("(component (core module {text}))");
        let stackful = "(component
            (core module $m (func (export \"f\")))
            (core instance $i (instantiate $m))
            (func (export \"f\") async (canon lift (core func $i \"f\") async)))";
        for (component, words) in [
            (module("(memory 1 1 shared)"), "-pthread"),
            (module("(tag (param i32))"), "-fno-exceptions"),
            (module("(type (struct (field i32)))"), "garbage-collected"),
            (stackful.to_owned(), "--sync"),
            ("(component (core func (canon error-context.drop)))".to_owned(), "not final"),
            ("(component (core func $f (canon thread.index)))".to_owned(), "threads of the component model"),
        ] {
            let text = refusal(&component);
            assert!(text.starts_with("uses ") && text.contains(words), "{component}: {text}");
        }
    }

    #[test]
    fn invalid_component_is_described_without_an_offset() {
        let mut bytes = wat::parse_str("(component (core module))").expect("valid text");
        bytes.truncate(bytes.len() - 1);
        let error =
            engine::compiler(Abi::Synchronous).expect("an engine").precompile_component(&bytes).expect_err("cut");
        let text = explain(&bytes, &error).to_string();
        assert!(text.starts_with("is not a valid component: ") && !text.contains("offset"), "{text}");
    }
}
