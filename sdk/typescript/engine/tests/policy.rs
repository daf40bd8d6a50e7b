//! Policies on the host: a program is built and decides, as in a component.

use serde_json::{Value, json};
use tidegate_js::bindings::Bytes;
use tidegate_js::engine::Engine;

/// A module of a program.
fn module(id: &str, imports: &[(&str, &str)], code: &str) -> Value {
    let imports: serde_json::Map<String, Value> =
        imports.iter().map(|(name, target)| ((*name).to_string(), json!(target))).collect();
    json!({ "id": id, "imports": imports, "code": code, "whole": false, "map": "" })
}

/// A program of these modules, the last of which is the entry.
fn program(modules: &[Value], lazy: &[&str]) -> String {
    let order: Vec<&Value> = modules.iter().map(|module| &module["id"]).collect();
    json!({ "entry": order.last(), "order": order, "lazy": lazy, "modules": modules, "nodeEnv": "production" })
        .to_string()
}

fn build(engine: &Engine, program: &str) -> Value {
    let report = engine.build(program.to_string().into_bytes(), |_| ()).expect("a report");
    serde_json::from_str(&report).expect("JSON")
}

/// The answer to a request for the channel `a`, as JSON.
fn decide(engine: &Engine, headers: &[(&str, &str)]) -> Value {
    let (names, values): (Vec<String>, Vec<String>) =
        headers.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).unzip();
    let url = "https://gate.example/api/realtime?channel=a".to_string();
    let answer = engine
        .call("authorize", ("GET".to_string(), url, names, values, vec!["a".to_string()]), |ctx, value| {
            let answer = value.as_object().expect("an object");
            if let Ok(bytes) = answer.get::<_, Bytes>("body") {
                answer.set("body", String::from_utf8_lossy(&bytes).into_owned())?;
            }
            ctx.json_stringify(value)?.expect("an object").to_string()
        })
        .expect("an answer");
    serde_json::from_str(&answer).expect("JSON")
}

const POLICY: &[(&str, &str)] = &[("@tidegate/policy", "tidegate:policy")];

#[test]
fn policy_decides_after_its_build() {
    let engine = Engine::start().expect("the engine starts");
    let code = "const { allow, cookie, reject } = require('@tidegate/policy');
        exports.middleware = async ({ request, channels }) => {
          const user = cookie(request, 'session');
          return user ? allow({ subject: user, expiresAt: 5 }) : reject(401, 'Unauthorized: ' + channels);
        };";
    let report = build(&engine, &program(&[module("policy.ts", POLICY, code)], &[]));
    assert_eq!(report, json!({ "found": [], "failed": [], "printed": [] }));
    let allowed = decide(&engine, &[("host", "gate.example"), ("cookie", "a=1; session=ada")]);
    assert_eq!(allowed, json!({ "subject": "ada", "expiresAt": 5, "headers": [] }));
    let rejected = decide(&engine, &[("host", "gate.example")]);
    let headers = json!([["content-type", "text/plain"]]);
    assert_eq!(rejected, json!({ "status": 401, "headers": headers, "body": "Unauthorized: a" }));
}

#[test]
fn module_that_reads_state_is_found_and_deferred() {
    let modules = [
        module("pure.ts", &[], "exports.count = (globalThis.count = (globalThis.count ?? 0) + 1);"),
        module("settings.ts", &[], "\nexports.url =\n  process.env.URL;"),
        module(
            "user.ts",
            &[("./settings", "settings.ts")],
            "globalThis.users = 1; exports.url = require('./settings').url;",
        ),
        module(
            "route.ts",
            &[("./pure", "pure.ts"), ("./user", "user.ts")],
            "const { count } = require('./pure'); require('./user');
             exports.GET = () => new Response(`${count} ${globalThis.count} ${globalThis.users}`, { status: 403 });",
        ),
    ];
    let engine = Engine::start().expect("the engine starts");
    let report = build(&engine, &program(&modules, &[]));
    assert_eq!(report["found"][0]["module"], "settings.ts");
    assert_eq!(report["found"][0]["state"], "process.env.URL");
    let stack = report["found"][0]["stack"].as_str().expect("a stack");
    assert!(stack.contains("settings.ts:3:"), "{stack}");

    let engine = Engine::start().expect("the engine starts");
    let report = build(&engine, &program(&modules, &["settings.ts"]));
    assert_eq!(report, json!({ "found": [], "failed": [], "printed": [] }));
    assert_eq!(engine.evaluate("`${count} ${globalThis.users}`").as_deref(), Ok("1 undefined"), "only pure.ts");
    assert_eq!(decide(&engine, &[])["body"], "1 1 1");
}

