//! Policies that exceed the limits of the sandbox. Each fails its own decision only, and delays no other.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::policy::Outcome;

use crate::guests::authorizer;
use crate::harness::{Gateway, load};

/// A short CPU time and a long timeout, as a busy machine gives a guest little CPU time.
pub const STRICT_LIMITS: &str = "policy.cpu-time = '30ms'\npolicy.timeout = '20s'\npolicy.max-memory = '16MiB'\n";

pub const GENEROUS_LIMITS: &str = "policy.cpu-time = '10s'\npolicy.timeout = '20s'\npolicy.max-memory = '16MiB'\n";

/// Memory is never freed, as an instance lives for one decision.
pub const REALLOC: &str = r#"
  (global $heap (mut i32) (i32.const 0x10000))
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.get $heap)
    (global.set $heap (i32.add (global.get $heap) (local.get $size))))"#;

const LOG: &str = r#"(import "tidegate:policy/context@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
const NOW: &str = r#"(import "tidegate:policy/context@0.1.0" "now" (func $now (result i64)))"#;
const REASON: &str = r#"(import "tidegate:policy/answer@0.1.0" "reason" (func $reason (param i32 i32)))"#;
const CACHE_FOR: &str = r#"(import "tidegate:policy/answer@0.1.0" "cache-for" (func $cache-for (param i32 i32 i32)))"#;
const GET: &str = r#"(import "tidegate:policy/lookup@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
const SETTING: &str = r#"(import "tidegate:policy/settings@0.1.0" "get" (func $setting (param i32 i32 i32)))"#;
const VERIFY: &str = r#"(import "tidegate:policy/tokens@0.1.0" "verify" (func $verify (param i32 i32 i32)))"#;
const RANDOM: &str = r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))"#;
const SUBSCRIBE: &str = r#"
  (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))"#;
