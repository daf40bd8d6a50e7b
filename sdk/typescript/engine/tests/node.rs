//! The platform's behaviour on this engine and on Node, expression by expression.

use std::io::Write;
use std::process::{Command, Stdio};

use tidegate_js::engine::Engine;

const CASES: &str = include_str!("node/cases.js");

/// Expressions that intentionally have another value here, with that value and the reason.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("new URLSearchParams(null).toString()", "\"null=\"", "as the standard says"),
    (
        r#"new TextDecoder("windows-1252").decode(new Uint8Array([0x80, 0xe4]))"#,
        "\"€ä\"",
        "Node 20 decodes Latin-1, unlike the standard",
    ),
    (
        r#"await new Response(new Blob(["not gzip"]).stream().pipeThrough(new DecompressionStream("gzip"))).text()"#,
        "throws TypeError",
        "as the standard says",
    ),
];

#[test]
fn expressions_have_the_values_of_node() {
    let engine = Engine::start().expect("the engine starts");
    let ours = engine.evaluate(&format!("{CASES}\nresults()")).expect("the cases run");
    let theirs = on_node(&format!("{CASES}\nresults().then(console.log)"));
    let parse = |json: &str| serde_json::from_str::<Vec<(String, String)>>(json).expect("pairs of strings");
    let (ours, theirs) = (parse(&ours), parse(&theirs));
    assert_eq!(ours.len(), theirs.len());
    let mut wrong = Vec::new();
    for ((expression, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        let different = DIFFERENT.iter().find(|(it, ..)| it == expression);
        let wanted = different.map_or(theirs.as_str(), |(_, value, _)| value);
        if ours != wanted || different.is_some_and(|(_, value, _)| value == theirs) {
            wrong.push(format!("{expression}\n    here: {ours}\n    Node: {theirs}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} expressions differ:\n{}", wrong.len(), ours.len(), wrong.join("\n"));
}

/// What Node prints.
fn on_node(script: &str) -> String {
    let mut node = Command::new("node")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("node starts");
    node.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("node reads");
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success(), "node fails");
    String::from_utf8(output.stdout).expect("UTF-8")
}