#[test]
fn variable_that_only_node_reads_is_no_state() {
    let engine = Engine::start().expect("the engine starts");
    let code = "exports.debug = process.env.NODE_DEBUG; exports.middleware = () => undefined;";
    let report = build(&engine, &program(&[module("debug.js", &[], code)], &[]));
    assert_eq!(report, json!({ "found": [], "failed": [], "printed": [] }));
}

/// Modules that import each other: the app enters at `parent.ts`, so `child.ts` is the first that ends.
fn cycle(child: &str) -> [Value; 3] {
    [
        module(
            "parent.ts",
            &[("./child", "child.ts")],
            "exports.hoisted = () => 1; const { early } = require('./child');
             globalThis.runs = (globalThis.runs ?? 0) + 1; exports.early = early.kind;",
        ),
        module("child.ts", &[("./parent", "parent.ts")], child),
        module(
            "route.ts",
            &[("./parent", "parent.ts")],
            "const { early } = require('./parent');
             exports.GET = () => new Response(`${early} ${globalThis.runs}`, { status: 403 });",
        ),
    ]
}

#[test]
fn cycle_is_evaluated_from_its_entry() {
    let engine = Engine::start().expect("the engine starts");
    let child = "const parent = require('./parent'); exports.early = { kind: typeof parent.hoisted };";
    let report = build(&engine, &program(&cycle(child), &[]));
    assert_eq!(report, json!({ "found": [], "failed": [], "printed": [] }));
    assert_eq!(decide(&engine, &[])["body"], "function 1");
}

#[test]
fn cycle_is_deferred_as_a_whole() {
    let child = "const parent = require('./parent');
        exports.early = { kind: typeof parent.hoisted + process.env.URL };";
    let engine = Engine::start().expect("the engine starts");
    let report = build(&engine, &program(&cycle(child), &[]));
    assert_eq!(report["found"][0]["module"], "child.ts", "{report}");
    let engine = Engine::start().expect("the engine starts");
    let report = build(&engine, &program(&cycle(child), &["child.ts"]));
    assert_eq!(report, json!({ "found": [], "failed": [], "printed": [] }));
    assert_eq!(decide(&engine, &[])["body"], "functionundefined 1");
}

#[test]
fn error_in_a_cycle_names_the_module() {
    let engine = Engine::start().expect("the engine starts");
    let report = build(&engine, &program(&cycle("require('./parent'); throw new RangeError('no');"), &[]));
    assert_eq!(report["failed"][0]["module"], "child.ts", "{report}");
}

#[test]
fn errors_at_build_name_module_and_line() {
    let engine = Engine::start().expect("the engine starts");
    let report = build(&engine, &program(&[module("a.ts", &[], "\nnull.x;")], &[]));
    assert_eq!(report["failed"][0]["module"], "a.ts");
    assert_eq!(report["failed"][0]["name"], "TypeError");
    assert!(report["failed"][0]["stack"].as_str().expect("a stack").contains("a.ts:2:"), "{report}");

    let engine = Engine::start().expect("the engine starts");
    let report = build(&engine, &program(&[module("a.ts", &[], "let a = ;")], &[]));
    assert_eq!(report["failed"][0]["name"], "SyntaxError");
    // Columns are those of the module's code.
    assert!(report["failed"][0]["stack"].as_str().expect("a stack").contains("a.ts:1:9"), "{report}");
}

