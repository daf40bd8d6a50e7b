//! Recorded decisions of a gateway, replayed against another policy.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::client::Wire;
use crate::guests::component;
use crate::processes::{Gateway, ProcessOutput, path, run, tidegate};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest-examples/rust-role-based/policy.wasm");

/// A `tidegate.toml` with the recording in this directory.
fn configuration(dir: &Path) -> String {
    format!(
        r#"
store = "memory:"
policy = {{ file = "{EXAMPLE}", lookup.prefixes = ["session:", "team:"] }}
decisions = {{ log = "stdout", recording = {{ file = "{}", share = 1.0 }}, masked-fields = ["reason"] }}
[memory-store.seed]
"session:alice" = '{{"id":"alice","role":"member"}}'
"#,
        path(dir, "recording.jsonl")
    )
}

async fn replay(dir: &Path, recording: &str, policy: &str, args: &[&str]) -> ProcessOutput {
    let mut command = tidegate(&[&["policy", "replay", recording, policy], args].concat());
    command.current_dir(dir).env("TIDEGATE_CACHE_DIR", dir.join("cache"));
    run(command, None).await
}

#[tokio::test]
async fn recorded_decisions_are_replayed_against_another_policy() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let gateway = Gateway::start(&configuration(dir)).await;
    // No cookie, so 401.
    for channel in ["a", "b", "c"] {
        let wire = Wire::get(gateway.data, &format!("/api/realtime?channel={channel}"), None, None).await;
        assert_eq!(wire.expect("an answer").status, 401);
    }
    gateway.process.signal("TERM").await;
    let ended = gateway.process.end().await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.contains("WITH THEIR COOKIES AND TOKENS"), "{}", ended.stderr);
    let logged = ended.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let logged: Vec<Value> = logged.filter(|line| line.get("outcome").is_some()).collect();
    let channels: Vec<&Value> = logged.iter().map(|line| &line["channels"][0]).collect();
    assert_eq!(channels, ["a", "b", "c"], "{}", ended.stdout);
    assert!(logged.iter().all(|line| line["status"] == 401), "{logged:?}");

    let recording = path(dir, "recording.jsonl");
    let mode = std::fs::metadata(&recording).expect("it exists").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let same = replay(dir, &recording, EXAMPLE, &[]).await;
    assert_eq!(same.code(), Some(0), "{same:?}");
    assert!(
        same.stdout.contains("3 decisions replayed against sha256:") && same.stdout.contains("3 identical"),
        "{same:?}"
    );

    let allow = path(dir, "allow.wasm");
    std::fs::write(&allow, component("allow")).expect("written");
    let changed = replay(dir, &recording, &allow, &["--json"]).await;
    assert_eq!(changed.code(), Some(1), "{changed:?}");
    assert!(changed.stderr.contains("the outcome of 3 of 3 decisions changes"), "{changed:?}");
    let lines: Vec<Value> = changed.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), &lines[0]["change"]), (4, &Value::from("reject_to_allow")));

    // The gateway of this recording looked nothing up, as no client had a cookie.
    let lookup = path(dir, "lookup.wasm");
    std::fs::write(&lookup, component("lookup")).expect("written");
    let (config, lines) = (path(dir, "replay.toml"), "policy.lookup.prefixes = ['forbidden:']");
    std::fs::write(&config, lines).expect("written");
    let unknown = replay(dir, &recording, &lookup, &["--config", &config]).await;
    assert_eq!(unknown.code(), Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("none of 3 decisions could be compared"), "{unknown:?}");

    std::fs::write(dir.join("other"), "2026-11-25 a log\n").expect("written");
    let other = replay(dir, &path(dir, "other"), EXAMPLE, &[]).await;
    assert_eq!(other.code(), Some(1), "{other:?}");
    assert!(other.stderr.contains("the file has no recorded decision (line 1: "), "{other:?}");
}

#[tokio::test]
async fn unwritable_decision_log_fails_the_start() {
    for (option, value, error) in [
        ("log", "\"/proc/nothing/here\"", "decisions.log: "),
        ("recording.file", "\"/proc/nothing/here\"", "decisions.recording.file: "),
        ("masked-fields", "[\"ip\"]", "decisions.masked-fields[0]: expected one of `subject`, `channels`, `reason`"),
    ] {
        let toml = format!("store = \"memory:\"\nallow-all = true\ndecisions.{option} = {value}");
        let (process, _dir) = Gateway::launch(&toml, &[]);
        let ended = process.end().await;
        assert_ne!(ended.code(), Some(0), "{ended:?}");
        assert!(ended.stderr.contains(error), "{ended:?}");
        assert!(!ended.stdout.contains("listening"), "{ended:?}");
    }
}
