//! Policies that use the asynchronous ABI of the component model: their limits, and how they run next to synchronous ones.

use std::sync::Arc;
use std::time::Duration;

use tidegate::policy::Outcome;
use tidegate::policy::info::PolicyOrigin;
use tidegate::shadow::counts::ShadowCounts;
use tidegate::shadow::shadow_policy::{ShadowPolicy, ShadowSampling};

use crate::guests::{async_authorizer, component};
use crate::harness::{Gateway, load, wait_until};
use crate::origin::{Answer, Origin};
use crate::sandbox_limits::{GENEROUS_LIMITS, REALLOC, STRICT_LIMITS, assert_each_outcome, endless_loop};

/// How a function or its callback ends: the task is done, or goes on, or waits for a set that is added to this number.
const EXIT: &str = "(i32.const 0)";
const YIELD: &str = "(i32.const 1)";
/// Allows the request.
const ALLOW: &str =
    "(call $return (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
  (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0))";
/// Rejects the request.
const REJECT: &str =
    "(call $return (i32.const 1) (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
  (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0))";
/// Starts to wait for an hour, and leaves what it waits for in `$i`.
const START_WAIT: &str = "(local.set $i (i32.shr_u (call $wait-for (i64.const 3_600_000_000_000)) (i32.const 4)))";
/// Waits for the handle in `$i`.
const WAIT: &str =
    "(call $join (local.get $i) (global.get $set)) (i32.or (i32.const 2) (i32.shl (global.get $set) (i32.const 4)))";

