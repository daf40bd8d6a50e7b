//! The web platform, in JavaScript on the engine.

use tidegate_js::engine::Engine;

#[track_caller]
fn check(script: &str, expected: &str) {
    let engine = Engine::start().expect("the engine starts");
    assert_eq!(engine.evaluate(script).as_deref(), Ok(expected), "{script}");
}

#[test]
fn response_is_read() {
    check("new Response('a').text()", "a");
    check("new Response(new TextEncoder().encode('ä')).text()", "ä");
    check("new URL('http://h/a?b=c').searchParams.get('b')", "c");
    check("new Headers({a: 'b'}).get('A')", "b");
}
