//! Decisions with a gateway: its log, its clock, its randomness, and requests whose responses arrive in an order of the test.

use std::cell::RefCell;
use std::collections::VecDeque;

use serde_json::{Value, json};
use tidegate_js::engine::Engine;
use tidegate_js::gateway::{self, Gateway, HostError, NetworkEvent, OutboundRequest};

/// A gateway that records what a decision does.
#[derive(Default)]
struct FakeGateway {
    /// The events of the network, in the order in which they arrive.
    events: RefCell<VecDeque<(u32, NetworkEvent)>>,
    log: RefCell<Vec<String>>,
    calls: RefCell<Vec<String>>,
    /// The monotonic clock, which advances while the gateway waits, in ms.
    clock: RefCell<f64>,
    seed: u8,
}

impl Gateway for FakeGateway {
    fn now(&self) -> u64 {
        1_700_000_000_000
    }
    fn request_id(&self) -> String {
        "request".into()
    }
    fn action(&self) -> String {
        "stream".into()
    }
    fn log(&self, level: &str, line: &str) {
        self.log.borrow_mut().push(format!("{level}: {line}"));
    }
    fn reason(&self, text: &str) {
        self.calls.borrow_mut().push(format!("reason {text}"));
    }
    fn replay_since(&self, time: u64) {
        self.calls.borrow_mut().push(format!("replay-since {time}"));
    }
    fn cache_for(&self, seconds: u32, vary: &[String]) {
        self.calls.borrow_mut().push(format!("cache-for {seconds} {}", vary.concat()));
    }
    fn cache_any_address(&self) {}
    fn lookup(&self, key: &str) -> Result<Option<Vec<u8>>, HostError> {
        match key {
            "denied" => Err(HostError { tag: "denied", text: None }),
            _ => Ok(Some(format!("value of {key}").into_bytes())),
        }
    }
    fn lookup_hash(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, HostError> {
        Ok(None)
    }
    fn lookup_set(&self, _: &str, member: &str) -> Result<bool, HostError> {
        Ok(member == "a")
    }
    fn verify(&self, _: Option<&str>, token: &str) -> Result<String, HostError> {
        match token {
            "good" => Ok(r#"{"sub":"ada"}"#.into()),
            _ => Err(HostError { tag: "claims", text: Some("audience".into()) }),
        }
    }
    fn setting(&self, name: &str) -> Option<String> {
        (name == "URL").then(|| "https://app.example".into())
    }
    fn wall_clock(&self) -> f64 {
        1.7e15
    }
    fn monotonic_clock(&self) -> f64 {
        *self.clock.borrow()
    }
    fn random(&self, bytes: &mut [u8]) {
        bytes.fill(self.seed);
    }
    fn send(&self, request: OutboundRequest) {
        self.calls.borrow_mut().push(format!("send {} {}", request.method, request.url));
    }
    fn read(&self, id: u32) {
        self.calls.borrow_mut().push(format!("read {id}"));
    }
    fn cancel(&self, id: u32) {
        self.calls.borrow_mut().push(format!("cancel {id}"));
    }
    fn wait(&self, time: Option<f64>) -> Option<(u32, NetworkEvent)> {
        if let Some(event) = self.events.borrow_mut().pop_front() {
            return Some(event);
        }
        *self.clock.borrow_mut() += time?;
        None
    }
}

/// The status and the body of the answer of a route, and what its gateway saw.
fn decide(code: &str, map: &str, gateway: FakeGateway) -> (Value, &'static FakeGateway) {
    let engine = Engine::start().expect("the engine starts");
    let imports = json!({ "@tidegate/policy": "tidegate:policy" });
    let module = json!({ "id": "route.js", "imports": imports, "code": code, "whole": false, "map": map });
    let program = json!({ "entry": "route.js", "order": ["route.js"], "lazy": [], "modules": [module] }).to_string();
    let report = engine.build(program.into_bytes(), |_| ()).expect("a report");
    assert_eq!(report, r#"{"found":[],"failed":[],"printed":[]}"#);
    let gateway: &'static FakeGateway = Box::leak(Box::new(gateway));
    gateway::set(Some(gateway));
    let (url, none) = ("https://gate.example/api/realtime?channel=a".to_string(), Vec::<String>::new());
    let answer = engine.call("authorize", ("GET".to_string(), url, none.clone(), none, vec!["a".to_string()]), |ctx, value| {
        ctx.globals().set("answer", value)?;
        let show = "JSON.stringify([answer.status, typeof answer.body === 'string' ? answer.body : new TextDecoder().decode(answer.body)])";
        ctx.eval::<String, _>(show)
    });
    (serde_json::from_str(&answer.expect("an answer")).expect("JSON"), gateway)
}

/// The body of a route's answer.
fn body(code: &str, gateway: FakeGateway) -> Value {
    decide(code, "", gateway).0[1].clone()
}

fn head(id: u32) -> (u32, NetworkEvent) {
    (id, NetworkEvent::Head { status: 200, headers: vec![("x-id".into(), id.to_string())] })
}

#[test]
fn requests_run_concurrently() {
    let code = "exports.GET = async () => {
        const get = async (path) => { const it = await fetch('https://a.example/' + path); return it.headers.get('x-id') + await it.text(); };
        return new Response((await Promise.all([get('one'), get('two')])).join(), { status: 403 });
    };";
    let part = |id, text: &str| (id, NetworkEvent::Chunk(text.into()));
    let events =
        [head(2), part(2, "b"), head(1), part(1, "a"), (2, NetworkEvent::End), part(1, "A"), (1, NetworkEvent::End)];
    let (answer, gateway) = decide(code, "", FakeGateway { events: RefCell::new(events.into()), ..Default::default() });
    assert_eq!(answer[1], "1aA,2b");
    let calls = gateway.calls.borrow();
    assert_eq!(calls[..2], ["send GET https://a.example/one", "send GET https://a.example/two"]);
}

#[test]
fn failed_request_is_a_type_error() {
    let code = "exports.GET = async () => {
        try { await fetch('https://a.example/') } catch (error) { return new Response(error.name + ': ' + error.cause.message, { status: 403 }) }
    };";
    let events = [(1, NetworkEvent::Failed("refused".into()))];
    assert_eq!(
        body(code, FakeGateway { events: RefCell::new(events.into()), ..Default::default() }),
        "TypeError: refused"
    );
}

#[test]
fn timeout_ends_a_request() {
    let code = "exports.GET = async () => {
        const signal = AbortSignal.timeout(50);
        try { await fetch('https://a.example/', { signal }) } catch (error) { return new Response(error.name, { status: 403 }) }
    };";
    let (answer, gateway) = decide(code, "", FakeGateway::default());
    assert_eq!(answer[1], "TimeoutError");
    assert_eq!(*gateway.calls.borrow(), ["send GET https://a.example/", "cancel 1"]);
}

