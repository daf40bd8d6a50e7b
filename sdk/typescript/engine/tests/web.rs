//! Parts of the web platform that are not as on Node: expressions on the engine, whose other parts `node.rs` compares.

use tidegate_js::engine::Engine;

#[track_caller]
fn check(script: &str, expected: &str) {
    let engine = Engine::start().expect("the engine starts");
    assert_eq!(engine.evaluate(script).as_deref(), Ok(expected), "{script}");
}

/// The error of a statement, as a text.
fn thrown(statement: &str) -> String {
    format!("try {{ {statement}; 'nothing' }} catch (error) {{ `${{error.name}}: ${{error.message}}` }}")
}

#[test]
fn sockets_exist_but_cannot_be_opened() {
    check(
        "[typeof WebSocket, WebSocket.OPEN, WebSocket.prototype.CLOSED, typeof EventSource, EventSource.CLOSED].join()",
        "function,1,3,function,2",
    );
    for name in ["WebSocket", "EventSource"] {
        let expected =
            format!("NotSupportedError: a policy cannot open a {name}: it ends with its decision; use fetch");
        check(&thrown(&format!("new {name}('https://h/')")), &expected);
    }
}

#[test]
fn scope_is_that_of_a_server() {
    check(
        "[typeof window, typeof document, typeof Intl, self === globalThis, global === globalThis].join()",
        "undefined,undefined,undefined,true,true",
    );
    check("navigator.userAgent", "Tidegate");
    check(
        "(1e6).toLocaleString() + new Date(0).toLocaleDateString('de') + 'a'.localeCompare('b', 'de')",
        "100000001/01/1970-1",
    );
}

#[test]
fn globals_are_neither_enumerable_nor_frozen() {
    check("Object.keys(globalThis).filter((it) => /^[A-Z]/.test(it)).join()", "");
    check("globalThis.Request = class Mine {}; new Request().constructor.name", "Mine");
}

#[test]
fn stream_of_a_body_keeps_its_identity_and_properties() {
    check(
        "const mark = Symbol(); const first = new Response('x'); first.body[mark] = 5; const second = new Response(first.body, { status: 201 });
        [second.body === first.body, second.body[mark], first.bodyUsed].join()",
        "true,5,false",
    );
}

#[test]
fn every_legacy_encoding_is_decoded() {
    let script = "const labels = ['big5', 'euc-jp', 'euc-kr', 'gb18030', 'ibm866', 'iso-2022-jp', 'iso-8859-16', 'koi8-u', 'macintosh', 'shift_jis', 'windows-1258', 'x-user-defined'];
        labels.filter((label) => new TextDecoder(label).encoding === label && new TextDecoder(label).decode(Uint8Array.of(97)) === 'a').length === labels.length";
    check(script, "true");
}