#[test]
fn errors_in_a_decision_are_rejections() {
    let check = |code: &str, expected: Value| {
        let engine = Engine::start().expect("the engine starts");
        build(&engine, &program(&[module("a.ts", POLICY, code)], &[]));
        let answer = decide(&engine, &[]);
        assert_eq!((&answer["status"], &answer["body"]), (&expected[0], &expected[1]), "{code}");
    };
    check("exports.GET = () => { throw new Error('x') }", json!([500, "Internal Server Error"]));
    check("exports.GET = () => new Promise(() => {})", json!([500, "Internal Server Error"]));
    check("exports.GET = () => 1", json!([500, "Internal Server Error"]));
    check("const f = () => f() + 1; exports.GET = () => f()", json!([500, "Internal Server Error"]));
    let lookup = "const { lookup } = require('@tidegate/policy'); exports.GET = () => lookup.get('a')";
    check(lookup, json!([503, "Try again"]));
}

#[test]
fn decision_waits_for_timers() {
    let engine = Engine::start().expect("the engine starts");
    let code = "exports.GET = async () => {
        const order = [];
        setTimeout(() => order.push('late'), 20);
        await new Promise((resolve) => setTimeout(resolve, 5));
        order.push('early');
        await new Promise((resolve) => setTimeout(resolve, 30));
        return new Response(order.join(), { status: 403 });
    };";
    build(&engine, &program(&[module("a.ts", &[], code)], &[]));
    assert_eq!(decide(&engine, &[])["body"], "early,late");
}

#[test]
fn code_that_does_not_end_is_stopped_with_its_line() {
    let engine = Engine::start().expect("the engine starts");
    // QuickJS checks at the call and after the jump to the start of the loop, whose line is that of the call before it.
    let code = "function spin() {\n  let n;\n  for (n = Math.abs(1); ; ) n = Math.abs(n);\n}\nspin();";
    let program = program(&[module("policy.ts", POLICY, code)], &[]);
    let failed = build(&engine, &program)["failed"].take();
    let expected = ["policy.ts", "Endless: top-level code does not end"];
    assert_eq!([&failed[0]["module"], &failed[0]["error"]], expected, "{failed}");
    let stack = failed[0]["stack"].as_str().expect("text");
    assert!(stack.trim_start().starts_with("at spin (policy.ts:3:"), "{stack}");
}

/// An ES module of a package, as esbuild converts it, that is evaluated at the first use of an export.
fn spare(id: &str, imports: &[(&str, &str)], exports: &[&str], code: &str) -> Value {
    let getters: String = exports.iter().map(|name| format!("get {name}() {{ return {name}; }},")).collect();
    let head = format!("module.exports = Object.defineProperty({{{getters}}}, '__esModule', {{ value: true }});");
    let mut module = module(id, imports, &format!("{head}{code}"));
    module["spare"] = json!(exports);
    module
}

#[test]
fn spare_module_is_evaluated_at_its_first_use() {
    let modules = [
        spare(
            "a.js",
            &[("./b", "b.js")],
            &["a", "count"],
            "let count = 0; const a = () => require('./b').b() + ++count;",
        ),
        spare("b.js", &[("./a", "a.js")], &["b"], "const seen = require('./a').count; const b = () => `b ${seen} `;"),
        spare("c.js", &[], &["c"], "const c = 1; throw new TypeError('c fails');"),
        module(
            "route.ts",
            &[("a", "a.js"), ("c", "c.js")],
            "const a = require('a'), c = require('c');
             const keys = `${Object.keys(a)} ${a.__esModule} ${a === require('a')}`;
             exports.GET = () => {
               const errors = [0, 1].map(() => { try { c.c; } catch (error) { return error.message; } });
               return new Response(`${keys} ${a.a()} ${a.a()} ${a.count} ${errors}`, { status: 403 });
             };",
        ),
    ];
    let engine = Engine::start().expect("the engine starts");
    let mut program: Value = serde_json::from_str(&program(&modules, &[])).expect("JSON");
    program["order"] = json!(["route.ts"]);
    let report = build(&engine, &program.to_string());
    assert_eq!(report, json!({ "found": [], "failed": [], "printed": [] }));
    let answer = decide(&engine, &[("host", "gate.example")]);
    assert_eq!(answer["body"], "a,count true true b 0 1 b 0 2 2 c fails,c fails");
}
