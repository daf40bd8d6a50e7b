use std::io::Cursor;

use super::*;
use crate::util::golden::golden;
use crate::wasm::component::Policy;
use crate::wasm::engine;

const LINE: &str = r#"{"recording":1,"time":"2026-11-25T12:00:00.000Z","policy":"sha256:0ld","duration_us":52,"request":{"id":"5f0c","method":"GET","scheme":"https","authority":"authorizer.example","path_with_query":"/api/realtime?channel=CHANNEL","headers":[["cookie","session=s1"]],"client_address":"192.0.2.1"},"channels":["CHANNEL"],"now":1764072000000,"calls":CALLS,"network":false,"answer":ANSWER}"#;
const MEMBER: &str = r#"[{"call":{"get":"session:s1"},"answer":{"value":"{\"id\":\"alice\",\"role\":\"member\"}"}}]"#;
const ALLOW: &str = r#"{"allow":true,"subject":"alice","channels":["CHANNEL"],"headers":{},"reason":""}"#;
const REJECT: &str = r#"{"status":403,"headers":{"content-type":["text/plain"]},"body":"No","reason":"a test"}"#;
const ERROR: &str = r#"{"error":"trap","message":"the policy trapped: unreachable","reason":""}"#;

fn line(channel: &str, calls: &str, answer: &str) -> String {
    LINE.replace("CALLS", calls).replace("ANSWER", answer).replace("CHANNEL", channel)
}

/// The text and the JSON of replaying these lines to the example policy.
fn replay(text: &str, all: bool) -> (String, String, u64) {
    let compiler: Compiler = engine::shared().expect("an engine").into();
    let example = include_bytes!("../../../../guest-examples/rust-role-based/policy.wasm");
    let policy = Policy::new(&compiler, example).expect("it loads");
    let limits = Limits::default();
    let env = ReplayEnv { env: PolicyEnv::new(empty_store(), &limits), limits };
    let (mut report, evaluator) = (Report::new("sha256:new", all), ReplayEvaluator::new(policy, 0));
    let (mut text_out, mut json_out) = (String::new(), String::new());
    block_on(async {
        for (number, line) in (1..).zip(read_lines(Cursor::new(text))) {
            let line = line.expect("it can be read");
            if let Some(difference) = env.replay(&evaluator, &mut report, number, line).await {
                text_out += &difference.text;
                json_out += &format!("{}\n", difference.json);
            }
        }
        anyhow::Ok(())
    })
    .expect("a runtime");
    (text_out + &report.text(), format!("{json_out}{}\n", json!({ "summary": report })), report.outcome_changes())
}

#[test]
fn golden_replay() {
    let lines = [
        line("alice", MEMBER, ALLOW),
        line("admin-1", MEMBER, ALLOW),
        line("alice", MEMBER, REJECT),
        line("alice", MEMBER, ERROR),
        line("admin-1", MEMBER, REJECT),
        line("alice", "[]", ALLOW),
        r#"{"recording":1,"time":"2026-11-25T12:00:00.000Z","dropped":7}"#.to_owned(),
        "something else".to_owned(),
        r#"{"level":"info"}"#.to_owned(),
        line("alice", MEMBER, ALLOW).replace("\"recording\":1", "\"recording\":2"),
        line("alice", MEMBER, r#"{"maybe":true}"#),
        line("alice", MEMBER, ALLOW)[..200].to_owned(),
    ];
    let (text, json, changes) = replay(&lines.join("\n"), true);
    assert_eq!(changes, 3);
    golden("replay.txt", &text);
    golden("replay.jsonl", &json);
}

#[test]
fn unchanged_outcomes_are_not_reported() {
    let text = line("alice", MEMBER, ALLOW) + "\n" + &line("admin-1", MEMBER, REJECT) + "\n";
    let (text, _, changes) = replay(&text, false);
    assert_eq!((changes, text.lines().count()), (0, 4), "{text}");
}

#[test]
fn overlong_line_is_skipped() {
    struct Endless(usize);
    impl std::io::Read for Endless {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let length = to.len().min(self.0);
            to[..length].fill(b'x');
            self.0 -= length;
            Ok(length)
        }
    }
    let end = format!("\n{}\n", line("alice", MEMBER, ALLOW));
    let endless = BufReader::new(std::io::Read::chain(Endless(65 << 20), Cursor::new(end)));
    let lines: Vec<Line> = read_lines(endless).map(|line| line.expect("it can be read")).collect();
    assert!(matches!(&lines[..], [Line::Unreadable(_), Line::Case(_)]));
}
