//! Policies in Python: the build, and state that is new in every decision.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::processes::{ProcessOutput, path, run_unlimited, tidegate};

async fn run(args: &[&str]) -> ProcessOutput {
    let mut command = tidegate(args);
    command.env("BUILD_SECRET", "secret-of-the-build-machine");
    run_unlimited(command).await
}

const CASES: &str = r#"
[settings]
GREETING = "hello"
limit = "3"
teams = "red, blue"
[tokens.app]
issuer = "https://auth.example"
audience = "app"
secret = "a secret of these tests only"

[[case]]
name = "one"
expect.status = 403

[[case]]
name = "two"
expect.status = 403

[[case]]
name = "a grant with all fields"
now = "2026-01-01T00:00:00Z"
channels = ["all", "other"]
expect = { allow = true, subject = "zoë", channels = ["all"], expires-at = "2026-01-01T01:00:00Z", reason = "['all', 'other'] zoë" }

[[case]]
name = "no token"
channels = ["token"]
expect = { status = 401, body = "Unauthorized", reason = "token missing" }

[[case]]
name = "a broken token"
channels = ["token"]
request.headers.authorization = "Bearer abc"
expect = { status = 401, body = "Unauthorized", reason = "token malformed" }

[[case]]
name = "a good token"
now = "2026-01-01T00:00:00Z"
channels = ["token"]
request.headers.authorization = "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2F1dGguZXhhbXBsZSIsImF1ZCI6ImFwcCIsInN1YiI6ImFsaWNlIiwiZXhwIjoxNzY3MjI5MjAwfQ.MO-wmhVxdCXQj38HP6htTPm_fgsogL7jOXMy1FAwt7Q"
expect = { allow = true, subject = "alice", expires-at = "2026-01-01T01:00:00Z" }

[[case]]
name = "error"
channels = ["error"]
expect = { status = 500, body = "Internal Server Error", reason = "KeyError at late.py:5" }
"#;

#[test]
fn python_sdk_and_examples_pass_their_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["sdk/python", "user", "session", "role"] {
        let folder = if folder.contains('/') { folder.into() } else { format!("guest-examples/python-{folder}-based") };
        let mut tests = Command::new("python3");
        tests.args(["-B", "-m", "unittest"]).current_dir(root.join(&folder));
        let output = tests.output().expect("Python 3.11 or newer is installed");
        let output_text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !output_text.contains("Ran 0 tests"), "{folder}: {output_text}");
    }
}

#[tokio::test]
async fn randomness_and_settings_come_from_the_decision_and_not_the_build() {
    let dir = tempfile::tempdir().expect("a directory");
    let (component, cases) = (path(dir.path(), "policy.wasm"), path(dir.path(), "cases.toml"));
    std::fs::write(&cases, CASES).expect("the cases are written");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/python");
    let ended = run(&["policy", "build", source.to_str().expect("a path"), "-o", &component]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.all());
    let bytes = std::fs::read(&component).expect("the component");
    assert!(
        !bytes.windows(20).any(|part| part == b"of-the-build-machine"),
        "the component contains the environment of the build"
    );

    // `one` and `two` are the same request; the report contains their bodies, as the cases do not match them.
    let ended = run(&["policy", "test", &component, &cases, "--json", "--log"]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.all());
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let probe_of = |at: usize| -> Value {
        let body = report["results"][at]["got"]["body"].as_str().expect("a body");
        serde_json::from_str(body).expect("JSON")
    };
    let (one, two) = (probe_of(0), probe_of(1));
    assert_eq!(one["environment"], json!(["hello", "hello", "hello", null]));
    let config = "Config(GREETING='hello', limit=3, teams=['red', 'blue'], note=None)";
    assert_eq!(one["config"], config);
    assert_eq!((&one["clock"], &one["late"]), (&json!(true), &json!("late")));
    let chance = [&one, &two].map(|probe| probe["chance"].as_array().expect("a list"));
    assert_eq!(chance[0].len(), 5);
    for (first, second) in chance[0].iter().zip(chance[1]) {
        assert_ne!(first, second, "{one} {two}");
    }
    let inspected = run(&["policy", "inspect", &component]).await;
    assert!(inspected.stdout.contains("language   Python\n"), "{}", inspected.all());
    // The cases assert that clients receive no part of the error; the log contains all of it.
    for words in ["about to fail", "KeyError: 'a session id'", "late.py", "line 5", "raise KeyError"] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
}

