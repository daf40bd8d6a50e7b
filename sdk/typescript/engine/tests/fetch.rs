//! `fetch` over a network of canned responses.

#[path = "support/gateway.rs"]
mod gateway;

use gateway::{Canned, log, respond};
use tidegate_js::engine::Engine;

fn canned(status: u16, headers: &[(&'static str, &'static str)], chunks: &[&[u8]]) -> Canned {
    Canned {
        status,
        headers: headers.to_vec(),
        chunks: chunks.iter().map(|chunk| chunk.to_vec()).collect(),
        hangs: false,
    }
}

/// Evaluates an expression that may await, and compares its value as JSON.
#[track_caller]
fn check(expression: &str, expected: &str) {
    gateway::install();
    let engine = Engine::start().expect("the engine starts");
    let script = format!(
        "(async () => {{ try {{ return JSON.stringify({expression}); }} catch (error) {{ return `${{error.name}}: ${{error.message}}${{error.cause ? ` (${{error.cause.message}})` : ''}}`; }} }})()"
    );
    assert_eq!(engine.evaluate(&script).as_deref(), Ok(expected), "{expression}");
}

#[test]
fn body_is_read_in_parts_or_whole() {
    respond(
        "http://h/a",
        canned(200, &[("content-type", "application/json"), ("X-A", "1")], &[b"{\"a\":", b"\"\xc3", b"\xbc\"}"]),
    );
    check("await (await fetch('http://h/a')).json()", r#"{"a":"ü"}"#);
    check(
        "await fetch('http://h/a').then(async (it) => { const parts = []; for await (const part of it.body) parts.push(part.length); return parts; })",
        "[5,2,3]",
    );
    check(
        "await fetch('http://h/a').then((it) => [it.status, it.ok, it.url, it.type, it.redirected, it.headers.get('x-a'), it.bodyUsed])",
        r#"[200,true,"http://h/a","basic",false,"1",false]"#,
    );
    check(
        "await fetch('http://h/a').then(async (it) => { const c = it.clone(); return [await it.text(), await c.text()]; })",
        r#"["{\"a\":\"ü\"}","{\"a\":\"ü\"}"]"#,
    );
    check("await fetch('http://h/a').then((it) => it.headers.set('a', 'b'))", "TypeError: immutable");
}

#[test]
fn request_is_sent_as_it_was_made() {
    respond("http://h/", canned(204, &[], &[]));
    check(
        "await fetch('http://h/#x', { method: 'POST', body: 'ü', headers: { Host: 'other', Authorization: 'a', 'x-b': 'c' } }).then((it) => [it.status, it.body])",
        "[204,null]",
    );
    let sent = log();
    assert_eq!(
        sent.first().map(String::as_str),
        Some(
            "POST http://h/ [authorization: a, x-b: c, content-type: text/plain;charset=UTF-8, accept: */*, accept-language: *, user-agent: tidegate] ü"
        )
    );
    check(
        "await fetch(new Request('http://h/', { method: 'PUT', body: new ReadableStream({ start(c) { c.enqueue(Uint8Array.of(97)); c.close(); } }), duplex: 'half' })).then((it) => it.ok)",
        "true",
    );
    assert!(log().first().is_some_and(|line| line.starts_with("PUT") && line.ends_with("] a")));
}

#[test]
fn redirect_is_followed_by_its_rules() {
    respond("http://h/post", canned(303, &[("location", "/end")], &[]));
    respond("http://h/keep", canned(307, &[("location", "/end")], &[]));
    respond("http://h/other", canned(302, &[("location", "http://other/end#f")], &[]));
    respond("http://h/loop", canned(301, &[("location", "/loop")], &[]));
    respond("http://h/end", canned(200, &[], &[b"end"]));
    respond("http://other/end", canned(200, &[], &[b"other"]));
    respond("http://h/file", canned(302, &[("location", "file:///etc/passwd")], &[]));

    check(
        "await fetch('http://h/post', { method: 'POST', body: 'x' }).then((it) => [it.url, it.redirected, it.status])",
        r#"["http://h/end",true,200]"#,
    );
    let sent = log();
    assert!(sent[2].starts_with("GET http://h/end [accept") && !sent[2].contains("content-type"), "{sent:?}");
    check("await fetch('http://h/keep', { method: 'POST', body: 'x' }).then((it) => it.text())", r#""end""#);
    assert!(log()[2].ends_with("] x"));
    check(
        "await fetch('http://h/other', { headers: { authorization: 'secret', cookie: 'c', 'x-a': '1' } }).then((it) => [it.url])",
        r#"["http://other/end"]"#,
    );
    let sent = log();
    assert!(sent[2].contains("x-a: 1") && !sent[2].contains("secret") && !sent[2].contains("cookie"), "{sent:?}");
    check(
        "await fetch('http://h/other', { redirect: 'manual' }).then((it) => [it.status, it.headers.get('location')])",
        r#"[302,"http://other/end#f"]"#,
    );
    check("await fetch('http://h/other', { redirect: 'error' })", "TypeError: fetch failed (unexpected redirect)");
    check("await fetch('http://h/loop')", "TypeError: fetch failed (redirect count exceeded)");
    check("await fetch('http://h/file')", "TypeError: fetch failed (unknown scheme)");
}

#[test]
fn failure_is_a_type_error() {
    check("await fetch('http://unknown/')", "TypeError: fetch failed (connection refused)");
    check("await fetch('ftp://unknown/')", "TypeError: fetch failed (unknown scheme)");
}

#[test]
fn abortion_ends_a_request_at_any_time() {
    respond("http://h/hangs", Canned { hangs: true, ..canned(200, &[], &[b"a"]) });
    check(
        "await fetch('http://h/hangs', { signal: AbortSignal.timeout(5) }).then((it) => it.text())",
        "TimeoutError: The operation was aborted due to timeout",
    );
    assert_eq!(log().last().map(String::as_str), Some("cancel"));
    check(
        "await fetch('http://h/hangs', { signal: AbortSignal.timeout(5) }).then(async (it) => { const seen = []; try { for await (const part of it.body) seen.push(part[0]); } catch (error) { seen.push(error.name); } return seen; })",
        r#"[97,"TimeoutError"]"#,
    );
    check(
        "await (async () => { const c = new AbortController(); const p = fetch('http://h/hangs', { signal: c.signal }); c.abort(new RangeError('mine')); return p; })()",
        "RangeError: mine",
    );
    check("await fetch('http://h/hangs').then(async (it) => { await it.body.cancel(); return it.bodyUsed; })", "true");
    assert_eq!(log().last().map(String::as_str), Some("cancel"));
}

#[test]
fn compressed_body_is_decoded() {
    // `gzip` of "abc".
    let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x4c, 0x4a, 6, 0, 0xc2, 0x41, 0x24, 0x35, 3, 0, 0, 0];
    respond("http://h/gzip", canned(200, &[("content-encoding", "gzip")], &[&packed[..7], &packed[7..]]));
    check("await fetch('http://h/gzip').then((it) => it.text())", r#""abc""#);
}