const STDOUT: &str = r#"
  (import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $print (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.write" (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.write-zeroes" (func $zeroes (param i32 i64 i32)))"#;
const HTTP: &str = r#"
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[method]fields.append" (func $append (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[resource-drop]fields" (func $drop-fields (param i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority" (func $authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query" (func $path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.body" (func $body (param i32 i32)))
  (memory (export "memory") 17)
  (data (i32.const 256) "x")
  (func $fill (param $from i32) (memory.fill (local.get $from) (i32.const 0x61) (i32.const 60000)))
  ;; a value of 60,000 bytes of the header x
  (func $append-value (param $fields i32)
    (call $append (local.get $fields) (i32.const 256) (i32.const 1) (i32.const 0x80000) (i32.const 60000) (i32.const 1024)))"#;
const EXIT: &str = r#"(import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))"#;

/// A policy that runs this code and then allows the request, with 17 pages of memory and these fields in its module.
fn guest(fields: &str, code: &str) -> Vec<u8> {
    let realloc = if fields.contains("cabi_realloc") { "" } else { REALLOC };
    let memory = if fields.contains("(export \"memory\")") { "" } else { "(memory (export \"memory\") 17)" };
    authorizer(&format!(
        r#"(module {fields} {memory} {realloc}
          (func (export "tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (local $i i32)
            {code}
            ;; 56 zero bytes: ok, and a grant with none and nothing in every field
            (i32.const 64)))"#
    ))
}

/// A policy whose answer is these bytes, at 64.
fn answer(bytes: &str) -> Vec<u8> {
    guest(&format!("(memory (export \"memory\") 17) (data (i32.const 64) {bytes})"), "")
}

pub fn endless_loop(code: &str) -> String {
    format!("(loop $again {code} (br $again))")
}

fn repeat(count: usize, code: &str) -> String {
    format!(
        "(loop $again {code} (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {count}))))"
    )
}

/// Evaluates each policy once, while another gateway serves its clients. `kind` is that of the failure, or `allowed`.
pub async fn assert_each_outcome(bounds: &str, policies: Vec<(&str, &str, Vec<u8>)>) {
    let good = Gateway::with_policy(&crate::guests::component("allow"), "").await;
    let mut stream = good.open("channel=c").await;
    stream.connected("c").await;
    for (name, kind, policy) in policies {
        // A well-behaved guest has enough time on a busy machine, too.
        let bounds = if kind == "allowed" { GENEROUS_LIMITS } else { bounds };
        let gateway = Gateway::with_policy(&policy, bounds).await;
        let mut decisions = gateway.app.authorizer.watch();
        let start = Instant::now();
        let attack = async {
            if kind == "allowed" {
                gateway.open("channel=c").await.connected("c").await;
            } else {
                let reply = gateway.request("channel=c").await;
                assert_eq!((reply.status, &*reply.code()), (500, "decision_error"), "{name}: {}", reply.body);
                let message = reply.json()["error"]["message"].clone();
                assert_eq!(message, "this request could not be decided", "{name}: the client does not learn the cause");
                assert!(gateway.is_idle(), "{name}: no stream is open");
            }
        };
        let other_clients = async {
            good.open("channel=c").await.connected("c").await;
            let id = good.store.emit_stock("c", "e", &json!(1)).await;
            assert_eq!(stream.ids("c", 1).await, [id]);
        };
        tokio::join!(attack, other_clients);
        assert!(start.elapsed() < Duration::from_secs(30), "{name} took {:?}", start.elapsed());
        let observed = decisions.try_recv().expect("a decision is observed");
        let (outcome, message) = match &observed.decision.outcome {
            Outcome::Failed(failure) => (failure.kind(), failure.to_string()),
            Outcome::Allowed(_) => ("allowed", String::new()),
            Outcome::Rejected(_) => ("rejected", String::new()),
        };
        assert_eq!(outcome, kind, "{name}: {message}");
        assert!(message.len() < 1_000, "{name}: {} bytes in the log", message.len());
    }
}

#[tokio::test]
async fn cpu_time_is_limited() {
    let spin_in_realloc = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (loop $again (br $again)) (i32.const 0))"#;
    let post = r#"(export "cabi_post_tidegate:policy/authorizer@0.1.0#authorize")"#;
    assert_each_outcome(
        STRICT_LIMITS,
        vec![
            ("spins at its start", "cpu", guest("(start $spin) (func $spin (loop $again (br $again)))", "")),
            ("traps at its start", "trap", guest("(start $trap) (func $trap unreachable)", "")),
            ("spins while it receives its request", "cpu", guest(spin_in_realloc, "")),
            (
                "spins after its answer",
                "cpu",
                guest(&format!("(func {post} (param i32) (loop $again (br $again)))"), ""),
            ),
            ("traps after its answer", "trap", guest(&format!("(func {post} (param i32) unreachable)"), "")),
            ("calls a host function in a loop", "cpu", guest(NOW, &endless_loop("(drop (call $now))"))),
            (
                "copies memory in a loop",
                "cpu",
                guest("", &endless_loop("(memory.copy (i32.const 65536) (i32.const 131072) (i32.const 983040))")),
            ),
            ("exits", "trap", guest(EXIT, "(call $exit (i32.const 0))")),
        ],
    )
    .await;
}

#[tokio::test]
async fn waiting_time_is_limited() {
    let wait = "(call $block (call $subscribe (i64.const -1)))";
    // The list is at 1024, and its only handle at 1032.
    let poll = "(i32.store (i32.const 1032) (call $subscribe (i64.const -1))) (call $poll (i32.const 1032) (i32.const 1) (i32.const 1024))";
    let fill = "(i32.store (i32.add (i32.const 0x80000) (i32.shl (local.get $i) (i32.const 2))) (global.get $handle))";
    let many = |times| {
        let fill = repeat(times, fill);
        guest(
            &format!("{SUBSCRIBE} (global $handle (mut i32) (i32.const 0))"),
            &format!(
                "(global.set $handle (call $subscribe (i64.const 1))) {fill}
                 (call $poll (i32.const 0x80000) (i32.const {times}) (i32.const 1024))"
            ),
        )
    };
    assert_each_outcome(
        "policy.timeout = '300ms'",
        vec![
            ("polls one handle 1,000 times", "allowed", many(1_000)),
            ("polls one handle 20,000 times", "trap", many(20_000)),
            ("waits without end", "timeout", guest(SUBSCRIBE, wait)),
            ("polls without end", "timeout", guest(SUBSCRIBE, poll)),
            ("polls nothing", "trap", guest(SUBSCRIBE, "(call $poll (i32.const 1032) (i32.const 0) (i32.const 1024))")),
        ],
    )
    .await;
}

#[tokio::test]
async fn lookup_without_an_answer_times_out() {
    let toml = "policy.timeout = '300ms'\npolicy.lookup.timeout = '1h'\npolicy.lookup.prefixes = ['k', \"\\u0000\"]";
    let policy = guest(
        &format!("{GET} (memory (export \"memory\") 17) (data (i32.const 32) \"k\")"),
        "(call $get (i32.const 32) (i32.const 1) (i32.const 1024))",
    );
    let gateway = Gateway::with_policy(&policy, toml).await;
    let held = gateway.store.hold_lookups().await;
    let mut decisions = gateway.app.authorizer.watch();
    let start = Instant::now();
    let reply = gateway.request("channel=c").await;
    assert_eq!(reply.status, 500);
    assert!(start.elapsed() < Duration::from_secs(5));
    let observed = decisions.try_recv().expect("a decision is observed");
    assert!(matches!(&observed.decision.outcome, Outcome::Failed(failure) if failure.kind() == "timeout"));
    // A key of this length is rejected without a look-up.
    let long = guest(GET, "(call $get (i32.const 0x80000) (i32.const 0x10001) (i32.const 1024))");
    gateway.app.authorizer.activate(load(&long));
    gateway.open("channel=c").await.connected("c").await;
    gateway.app.authorizer.activate(load(&policy));
    drop(held);
    gateway.open("channel=c").await.connected("c").await;
}

/// A policy with 10 MiB of memory, and a second instance in the component with another 10 MiB.
fn two_memories() -> Vec<u8> {
    let policy = guest(r#"(memory (export "memory") 160)"#, "");
    // A section with a module that has 160 pages of memory, and a section that instantiates it as the second instance of the component.
    let module = b"\0asm\x01\0\0\0\x05\x04\x01\x00\xa0\x01";
    let length = u8::try_from(module.len()).expect("it is short");
    [&policy[..], &[1, length], module, &[2, 4, 1, 0, 1, 0]].concat()
}

#[tokio::test]
async fn guest_memory_is_limited() {
    let grow = "(br_if $again (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))";
    let table = "(table $t 1 funcref)";
    let grow_table = "(br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))";
    assert_each_outcome(
        STRICT_LIMITS,
        vec![
            ("grows its memory page by page", "memory", guest("", &format!("(loop $again {grow}) unreachable"))),
            ("grows its memory at once", "memory", guest("", "(drop (memory.grow (i32.const 65519))) unreachable")),
            ("grows a table", "trap", guest(table, &format!("(loop $again {grow_table}) unreachable"))),
            (
                "grows a table at once",
                "memory",
                guest(table, "(drop (table.grow $t (ref.null func) (i32.const -2))) unreachable"),
            ),
            ("has two memories that are too large together", "memory", two_memories()),
            (
                "continues after a failed growth of memory",
                "allowed",
                guest("", "(drop (memory.grow (i32.const 65519)))"),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn invalid_arguments_and_answers_fail_the_decision() {
    // The guest has 48 MiB of memory and passes all of it as one argument.
    let wide = |imports: &str| format!("{imports} (memory (export \"memory\") 768)");
    let all = "(i32.const 0) (i32.const 0x3000000)";
    let cases = vec![
        ("logs 48 MiB", "trap", guest(&wide(LOG), &format!("(call $log (i32.const 1) {all})"))),
        ("has a reason of 48 MiB", "trap", guest(&wide(REASON), &format!("(call $reason {all})"))),
        ("looks up 48 MiB", "trap", guest(&wide(GET), &format!("(call $get {all} (i32.const 1024))"))),
        (
            "asks for a setting of 48 MiB",
            "trap",
            guest(&wide(SETTING), &format!("(call $setting {all} (i32.const 1024))")),
        ),
        ("verifies a token of 48 MiB", "trap", guest(&wide(VERIFY), &format!("(call $verify {all} (i32.const 1024))"))),
        (
            "varies by a million headers",
            "trap",
            guest(&wide(CACHE_FOR), "(call $cache-for (i32.const 9) (i32.const 0x100000) (i32.const 1000000))"),
        ),
        (
            "varies by too many headers",
            "invalid-answer",
            guest(CACHE_FOR, "(call $cache-for (i32.const 9) (i32.const 0x80000) (i32.const 17))"),
        ),
        (
            "varies by an empty header name",
            "invalid-answer",
            guest(CACHE_FOR, "(call $cache-for (i32.const 9) (i32.const 0x80000) (i32.const 1))"),
        ),
        (
            "logs from beyond its memory",
            "trap",
            guest(LOG, "(call $log (i32.const 1) (i32.const 0x7fffffff) (i32.const 5))"),
        ),
        ("logs at an unknown level", "trap", guest(LOG, "(call $log (i32.const 77) (i32.const 0) (i32.const 5))")),
        (
            "logs bytes that are not UTF-8",
            "trap",
            guest(
                &format!("{LOG} (memory (export \"memory\") 17) (data (i32.const 256) \"\\ff\\fe\")"),
                "(call $log (i32.const 1) (i32.const 256) (i32.const 2))",
            ),
        ),
        (
            "a body of 48 MiB",
            "trap",
            guest(&format!("{} (data (i32.const 64) (i32 1 0) (i32 403) (i32 0 0) (i32 0 0x3000000))", wide("")), ""),
        ),
        ("a body longer than memory", "trap", answer("(i32 1 0) (i32 403) (i32 0 0) (i32 0 0x7fffffff)")),
        ("headers without end", "trap", answer("(i32 1 0) (i32 403) (i32 0 0x0fffffff) (i32 0 0)")),
        ("headers beyond the memory", "trap", answer("(i32 1 0) (i32 403) (i32 0x7ffffff0 1) (i32 0 0)")),
        ("headers at an odd address", "trap", answer("(i32 1 0) (i32 403) (i32 65 1) (i32 0 0)")),
        ("headers that overlap", "invalid-answer", answer("(i32 1 0) (i32 403) (i32 0x80000 1000) (i32 0 0)")),
        (
            "a body that is all of its memory",
            "invalid-answer",
            answer("(i32 1 0) (i32 403) (i32 0 0) (i32 0 0x110000)"),
        ),
        ("neither ok nor err", "trap", answer("(i32 2 0)")),
        ("neither some nor none", "trap", answer("(i32 0 0) (i32 2 0 0)")),
        (
            "a subject that is not UTF-8",
            "trap",
            answer("(i32 0 0) (i32 1 128 4) (i32 0 0 0) (i64 0 0) (i32 0 0) (i32 0 0) \"\\80\\80\\80\\80\""),
        ),
        ("a subject beyond the memory", "trap", answer("(i32 0 0) (i32 1 0x7fffffff 4)")),
    ];
    assert_each_outcome("policy.max-memory = '64MiB'\npolicy.cpu-time = '1s'\npolicy.timeout = '10s'", cases).await;
}

#[tokio::test]
async fn invalid_pointers_of_a_guest_fail_the_decision() {
    let realloc = |code: &str| format!("(func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) {code})");
    let returns = |text: &str| {
        format!(
            r#"(module (memory (export "memory") 17) {REALLOC}
              (func (export "tidegate:policy/authorizer@0.1.0#authorize")
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const {text})))"#
        )
    };
    let recurse = "(call $deeper) (i32.const 0)) (func $deeper (call $deeper) (call $deeper)";
    assert_each_outcome(
        STRICT_LIMITS,
        vec![
            ("beyond its memory", "trap", guest(&realloc("(i32.const 0x7fffff00)"), "")),
            ("at the end of all memory", "trap", guest(&realloc("(i32.const -1)"), "")),
            ("at an odd address", "trap", guest(&realloc("(i32.const 1025)"), "")),
            ("all at one address", "allowed", guest(&realloc("(i32.const 0x10000)"), "")),
            ("over its own answer", "trap", guest(&realloc("(i32.const 64)"), "")),
            (
                "no pointer: it calls the host",
                "trap",
                guest(&format!("{NOW} {}", realloc("(drop (call $now)) (i32.const 0)")), ""),
            ),
            ("no pointer: it recurses", "trap", guest(&realloc(recurse), "")),
            ("no pointer: it traps", "trap", guest(&realloc("unreachable"), "")),
            ("an answer beyond its memory", "trap", authorizer(&returns("0x10fff8"))),
            ("an answer at a negative address", "trap", authorizer(&returns("-8"))),
            ("an answer at an odd address", "trap", authorizer(&returns("65"))),
        ],
    )
    .await;
}

#[tokio::test]
async fn host_resources_of_a_decision_are_limited() {
    let line = "(i32.const 1) (i32.const 0x80000) (i32.const 1000)";
    assert_each_outcome(
        STRICT_LIMITS,
        vec![
            (
                "opens handles in a loop",
                "trap",
                guest(SUBSCRIBE, &endless_loop("(drop (call $subscribe (i64.const 1)))")),
            ),
            ("opens outputs in a loop", "trap", guest(STDOUT, &endless_loop("(drop (call $stdout))"))),
            ("uses an unknown handle", "trap", guest(SUBSCRIBE, "(call $block (i32.const 4096))")),
            (
                "a petabyte of randomness",
                "trap",
                guest(RANDOM, "(call $random (i64.const 0x4000000000000) (i32.const 1024))"),
            ),
            ("a MiB of randomness", "trap", guest(RANDOM, "(call $random (i64.const 0x100000) (i32.const 1024))")),
            ("64 KiB of randomness", "allowed", guest(RANDOM, "(call $random (i64.const 0x10000) (i32.const 1024))")),
            (
                "a petabyte of zeroes",
                "trap",
                guest(STDOUT, "(call $zeroes (call $stdout) (i64.const 0x4000000000000) (i32.const 1024))"),
            ),
            (
                "prints more at once than allowed",
                "trap",
                guest(STDOUT, "(call $print (call $stdout) (i32.const 0) (i32.const 5000) (i32.const 1024))"),
            ),
            (
                "writes more than allowed",
                "trap",
                guest(STDOUT, "(call $write (call $stdout) (i32.const 0) (i32.const 1000000) (i32.const 1024))"),
            ),
            ("floods the log", "cpu", guest(LOG, &endless_loop(&format!("(call $log {line})")))),
            ("floods the log a little", "allowed", guest(LOG, &repeat(5_000, &format!("(call $log {line})")))),
            (
                "floods the log with empty lines",
                "allowed",
                guest(LOG, &repeat(5_000, "(call $log (i32.const 1) (i32.const 0) (i32.const 0))")),
            ),
            (
                "prints in a loop",
                "cpu",
                guest(
                    STDOUT,
                    &format!(
                        "(local.set $i (call $stdout)) {}",
                        endless_loop(
                            "(call $print (local.get $i) (i32.const 0x80000) (i32.const 4096) (i32.const 1024))"
                        )
                    ),
                ),
            ),
            (
                "prints a little",
                "allowed",
                guest(
                    &format!("{STDOUT} (global $out (mut i32) (i32.const 0))"),
                    &format!(
                        "(global.set $out (call $stdout)) {}",
                        repeat(
                            200,
                            "(call $print (global.get $out) (i32.const 0x80000) (i32.const 1000) (i32.const 1024))"
                        )
                    ),
                ),
            ),
            (
                "calls `cache-for` in a loop",
                "cpu",
                guest(CACHE_FOR, &endless_loop("(call $cache-for (i32.const 9) (i32.const 0x80000) (i32.const 16))")),
            ),
        ],
    )
    .await;
}

/// A policy with another component inside, which makes resources of its own without end.
fn resource_maker() -> Vec<u8> {
    let maker = wat::parse_str(
        r#"(component
          (type $resource (resource (rep i32)))
          (core func $new (canon resource.new $resource))
          (core module $m
            (import "" "new" (func $new (param i32) (result i32)))
            (func $make (loop $again (drop (call $new (i32.const 1))) (br $again)))
            (start $make))
          (core instance (instantiate $m (with "" (instance (export "new" (func $new)))))))"#,
    )
    .expect("a component");
    let policy = guest("", "");
    // A section with the component, and a section that instantiates it. The policy has one component inside already.
    let (low, high) =
        (u8::try_from(maker.len() % 128).expect("7 bits"), u8::try_from(maker.len() / 128).expect("7 bits"));
    [&policy[..], &[4, low | 128, high], &maker, &[5, 4, 1, 0, 1, 0]].concat()
}

/// Host objects count as memory of the policy, which has 17 pages, and their number is limited.
#[tokio::test]
async fn host_memory_of_a_decision_is_limited() {
    let http = |code: &str| {
        guest(
            HTTP,
            &format!("(call $fill (i32.const 0x80000)) (i32.store8 (i32.const 0x7ffff) (i32.const 0x2f)) {code}"),
        )
    };
    let text = "(i32.const 1) (i32.const 0x80000) (i32.const 60000)";
    let path = "(i32.const 1) (i32.const 0x7ffff) (i32.const 60001)";
    let request = "(call $request (call $fields))";
    let cases = |few: &'static str, many: &'static str| {
        vec![
            ("20 fields of 60,000 bytes", few, http(&repeat(20, "(call $append-value (call $fields))"))),
            ("250 fields of 60,000 bytes", many, http(&repeat(250, "(call $append-value (call $fields))"))),
            ("20 paths of 60,000 bytes", few, http(&repeat(20, &format!("(drop (call $path {request} {path}))")))),
            (
                "20 authorities of 60,000 bytes",
                few,
                http(&repeat(20, &format!("(drop (call $authority {request} {text}))"))),
            ),
            (
                "10 bodies that are not sent",
                few,
                http(&repeat(10, &format!("(call $body {request} (i32.const 1024))"))),
            ),
        ]
    };
    // 1.1 MiB of its memory, and 0.9 MiB for objects.
    assert_each_outcome("policy.max-memory = '2MiB'", cases("memory", "memory")).await;
    let hosts = "policy.max-memory = '2MiB'\npolicy.egress.hosts = ['http://x.example']";
    assert_each_outcome(hosts, cases("memory", "memory")).await;
    // Within 16 MiB the number of handles is the limit: more of them where requests are allowed.
    assert_each_outcome(GENEROUS_LIMITS, cases("allowed", "trap")).await;
    let hosts = &format!("{GENEROUS_LIMITS}policy.egress.hosts = ['http://x.example']");
    assert_each_outcome(hosts, cases("allowed", "trap")).await;
}

/// What a policy gives back does not count; handles that wasmtime keeps for it do.
#[tokio::test]
async fn handles_of_a_decision_are_limited() {
    assert_each_outcome(
        STRICT_LIMITS,
        vec![
            (
                "250 fields of 60,000 bytes, one after the other",
                "allowed",
                guest(
                    &format!("{HTTP} (global $it (mut i32) (i32.const 0))"),
                    &repeat(
                        250,
                        "(global.set $it (call $fields)) (call $append-value (global.get $it)) (call $drop-fields (global.get $it))",
                    ),
                ),
            ),
            ("resources without end", "host", resource_maker()),
        ],
    )
    .await;
}
