//! JavaScript evaluated on the engine, on the host.

use tidegate_js::engine::Engine;

/// Evaluates a script and compares its result as a string.
#[track_caller]
fn check(script: &str, expected: &str) {
    let engine = Engine::start().expect("the engine starts");
    assert_eq!(engine.evaluate(script).as_deref(), Ok(expected), "{script}");
}

#[test]
fn promise_is_awaited() {
    check("Promise.resolve(20).then((it) => it + 1)", "21");
}

#[test]
fn natives_take_and_return_bytes() {
    let engine = Engine::start().expect("the engine starts");
    let utf8 = |script: &str| engine.evaluate_with_natives(script);
    assert_eq!(utf8("native.utf8Decode(native.utf8Encode('aé').buffer, true, true)").as_deref(), Ok("aé"));
    assert_eq!(
        utf8("native.utf8Decode(new DataView(native.utf8Encode('abc').buffer, 1), true, true)").as_deref(),
        Ok("bc")
    );
    assert_eq!(
        utf8("try { native.utf8Decode(Uint8Array.of(255), true, true) } catch (error) { error.name }").as_deref(),
        Ok("TypeError")
    );
}
