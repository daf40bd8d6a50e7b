use wasmtime::{Engine, Instance, Module, Store};

use super::*;

/// A policy's module whose `authorize` runs this code, with imports as wasm-bindgen makes them.
fn linked(code: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "__wbindgen_placeholder__" "__wbg_new_0_36d738a0c8cfac43" (func $date (result i32)))
          (import "tidegate:policy/answer@0.1.0" "cache-any-address" (func $host))
          (import "__wbindgen_placeholder__" "__wbg_getTime_edc91481cbc4cd78" (func $time (param i32) (result f64)))
          (import "__wbindgen_placeholder__" "__wbg_getRandomValues_0123456789abcdef" (func $random (param i32 i32)))
          (import "__wbindgen_placeholder__" "__wbg_fetch_0123456789abcdef" (func $fetch (param i32) (result i32)))
          (import "__wbindgen_placeholder__" "__wbindgen_describe" (func $describe (param i32)))
          (import "__wbindgen_placeholder__" "__wbindgen_object_drop_ref" (func $drop (param i32)))
          (memory (export "memory") 1)
          (table funcref (elem $by-table))
          (func $by-table (result i32) (call $fetch (i32.const 0)))
          (func $helper (param i32) (result f64) (call $host) (call $time (local.get 0)))
          (func (export "tidegate:policy/authorizer@0.1.0#authorize") (result f64) {code})
          (func (export "__wbindgen_describe___wbg_fetch_0123456789abcdef") (drop (call $fetch (i32.const 1)))))"#
    );
    wat::parse_str(text).expect("a module")
}

fn rewritten(module: &[u8]) -> Rewritten {
    let contents = Contents::read(module).expect("a module");
    assert!(contents.is_policy() && contents.undefined().is_empty());
    rewrite(module, &contents).expect("a module").expect("it imports from a browser")
}

#[test]
fn clock_and_randomness_of_the_gateway_stand_for_those_of_a_browser() {
    let code = "(local $date i32) (local.set $date (call $date)) (call $random (i32.const 8) (i32.const 3)) \
                (call $drop (local.get $date)) (call $helper (local.get $date))";
    let Rewritten { module, missing } = rewritten(&linked(code));
    assert_eq!(missing, [""; 0]);

    let engine = Engine::default();
    let module = Module::new(&engine, module).expect("it is valid");
    let imports: Vec<_> = module.imports().map(|import| (import.module(), import.name())).collect();
    assert_eq!(imports, [("tidegate:policy/answer@0.1.0", "cache-any-address"), CLOCK, RANDOM]);
    let exports: Vec<_> = module.exports().map(|export| export.name()).collect();
    assert_eq!(exports, ["memory", "tidegate:policy/authorizer@0.1.0#authorize"]);

    let mut store = Store::new(&engine, 0_u8);
    let host = wasmtime::Func::wrap(&mut store, || ());
    let clock = wasmtime::Func::wrap(&mut store, || 1_767_225_600_123_i64);
    let random = wasmtime::Func::wrap(&mut store, |mut caller: wasmtime::Caller<'_, u8>| {
        *caller.data_mut() += 1;
        0x0100 + i64::from(*caller.data())
    });
    let instance =
        Instance::new(&mut store, &module, &[host.into(), clock.into(), random.into()]).expect("an instance");
    let authorize = instance.get_typed_func::<(), f64>(&mut store, exports[1]).expect("the function");
    let time = authorize.call(&mut store, ()).expect("it returns");
    assert!((time - 1_767_225_600_123.0).abs() < f64::EPSILON, "{time}");
    let memory = instance.get_memory(&mut store, "memory").expect("memory");
    assert_eq!(&memory.data(&store)[7..12], [0, 1, 2, 3, 0], "three random bytes");
}

/// A policy is not refused for what only JavaScript calls, or what only the table of functions has.
#[test]
fn only_functions_that_the_policy_calls_are_missing() {
    assert_eq!(rewritten(&linked("(call $helper (i32.const 1))")).missing, [""; 0]);
    assert_eq!(rewritten(&linked("(drop (call $fetch (i32.const 1))) (f64.const 0)")).missing, ["fetch"]);
}

#[test]
fn module_without_a_browser_is_not_rewritten() {
    let module = wat::parse_str("(module (import \"env\" \"strlen\" (func)))").expect("a module");
    let contents = Contents::read(&module).expect("a module");
    assert!(rewrite(&module, &contents).expect("a module").is_none());
    assert!(!contents.is_policy());
    assert_eq!(contents.undefined(), ["strlen"]);
}

#[test]
fn base_name_is_without_the_hash() {
    for (name, expected) in [
        ("__wbg_getTime_edc91481cbc4cd78", "getTime"),
        ("__wbg_new_0_36d738a0c8cfac43", "new_0"),
        ("__wbg___wbindgen_throw_4c88d8bf264fd984", "__wbindgen_throw"),
        ("__wbindgen_throw", "__wbindgen_throw"),
        ("__wbg_set_name", "set_name"),
    ] {
        assert_eq!(base_name(name), expected);
    }
}
