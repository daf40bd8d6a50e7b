//! The decision log, and the recording for replays against another policy.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate::audit::mask::MaskedField;
use tidegate::audit::{AuditConfig, LogTarget, recording, writer};

use crate::client::{Sse, send_request};
use crate::guests::component;
use crate::harness::Gateway;

/// Configuration for the example policy: one session, and one team.
const EXAMPLE_CONFIG: &str = r#"
policy.lookup.prefixes = ["session:", "team:"]
[memory-store.seed]
"session:s1" = '{"id":"alice","role":"member"}'
"team:red:members" = ["alice"]
"#;

fn example() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/rust-role-based/policy.wasm");
    std::fs::read(path).expect("the component exists")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("it exists");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn flush(gateway: &Gateway) {
    gateway.app.audit.flush(Duration::from_secs(20));
}

async fn open(gateway: &Gateway, query: &str) {
    let target = format!("/api/realtime?{query}");
    let mut sse = Sse::open(gateway.data, &target, &[("cookie", "session=s1"), ("authorization", "Bearer hush")]).await;
    assert_eq!(sse.frame().await["type"], "connected");
}

async fn request_status(gateway: &Gateway, query: &str) -> u16 {
    let target = format!("/api/realtime?{query}");
    send_request(gateway.data, "GET", &target, &[("cookie", "session=s1"), ("authorization", "Bearer hush")], "")
        .await
        .status
}

#[tokio::test]
async fn each_decision_is_logged_without_credentials() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("decisions.jsonl");
    let gateway = Gateway::with_policy(&example(), EXAMPLE_CONFIG).await;
    let log = Some(LogTarget::File(path.clone()));
    let settings = AuditConfig { log, masked_fields: vec![MaskedField::Subject], recording: None };
    gateway.app.audit.configure(settings).expect("it can be written");
    open(&gateway, "channel=team-red&channel=alice").await;
    assert_eq!(request_status(&gateway, "channel=admin-1&token=hush").await, 403);
    gateway.activate(&component("trap")).await.expect("it loads");
    assert_eq!(request_status(&gateway, "channel=c").await, 500);
    flush(&gateway);
    let lines = lines(&path);
    let field = |name: &str| lines.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("outcome"), ["allowed", "rejected", "error"]);
    assert_eq!(field("generation"), [1, 1, 2]);
    assert_eq!(field("status"), [Value::Null, json!(403), Value::Null]);
    assert_eq!(field("kind"), [Value::Null, Value::Null, json!("trap")]);
    assert_eq!(lines[0]["channels"], json!(["team-red", "alice"]));
    assert!(lines[0]["subject"].as_str().is_some_and(|subject| subject.starts_with('~')), "{}", lines[0]);
    assert_ne!(lines[0]["policy"], lines[2]["policy"]);
    let text = std::fs::read_to_string(&path).expect("it exists");
    assert!(!text.contains("hush") && !text.contains("s1"), "{text}");
    let counts = gateway.app.audit.log_counts();
    assert_eq!(counts, writer::LineCounts { written: 3, dropped: 0 });
}

#[tokio::test]
async fn recording_contains_request_host_calls_and_answer() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("recording.jsonl");
    let gateway = Gateway::with_policy(&example(), EXAMPLE_CONFIG).await;
    let record = Some(recording::RecordingConfig { file: path.clone(), share: 1.0, limit: 1 << 20 });
    gateway
        .app
        .audit
        .configure(AuditConfig { recording: record, ..AuditConfig::default() })
        .expect("it can be written");
    open(&gateway, "channel=team-red").await;
    assert_eq!(request_status(&gateway, "channel=team-blue").await, 403);
    gateway.store.disconnect();
    assert_eq!(request_status(&gateway, "channel=alice").await, 503);
    flush(&gateway);
    let lines = lines(&path);
    let session =
        json!({ "call": { "get": "session:s1" }, "answer": { "value": r#"{"id":"alice","role":"member"}"# } });
    let member = |team: &str, contains: bool| json!({ "call": { "set-contains": [format!("team:{team}:members"), "alice"] }, "answer": { "contains": contains } });
    assert_eq!(lines[0]["calls"], json!([session, member("red", true)]));
    assert_eq!(lines[1]["calls"], json!([session, member("blue", false)]));
    assert_eq!(lines[2]["calls"][0]["answer"], json!({ "unavailable": "the store does not answer" }));
    let cookie = lines[0]["request"]["headers"].as_array().into_iter().flatten().find(|header| header[0] == "cookie");
    assert_eq!(cookie, Some(&json!(["cookie", "session=s1"])), "a replay needs the cookie");
    assert_eq!((&lines[0]["answer"]["allow"], &lines[1]["answer"]["status"]), (&json!(true), &json!(403)));
}

#[tokio::test]
async fn cached_decision_is_logged_and_not_recorded() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, record) = (dir.path().join("log"), dir.path().join("recording"));
    let gateway = Gateway::with_policy(&component("kept"), "").await;
    let settings = AuditConfig {
        log: Some(LogTarget::File(log.clone())),
        masked_fields: Vec::new(),
        recording: Some(recording::RecordingConfig { file: record.clone(), share: 1.0, limit: 1 << 20 }),
    };
    gateway.app.audit.configure(settings).expect("it can be written");
    for _ in 0..3 {
        gateway.open("channel=g").await.connected("g").await;
    }
    flush(&gateway);
    let cached: Vec<Value> = lines(&log).iter().map(|line| line["cached"].clone()).collect();
    assert_eq!(cached, [false, true, true]);
    assert_eq!(lines(&record).len(), 1);
}

#[tokio::test]
async fn line_counts_continue_after_a_change_of_the_log_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let gateway = Gateway::with_policy(&component("allow"), "").await;
    let audit = &gateway.app.audit;
    for (file, mask) in [("one", vec![]), ("one", vec![MaskedField::Channels]), ("two", vec![])] {
        let settings =
            AuditConfig { log: Some(LogTarget::File(dir.path().join(file))), masked_fields: mask, recording: None };
        audit.configure(settings).expect("it can be written");
        open(&gateway, "channel=c").await;
        flush(&gateway);
    }
    assert_eq!(["one", "two"].map(|file| lines(&dir.path().join(file)).len()), [2, 1]);
    let unwritable =
        AuditConfig { log: Some(LogTarget::File(dir.path().join("none/three"))), ..AuditConfig::default() };
    assert!(audit.configure(unwritable).is_err());
    open(&gateway, "channel=c").await;
    flush(&gateway);
    assert_eq!(lines(&dir.path().join("two")).len(), 2, "an unwritable file changes nothing");
    audit.configure(AuditConfig::default()).expect("no file is opened");
    open(&gateway, "channel=c").await;
    assert_eq!(audit.log_counts(), writer::LineCounts { written: 4, dropped: 0 });
}