/// A policy whose function and callback have this code. Each ends with what its task does next.
pub fn task(fields: &str, function: &str, callback: &str) -> Vec<u8> {
    async_authorizer(&format!(
        r#"(module
          (import "[export]tidegate:policy/authorizer@0.1.0" "[task-return]authorize"
            (func $return (param i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32)))
          (import "$root" "[waitable-set-new]" (func $set-new (result i32)))
          (import "$root" "[waitable-join]" (func $join (param i32 i32)))
          (import "$root" "[backpressure-inc]" (func $backpressure))
          (import "wasi:clocks/monotonic-clock@0.3.0" "[async-lower]wait-for" (func $wait-for (param i64) (result i32)))
          {fields}
          (memory (export "memory") 17)
          (global $set (mut i32) (i32.const 0))
          (global $calls (mut i32) (i32.const 0))
          {REALLOC}
          (func (export "[async-lift]tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (local $i i32)
            (global.set $set (call $set-new))
            {function})
          (func (export "[callback][async-lift]tidegate:policy/authorizer@0.1.0#authorize")
            (param i32 i32 i32) (result i32)
            (local $i i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            {callback}))"#
    ))
}

/// Code that is repeated without end.
fn endless(code: &str) -> String {
    format!("{} unreachable", endless_loop(code))
}

fn spin() -> String {
    endless("")
}

#[tokio::test]
async fn asynchronous_policy_allows_and_rejects() {
    let gateway = Gateway::with_policy(&task("", &format!("{ALLOW} {EXIT}"), "unreachable"), "").await;
    gateway.open("channel=c").await.connected("c").await;
    gateway.activate(&task("", &format!("{REJECT} {EXIT}"), "unreachable")).await.expect("it loads");
    assert_eq!(gateway.request("channel=c").await.status, 418);
    // It answers after it went on a few times, and after it waited for the host.
    let later =
        format!("(if (result i32) (i32.lt_u (global.get $calls) (i32.const 3)) (then {YIELD}) (else {ALLOW} {EXIT}))");
    gateway.activate(&task("", YIELD, &later)).await.expect("it loads");
    gateway.open("channel=c").await.connected("c").await;
    let briefly = START_WAIT.replace("3_600_000_000_000", "1_000_000");
    gateway.activate(&task("", &format!("{briefly} {WAIT}"), &format!("{ALLOW} {EXIT}"))).await.expect("it loads");
    gateway.open("channel=c").await.connected("c").await;
}

#[tokio::test]
async fn cpu_time_of_tasks_is_limited() {
    assert_each_outcome(
        STRICT_LIMITS,
        vec![
            ("spins", "cpu", task("", &spin(), "unreachable")),
            ("spins in its callback", "cpu", task("", YIELD, &spin())),
            ("spins after its answer", "cpu", task("", &format!("{ALLOW} {}", spin()), "unreachable")),
            ("goes on without end", "cpu", task("", YIELD, YIELD)),
            ("goes on without end after its answer", "allowed", task("", &format!("{ALLOW} {YIELD}"), YIELD)),
            ("traps", "trap", task("", "unreachable", "unreachable")),
            ("traps in its callback", "trap", task("", YIELD, "unreachable")),
            // wasmtime asserts in a debug build that a task which ended has answered.
            (
                "ends without an answer",
                if cfg!(debug_assertions) { "host" } else { "trap" },
                task("", EXIT, "unreachable"),
            ),
            ("answers twice", "trap", task("", &format!("{ALLOW} {ALLOW} {EXIT}"), "unreachable")),
            ("ends with an unknown code", "trap", task("", "(i32.const 7)", "unreachable")),
        ],
    )
    .await;
}

#[tokio::test]
async fn waiting_of_tasks_is_limited() {
    let sleeps = format!("{START_WAIT} {WAIT}");
    let left_over = format!("{START_WAIT} {ALLOW} {EXIT}");
    let left_waiting = format!("{START_WAIT} {ALLOW} {WAIT}");
    let empty_set = "(i32.or (i32.const 2) (i32.shl (global.get $set) (i32.const 4)))";
    let wait = r#"(import "$root" "[waitable-set-wait]" (func $wait (param i32 i32) (result i32)))"#;
    assert_each_outcome(
        "policy.timeout = '300ms'",
        vec![
            ("waits for an hour", "timeout", task("", &sleeps, "unreachable")),
            ("waits for an hour without a callback", "timeout", task(wait, &format!("{START_WAIT} (call $join (local.get $i) (global.get $set)) (drop (call $wait (global.get $set) (i32.const 1024))) {ALLOW} {EXIT}"), "unreachable")),
            ("waits on an empty set", "trap", task("", empty_set, "unreachable")),
            ("ends with a call that goes on", "allowed", task("", &left_over, "unreachable")),
            ("waits after its answer", "allowed", task("", &left_waiting, "unreachable")),
            ("accepts no further call", "allowed", task("", &format!("(call $backpressure) {ALLOW} {EXIT}"), "unreachable")),
            // The call that waits is the one that is to return.
            ("stops calls before it waits", "timeout", task("", &format!("(call $backpressure) {sleeps}"), "unreachable")),
        ],
    )
    .await;
}

#[tokio::test]
async fn memory_of_tasks_is_limited() {
    let grow = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    // A rejection with a body of 48 MiB, and one of 512 KiB, which the limit of answers allows.
    let large = |bytes: u32| {
        format!(
            "(drop (memory.grow (i32.const {}))) (call $return (i32.const 1) (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0x110000)
              (i32.const {bytes}) (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0)) {EXIT}",
            bytes >> 16
        )
    };
    assert_each_outcome(
        STRICT_LIMITS,
        vec![
            ("grows its memory", "memory", task("", grow, "unreachable")),
            ("grows its memory in its callback", "memory", task("", YIELD, grow)),
            ("makes sets without end", "trap", task("", &endless("(drop (call $set-new))"), "unreachable")),
            (
                "starts calls without end",
                "trap",
                task("", &endless("(drop (call $wait-for (i64.const 3_600_000_000_000)))"), "unreachable"),
            ),
            ("stops calls without end", "trap", task("", &endless("(call $backpressure)"), "unreachable")),
        ],
    )
    .await;
    let limits = "policy.max-memory = '64MiB'\npolicy.timeout = '20s'\npolicy.cpu-time = '10s'";
    assert_each_outcome(limits, vec![("answers with 48 MiB", "trap", task("", &large(48 << 20), "unreachable"))]).await;
    let gateway = Gateway::with_policy(&task("", &large(512 << 10), "unreachable"), GENEROUS_LIMITS).await;
    let reply = gateway.request("channel=c").await;
    assert_eq!((reply.status, reply.body.len()), (403, 512 << 10));
}

