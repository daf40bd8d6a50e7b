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