#[test]
fn math_random_has_a_seed_per_instance() {
    let code = "exports.GET = () => new Response(String([Math.random(), Math.random()]), { status: 403 })";
    let with_seed = |seed| body(code, FakeGateway { seed, ..Default::default() });
    assert_eq!(with_seed(1), with_seed(1));
    assert_ne!(with_seed(1), with_seed(2));
}

#[test]
fn promise_that_never_settles_is_an_error_at_once() {
    let (answer, gateway) = decide("exports.GET = () => new Promise(() => {})", "", FakeGateway::default());
    assert_eq!(answer[0], 500);
    assert_eq!(*gateway.log.borrow(), ["error: the policy waits for a promise that never settles"]);
}

#[test]
fn rejection_without_a_handler_is_logged() {
    let code = "exports.GET = async () => {
        Promise.reject(new Error('lost'));
        await Promise.reject(new Error('caught')).catch(() => {});
        return new Response('', { status: 403 });
    };";
    let (_, gateway) = decide(code, "", FakeGateway::default());
    let log = gateway.log.borrow();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("error: unhandled rejection: Error: lost\n    at <anonymous> (route.js:2:"), "{log:?}");
}

#[test]
fn stacks_name_lines_of_the_source() {
    // One segment per line: column 0 of lines 1 to 3 is column 0 of lines 11 to 13 of the source.
    let map = r#"{"version":3,"sources":["app/route.ts"],"mappings":"AAUA;AACA;AACA"}"#;
    let code = "exports.GET = () => {\n  const user = null;\n  return user.id;\n}";
    let (answer, gateway) = decide(code, map, FakeGateway::default());
    assert_eq!(answer[0], 500);
    let log = gateway.log.borrow();
    assert!(
        log[0].starts_with("error: TypeError: ") && log[0].contains("\n    at <anonymous> (app/route.ts:13:1)"),
        "{log:?}"
    );
    assert!(!log[0].contains("tidegate:"), "no frames of the platform: {log:?}");
}

#[test]
fn console_shows_objects() {
    let code = "exports.GET = () => { console.log('user %s', 'ada', { id: 1, tags: ['x'] }, new Map([[1, 2]])); return new Response('', { status: 403 }) }";
    let (_, gateway) = decide(code, "", FakeGateway::default());
    assert_eq!(*gateway.log.borrow(), ["info: user ada { id: 1, tags: [ 'x' ] } Map (1) {1 => 2}"]);
}

#[test]
fn host_functions_have_values_and_errors() {
    let code = "const { cacheFor, context, lookup, tokens } = require('@tidegate/policy');
    const name = (call) => { try { return call() } catch (error) { return error.name + ' ' + error.kind + ' ' + error.message } };
    exports.GET = () => {
        cacheFor(5, { vary: ['Cookie'] });
        const found = [lookup.get('k'), name(() => lookup.get('denied')), lookup.setContains('s', 'a'), tokens.verify('good').sub,
            name(() => tokens.verify('bad')), process.env.URL, process.env.NODE_ENV, context.now(), context.requestId(), Date.now()];
        return new Response(JSON.stringify(found), { status: 403 });
    }";
    let (answer, gateway) = decide(code, "", FakeGateway::default());
    assert_eq!(answer[0], 403, "{:?}", gateway.log.borrow());
    let found: Value = serde_json::from_str(answer[1].as_str().expect("text")).expect("JSON");
    let (now, url) = (1_700_000_000_000_u64, "https://app.example");
    let expected = json!([
        "value of k",
        "LookupError denied look-up denied",
        true,
        "ada",
        "TokenError claims token claims: audience",
        url,
        "production",
        now,
        "request"
    ]);
    assert_eq!(found.as_array().expect("a list")[..9], expected.as_array().expect("a list")[..]);
    assert_eq!(*gateway.calls.borrow(), ["cache-for 5 cookie"]);
}