/// A policy that sends a request to this authority by WASI 0.3, and allows its client if there is a response.
fn fetch(authority: &str) -> Vec<u8> {
    // The status tells the case of the error.
    let reject = REJECT.replace("(i32.const 418)", "(i32.add (i32.const 400) (i32.load8_u (i32.const 2056)))");
    let fields = format!(
        r#"(import "wasi:http/types@0.3.0" "[constructor]fields" (func $fields (result i32)))
          (import "wasi:http/types@0.3.0" "[static]request.new" (func $request (param i32 i32 i32 i32 i32 i32 i32)))
          (import "wasi:http/types@0.3.0" "[method]request.set-scheme" (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
          (import "wasi:http/types@0.3.0" "[method]request.set-authority" (func $authority (param i32 i32 i32 i32) (result i32)))
          (import "wasi:http/types@0.3.0" "[method]request.set-path-with-query" (func $path (param i32 i32 i32 i32) (result i32)))
          (import "wasi:http/types@0.3.0" "[future-new-1][static]request.new" (func $future (result i64)))
          (import "wasi:http/types@0.3.0" "[async-lower][future-write-1][static]request.new" (func $write (param i32 i32) (result i32)))
          (import "wasi:http/client@0.3.0" "[async-lower]send" (func $send (param i32 i32) (result i32)))
          (global $trailers (mut i64) (i64.const 0))
          (data (i32.const 512) "{authority}")
          (data (i32.const 768) "/")
          (func $finish (result i32) (if (i32.load8_u (i32.const 2048)) (then {reject}) (else {ALLOW})) {EXIT})"#
    );
    let function = format!(
        "(global.set $trailers (call $future))
         (call $request (call $fields) (i32.const 0) (i32.const 0) (i32.wrap_i64 (global.get $trailers)) (i32.const 0) (i32.const 0) (i32.const 1024))
         (drop (call $scheme (i32.load (i32.const 1024)) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
         (drop (call $authority (i32.load (i32.const 1024)) (i32.const 1) (i32.const 512) (i32.const {})))
         (drop (call $path (i32.load (i32.const 1024)) (i32.const 1) (i32.const 768) (i32.const 1)))
         (local.set $i (call $send (i32.load (i32.const 1024)) (i32.const 2048)))
         ;; no trailers
         (drop (call $write (i32.wrap_i64 (i64.shr_u (global.get $trailers) (i64.const 32))) (i32.const 4096)))
         (if (result i32) (i32.eq (i32.and (local.get $i) (i32.const 15)) (i32.const 2))
           (then (call $finish))
           (else (local.set $i (i32.shr_u (local.get $i) (i32.const 4))) {WAIT}))",
        authority.len()
    );
    // The state of the call is the last parameter: 2 after it returned.
    let callback = "(if (result i32) (i32.eq (local.get 2) (i32.const 2)) (then (call $finish)) (else (i32.or (i32.const 2) (i32.shl (global.get $set) (i32.const 4)))))";
    task(&fields, &function, callback)
}

#[tokio::test]
async fn requests_by_wasi_0_3_obey_the_rules_for_outbound_requests() {
    let server = Origin::start(Answer::new("200 OK", "", "hello")).await;
    let policy = fetch(&server.address.to_string());
    let allowed = format!("policy.egress.hosts = [{{ url = 'http://{}', allow-private = true }}]", server.address);
    let gateway = Gateway::with_policy(&policy, &allowed).await;
    gateway.open("channel=c").await.connected("c").await;
    assert_eq!(server.requests(), 1);
    for denied in ["", "policy.egress.hosts = ['https://example.com']"] {
        let gateway = Gateway::with_policy(&policy, denied).await;
        // The case `HTTP-request-denied`.
        assert_eq!(gateway.request("channel=c").await.status, 415, "{denied}");
    }
    assert_eq!(server.requests(), 1, "a denied request is not sent");
}

/// A policy that answers at once, in the engine for its ABI.
fn allowing(is_async: bool) -> Vec<u8> {
    if is_async { task("", &format!("{ALLOW} {EXIT}"), "unreachable") } else { component("allow") }
}

#[tokio::test]
async fn policies_of_both_engines_shadow_each_other() {
    for active_is_async in [false, true] {
        let gateway = Gateway::with_policy(&allowing(active_is_async), "").await;
        for (shadow, counts) in [
            (allowing(!active_is_async), ShadowCounts { agree: 1, ..ShadowCounts::default() }),
            (task("", "unreachable", "unreachable"), ShadowCounts { error: 1, ..ShadowCounts::default() }),
        ] {
            let sampling = ShadowSampling { share: 1.0, concurrency: 4 };
            let mask = gateway.app.audit.mask();
            let shadow = Arc::new(ShadowPolicy::new(load(&shadow), PolicyOrigin::default(), sampling, 100, mask));
            gateway.app.shadow.replace(Some(Arc::clone(&shadow)));
            gateway.open("channel=c").await.connected("c").await;
            wait_until(&format!("{counts:?}, of {:?}", shadow.report()), || shadow.counts() == counts).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_dropped_instances_leave_nothing() {
    use tidegate::authz::authorizer::Authorizer;
    use tidegate::policy::{Limits, Request};
    use tidegate::wasm::component::Policy;
    use tidegate::wasm::engine::Engines;
    use tidegate::wasm::host::PolicyEnv;

    let limits = Limits {
        concurrency: 4,
        timeout: Duration::from_millis(20),
        queue_timeout: Duration::from_secs(20),
        prewarmed_instances: 0,
        ..Limits::default()
    };
    let engines = Engines::new(&limits).expect("engines");
    let store = crate::faulty_store::FaultyStore::new(Default::default());
    let env = PolicyEnv::new(store, &limits);
    let authorizer = Authorizer::new(engines.clone(), env, limits, Arc::default());
    let left_over = format!("{START_WAIT} {ALLOW} {EXIT}");
    let sleeps = format!("{START_WAIT} {WAIT}");
    for (function, callback, count) in [
        (&*left_over, "unreachable", 500),
        (&*sleeps, "unreachable", 20),
        (YIELD, "unreachable", 500),
        ("unreachable", EXIT, 500),
    ] {
        authorizer.activate(Policy::new(&engines.clone().into(), &task("", function, callback)).expect("it loads"));
        for _ in 0..count {
            let request = Request {
                method: "GET".into(),
                scheme: "http".into(),
                authority: "localhost".into(),
                path_with_query: "/api/realtime?channel=c".into(),
                headers: http::HeaderMap::new(),
                client_address: None,
                id: "1".into(),
            };
            let decision = authorizer.evaluate(&request, &["c".to_owned()]).await;
            assert!(matches!(&decision.outcome, Outcome::Allowed(_) | Outcome::Failed(_)), "{:?}", decision.outcome);
            assert!(!matches!(&decision.outcome, Outcome::Failed(failure) if failure.kind() == "busy"));
        }
    }
    wait_until("all instances are gone", || authorizer.evaluating() == 0).await;
    let usage = engines.pool_usage().expect("there is address space for pools");
    assert_eq!(
        (usage.component_instances, usage.core_instances, usage.memories, usage.tables, usage.stacks),
        (0, 0, 0, 0, 0)
    );
}
