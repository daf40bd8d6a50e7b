//! `crypto.subtle` on the engine, compared with Node's.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use tidegate_js::engine::Engine;

const OPERATIONS: &str = include_str!("crypto/operations.js");
const KEYS: &str = include_str!("crypto/keys.json");

/// Where Node departs from the standard, what the standard says.
const STANDARD: [(&str, &str); 8] = [
    // A `JsonWebKey` is not a `BufferSource`.
    ("importKey AES-GCM jwk that is bytes", "throws TypeError"),
    ("importKey AES-KW jwk that is bytes", "throws TypeError"),
    ("importKey HKDF jwk that is bytes", "throws TypeError"),
    ("importKey HMAC jwk that is bytes", "throws TypeError"),
    ("importKey PBKDF2 jwk that is bytes", "throws TypeError"),
    // Node throws a nameless error.
    ("importKey HMAC spki", "throws NotSupportedError"),
    // Node takes a key without a modulus.
    ("RSA jwk bad n", "throws DataError"),
    // In Node they grant it.
    ("changes to a key's usages grant nothing", "throws InvalidAccessError"),
];

/// The operations as a script, whose result is a JSON text of `expression`.
fn script(expression: &str) -> String {
    format!("globalThis.KEYS = {KEYS};\n{OPERATIONS}\n(async () => JSON.stringify(await ({expression})))()")
}

fn engine(expression: &str) -> String {
    let engine = Engine::start().expect("the engine starts");
    engine.evaluate(&script(expression)).unwrap_or_else(|error| panic!("{error}"))
}

fn node(expression: &str) -> String {
    let mut node = Command::new("node")
        .args(["--no-warnings", "--input-type=commonjs", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let script = format!("{}.then((it) => process.stdout.write(it))", script(expression));
    node.stdin.take().expect("its input is a pipe").write_all(script.as_bytes()).expect("node reads the script");
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success(), "node fails");
    String::from_utf8(output.stdout).expect("node writes UTF-8")
}

#[test]
fn results_and_errors_are_those_of_node() {
    let parse =
        |json: String| -> BTreeMap<String, Value> { serde_json::from_str(&json).expect("the results are JSON") };
    let (ours, mut expected) = (parse(engine("operations.same()")), parse(node("operations.same()")));
    expected.extend(STANDARD.map(|(name, result)| (name.to_owned(), Value::from(result))));
    let differences: Vec<String> = expected
        .iter()
        .filter(|(name, expected)| ours.get(*name) != Some(expected))
        .map(|(name, expected)| {
            format!("{name}\n  expected: {expected}\n  here: {}", ours.get(name).unwrap_or(&Value::Null))
        })
        .collect();
    assert!(differences.is_empty(), "{} of {} differ\n{}", differences.len(), expected.len(), differences.join("\n"));
}

#[test]
fn node_reads_what_the_engine_made() {
    let made = engine("operations.produce()");
    assert_eq!(node(&format!("operations.consume({made})")), "[]");
}

#[test]
fn engine_reads_what_node_made() {
    let made = node("operations.produce()");
    assert_eq!(engine(&format!("operations.consume({made})")), "[]");
}

/// What the build notes of a module's top-level code.
fn found_at_build(code: &str) -> Vec<Value> {
    let code = format!("{code}; exports.middleware = () => {{}};");
    let module = serde_json::json!({ "id": "policy.ts", "imports": {}, "code": code, "whole": false, "map": "" });
    let program = serde_json::json!({
        "entry": "policy.ts", "order": ["policy.ts"], "lazy": [], "modules": [module], "nodeEnv": "production",
    });
    let engine = Engine::start().expect("the engine starts");
    let report = engine.build(program.to_string().into_bytes(), |_| ()).expect("a report");
    let report: Value = serde_json::from_str(&report).expect("the report is JSON");
    assert_eq!(report["failed"], serde_json::json!([]));
    report["found"].as_array().expect("a list").iter().map(|found| found["state"].clone()).collect()
}

#[test]
fn randomness_at_build_defers_a_module() {
    for curve in ["P-256", "P-384", "P-521"] {
        let generate = format!("crypto.subtle.generateKey({{ name: 'ECDSA', namedCurve: '{curve}' }}, true, ['sign'])");
        assert_eq!(found_at_build(&generate), ["randomness"], "{curve}");
    }
    assert_eq!(found_at_build("crypto.subtle.generateKey('Ed25519', true, ['sign'])"), ["randomness"]);
    let key = serde_json::from_str::<Value>(KEYS).expect("the keys are JSON")["rsa"].to_string();
    let sign = format!(
        "crypto.subtle.importKey('jwk', {key}, {{ name: 'RSA-PSS', hash: 'SHA-256' }}, true, ['sign'])
            .then((key) => crypto.subtle.sign({{ name: 'RSA-PSS', saltLength: 32 }}, key, new Uint8Array()))"
    );
    assert_eq!(found_at_build(&sign), ["randomness"]);
}

#[test]
fn constant_keys_and_digests_are_evaluated_at_build() {
    let nothing: [&str; 0] = [];
    let digest = "crypto.subtle.digest('SHA-256', new Uint8Array(3))";
    assert_eq!(found_at_build(digest), nothing);
    let import =
        "crypto.subtle.importKey('raw', new Uint8Array(32), { name: 'HMAC', hash: 'SHA-256' }, false, ['verify'])";
    assert_eq!(found_at_build(import), nothing);
}