/// What each probe of `tests/fixtures/python-platform` ends with in a decision: a value, or the classes of the exception.
const PLATFORM: [(&str, &str); 44] = [
    ("socket", "PermissionError,OSError,Exception"),
    ("udp", "PermissionError,OSError,Exception"),
    ("connect", "gaierror,OSError,Exception"),
    ("listen", "PermissionError,OSError,Exception"),
    ("pair", "PermissionError,OSError,Exception"),
    ("resolve", "gaierror,OSError,Exception"),
    ("resolve-number", "gaierror,OSError,Exception"),
    ("resolve-name", "gaierror,OSError,Exception"),
    ("resolve-address", "gaierror,OSError,Exception"),
    ("http", "URLError,OSError,Exception"),
    ("https", "URLError,OSError,Exception"),
    ("http-connection", "gaierror,OSError,Exception"),
    ("tls-context", "'CERT_REQUIRED'"),
    ("tls-options", "'OP_"),
    ("tls", "SSLError,OSError,Exception"),
    ("event-loop", "PermissionError,OSError,Exception"),
    ("thread", "RuntimeError,Exception"),
    ("timer", "RuntimeError,Exception"),
    ("executor", "RuntimeError,Exception"),
    ("pool", "OSError,Exception"),
    ("process", "OSError,Exception"),
    ("process-lock", "OSError,Exception"),
    ("program", "OSError,Exception"),
    ("lock", "[True, False]"),
    ("select", "([], [], [])"),
    ("selector", "[]"),
    ("folder", "[<DirEntry"),
    ("file", "OSError,Exception"),
    ("close", "OSError,Exception"),
    ("write", "FileNotFoundError,OSError,Exception"),
    ("temporary", "FileNotFoundError,OSError,Exception"),
    ("database", "[(1,)]"),
    ("database-file", "OperationalError,DatabaseError,Error,Exception"),
    ("map", "OSError,Exception"),
    ("library", "OSError,Exception"),
    ("structure", "['S']"),
    ("file-lock", "OSError,Exception"),
    ("user", "KeyError,LookupError,Exception"),
    ("terminal", "error,Exception"),
    ("bz2", "OSError,Exception"),
    ("lzma", "LZMAError,Exception"),
    ("zlib", "b'aaaaaaaaa'"),
    // What Python's own function returns with OpenSSL.
    ("pbkdf2", "'ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957cae9313626'"),
    ("idna", "b'xn--bcher-kva.example'"),
];

#[tokio::test]
async fn parts_without_a_platform_raise_pythons_exceptions_also_after_their_use_at_build() {
    let dir = tempfile::tempdir().expect("a directory");
    let (component, cases) = (path(dir.path(), "policy.wasm"), path(dir.path(), "cases.toml"));
    let case = |(name, _): (&str, &str)| {
        format!("[[case]]\nname = \"{name}\"\nchannels = [\"{name}\"]\nexpect.status = 403\n")
    };
    std::fs::write(&cases, PLATFORM.map(case).concat()).expect("the cases are written");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/python-platform");
    let ended = run(&["policy", "build", source.to_str().expect("a path"), "-o", &component]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.all());
    let ended = run(&["policy", "test", &component, &cases, "--json"]).await;
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let results = report["results"].as_array().expect("a list");
    assert_eq!(results.len(), PLATFORM.len());
    for (result, (name, expected)) in results.iter().zip(PLATFORM) {
        let body = result["got"]["body"].as_str().unwrap_or_else(|| panic!("{name}: {}", result["got"]));
        let probe: Value = serde_json::from_str(body).expect("JSON");
        let now = probe["now"].as_str().expect("text");
        assert!(now.starts_with(expected), "{name}: {expected} is expected: {now}");
    }
}

#[tokio::test]
async fn failed_build_reports_the_location_and_keeps_the_previous_component() {
    let dir = tempfile::tempdir().expect("a directory");
    let (source, component) = (path(dir.path(), "app.py"), path(dir.path(), "policy.wasm"));
    std::fs::write(&source, "import json\n\ndef authorize(request, channels:\n    pass\n").expect("written");
    std::fs::write(&component, "the previous component").expect("written");
    let ended = run(&["policy", "build", &source]).await;
    assert_eq!((ended.code(), &*ended.stdout), (Some(1), ""), "{}", ended.all());
    assert!(ended.stderr.contains("app.py:3: '(' was never closed"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("Traceback"), "{}", ended.stderr);
    assert_eq!(std::fs::read(&component).expect("it exists"), b"the previous component");
    let files: Vec<_> = std::fs::read_dir(dir.path()).expect("a directory").collect();
    assert_eq!(files.len(), 2, "{files:?}");
}
