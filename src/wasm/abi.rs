//! Which canonical ABI a component uses, which decides the engine that it runs in.

use wasmparser::{CanonicalFunction, CanonicalOption, Parser, Payload};

/// The canonical ABI of a component's functions. Newer toolchains use the asynchronous one for functions that are not `async` as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// A call returns when its function returns.
    Synchronous,
    /// A call is a task, which may wait and may go on after its answer.
    Async,
}

impl Abi {
    /// Scans the sections of a component, which takes microseconds: bodies of functions are skipped. Types are skipped too, because
    /// their nesting is not bounded. A component that needs the asynchronous ABI only for a type is refused by the compiler, and so is
    /// one that cannot be parsed.
    pub fn of(component: &[u8]) -> Self {
        // One pass over the nested components and modules. After a malformed part nothing more is known.
        let payloads = Parser::new(0).parse_all(component).map_while(Result::ok);
        if payloads.into_iter().any(|payload| needs_async(&payload)) { Self::Async } else { Self::Synchronous }
    }
}

fn needs_async(payload: &Payload<'_>) -> bool {
    match payload {
        Payload::ComponentCanonicalSection(functions) => {
            functions.clone().into_iter().map_while(Result::ok).any(|function| is_async(&function))
        }
        // Its functions are linked only for components that may wait.
        Payload::ComponentImportSection(imports) => {
            imports.clone().into_iter().map_while(Result::ok).any(|import| is_wasi_0_3(import.name.name))
        }
        _ => false,
    }
}

fn is_async(function: &CanonicalFunction) -> bool {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options.iter().any(|option| matches!(option, CanonicalOption::Async | CanonicalOption::Callback(_)))
        }
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => false,
        // Tasks, waitable sets, streams and futures; threads, which both engines refuse.
        _ => true,
    }
}

/// Whether a component imports this interface of WASI 0.3.
pub fn is_wasi_0_3(import: &str) -> bool {
    import.starts_with("wasi:") && import.contains("@0.3.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abi(component: &str) -> Abi {
        Abi::of(&wat::parse_str(component).expect("valid text"))
    }

    #[test]
    fn abi_depends_on_canonical_functions_and_on_imports() {
        const MODULE: &str = "(core module $m (func (export \"f\")) (func (export \"g\") (result i32) i32.const 0))
            (core instance $i (instantiate $m))";
        let lift = |options: &str, function: &str| {
            format!("(component {MODULE} (func (export \"f\") (canon lift (core func $i \"{function}\") {options})))")
        };
        let synchronous = [
            "(component)".to_owned(),
            lift("", "f"),
            "(component (type $r (resource (rep i32))) (core func (canon resource.new $r)))".to_owned(),
            "(component (import \"wasi:cli/environment@0.2.12\" (instance)))".to_owned(),
            // Another package may have any version.
            "(component (import \"example:own/environment@0.3.0\" (instance)))".to_owned(),
        ];
        for component in synchronous {
            assert_eq!(abi(&component), Abi::Synchronous, "{component}");
        }
        let nested = lift("async", "f").replacen("(component", "(component (component", 1) + ")";
        let asynchronous = [
            lift("async", "f"),
            nested,
            "(component (core func (canon task.cancel)))".to_owned(),
            "(component (core func (canon backpressure.inc)))".to_owned(),
            "(component (type $s (stream u8)) (core func (canon stream.new $s)))".to_owned(),
            "(component (import \"wasi:cli/environment@0.3.0\" (instance)))".to_owned(),
        ];
        for component in asynchronous {
            assert_eq!(abi(&component), Abi::Async, "{component}");
        }
    }

    #[test]
    fn malformed_component_is_left_to_the_compiler() {
        let valid = wat::parse_str("(component (core func (canon task.cancel)))").expect("valid text");
        for end in 0..valid.len() {
            // It may have ended after the section that decides.
            let _ = Abi::of(&valid[..end]);
        }
        assert_eq!(Abi::of(&valid[..9]), Abi::Synchronous);
        assert_eq!(Abi::of(b"not WebAssembly"), Abi::Synchronous);
    }
}
