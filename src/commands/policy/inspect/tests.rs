use std::io::Write;

use super::*;
use crate::util::golden::golden;
use crate::wasm::engine;

/// A component with producers and imports of several packages, whose export is not that of the interface.
const FOREIGN: &str = r#"
    (component
        (import "tidegate:policy/lookup@0.1.0" (instance))
        (import "wasi:clocks/wall-clock@0.2.6" (instance))
        (import "acme:secrets/vault@1.0.0" (instance))
        (core module $code
            (@producers
                (language "Rust" "2024")
                (processed-by "rustc" "1.95.0")
                (processed-by "wit-bindgen-rust" "0.61.1")
                (processed-by "clang" "22.1.0")))
        (core instance $instance (instantiate $code))
        (component $nested (instance $inner) (export "hidden" (instance $inner)))
        (instance $empty)
        (export "tidegate:policy/other@0.1.0" (instance $empty)))"#;

fn inspect_bytes(bytes: &[u8]) -> InspectReport {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("written");
    let compiler = engine::shared().expect("an engine").into();
    let report = inspect(&compiler, file.path()).expect("it can be read");
    InspectReport { file: "policy.wasm".to_owned(), ..report }
}

#[test]
fn golden_inspect() {
    let report = inspect_bytes(&wat::parse_str(FOREIGN).expect("a component"));
    golden("inspect.json", &(serde_json::to_string_pretty(&report).expect("JSON") + "\n"));
    golden("inspect.txt", &report.text());
}

#[test]
fn example_policy_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/rust-role-based/policy.wasm");
    let report = inspect_bytes(&std::fs::read(path).expect("it is committed"));
    assert_eq!((report.kind, report.language, report.refused), (Kind::Component, Some("Rust"), None));
    assert_eq!(report.interface.as_deref(), Some("0.1.0"));
    assert!(report.imports.wasi.is_empty() && report.imports.others.is_empty());
    assert!(report.imports.tidegate.iter().any(|name| name == "tidegate:policy/lookup@0.1.0"));
    assert_eq!(report.exports, ["tidegate:policy/authorizer@0.1.0"]);
}

#[test]
fn file_that_is_not_a_component_is_reported() {
    for (bytes, kind, reason) in [
        (&b""[..], Kind::NotWasm, "is not WebAssembly"),
        (b"#!/bin/sh", Kind::NotWasm, "is not WebAssembly"),
        (b"\0asm\x01\0\0\0", Kind::CoreModule, "is a core module"),
        (b"\0asm\x0d\0\x01\0", Kind::Component, "does not export"),
        (b"\0asm\x0d\0\x01\0\x00\xff\xff\xff\xff\x0f", Kind::Component, "is not a valid component"),
    ] {
        let report = inspect_bytes(bytes);
        assert_eq!(report.kind, kind, "{bytes:?}");
        let refused = report.refused.expect("it is refused");
        assert!(refused.contains(reason), "{bytes:?}: {refused}");
    }
    let module =
        wat::parse_str(r#"(module (import "env" "f" (func)) (memory (export "memory") 1))"#).expect("a module");
    let report = inspect_bytes(&module);
    assert_eq!((report.imports.others, report.exports), (vec!["env f".to_owned()], vec!["memory".to_owned()]));
}

/// Every beginning of a component, and every component with one byte changed, is inspected without a panic.
#[test]
fn malformed_components_are_inspected_without_panic() {
    let whole = wat::parse_str(r#"(component (core module (@producers (language "C11" ""))) (import "a:b/c" (func)))"#);
    let whole = whole.expect("a component");
    for at in 0..whole.len() {
        let _ = Contents::of(&whole[..at]).language();
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = Contents::of(&bytes).language();
        }
    }
    // Components within components, a hundred thousand deep.
    let mut deep = Vec::new();
    for _ in 0..100_000 {
        deep.extend(b"\0asm\x0d\0\x01\0\x04\xff\xff\xff\xff\x0f");
    }
    assert_eq!(Contents::of(&deep).kind, Kind::Component);
}

#[test]
fn control_characters_are_escaped() {
    assert_eq!(section("file", &["a\u{1b}[2Jb\n".into()]), "file       a\\u{1b}[2Jb\\n\n");
}
