//! A faulty policy fails closed, and does not affect others.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use serde_json::json;
use tidegate::wasm::component::Policy;
use tidegate::wasm::engine;

use crate::client::{Reply, Sse};
use crate::guests::{authorizer, component};
use crate::harness::{Gateway, load, wait_until, with_timeout};

/// Enough for a well-behaved policy, and soon reached by a hostile one.
const STRICT_LIMITS: &str =
    "policy.cpu-time = '50ms'\npolicy.timeout = '1s'\npolicy.lookup.prefixes = ['forbidden:']\n";

/// Asserts that the message of a failed decision does not reveal its cause, which is in the operator's log.
fn assert_reveals_nothing(reply: &Reply, name: &str) {
    let message = reply.json()["error"]["message"].as_str().expect("a message").to_lowercase();
    for word in ["policy", "wasm", "trap", "memory", "unreachable", "timeout", "cpu", "stack", "header", name] {
        assert!(!message.contains(word), "{name}: {message}");
    }
}

#[tokio::test]
async fn hostile_policy_fails_closed_until_a_valid_one_is_active() {
    for (name, kind) in [
        ("trap", "trap"),
        ("recurse", "trap"),
        ("spin", "cpu"),
        ("sleep", "timeout"),
        ("grow", "memory"),
        ("huge-answer", "trap invalid-answer"),
        ("invalid-header", "invalid-answer"),
        ("invalid-status", "invalid-answer"),
        ("event-stream", "invalid-answer"),
        ("bad-grant-header", "invalid-answer"),
        ("foreign-channel", "invalid-answer"),
        ("no-channels", "invalid-answer"),
        ("expired", "invalid-answer"),
    ] {
        // The CPU time is shared with other tests of this process, and must be used up before the timeout.
        let bounds = match name {
            "spin" => "policy.cpu-time = '20ms'\npolicy.timeout = '60s'",
            // On a busy machine these guests need a long timeout.
            "grow" | "huge-answer" => "policy.cpu-time = '1s'\npolicy.timeout = '60s'",
            _ => STRICT_LIMITS,
        };
        let gateway = Gateway::with_policy(&component(name), bounds).await;
        let mut decisions = gateway.app.authorizer.watch();
        let reply = gateway.request("channel=c&channel=d&last_ack_c=0").await;
        assert_eq!((reply.status, &*reply.code()), (500, "decision_error"), "{name}: {}", reply.body);
        assert_eq!(reply.header("content-type"), "application/json", "{name}");
        assert_eq!(reply.header("x-evil"), "", "{name}");
        assert_reveals_nothing(&reply, name);
        assert!(gateway.is_idle(), "{name}: no stream is open");
        let observed = decisions.try_recv().expect("a decision is observed");
        let tidegate::policy::Outcome::Failed(failure) = &observed.decision.outcome else {
            panic!("{name}: {:?}", observed.decision.outcome)
        };
        assert!(kind.split(' ').any(|kind| kind == failure.kind()), "{name}: {failure:?}");

        gateway.app.authorizer.activate(load(&component("allow")));
        let mut sse = gateway.open("channel=c&last_ack_c=0").await;
        sse.connected("c").await;
        let id = gateway.store.emit_stock("c", "e", &json!(1)).await;
        assert_eq!(sse.ids("c", 1).await, [id], "{name}");
    }
}

#[tokio::test]
async fn policy_answer_is_sent_unchanged() {
    let gateway = Gateway::with_policy(&component("deny"), STRICT_LIMITS).await;
    let reply = gateway.request("channel=c").await;
    assert_eq!((reply.status, &*reply.body), (418, "no tea"));
    assert_eq!((&*reply.header("x-why"), &*reply.header("content-type")), ("teapot", "text/plain"));
    assert_eq!(reply.header("content-length"), "6");
    assert!(gateway.is_idle());
    assert_eq!(reply.header("cache-control"), "no-store", "no cache keeps it");

    let deny = std::fs::read_to_string("tests/fixtures/policies/deny.wat").expect("the fixture");
    let cacheable = deny.replace("256 5", "256 13").replace("x-why", "cache-control").replace("teapot", "public");
    let gateway = Gateway::with_policy(&authorizer(&cacheable), STRICT_LIMITS).await;
    assert_eq!(gateway.request("channel=c").await.header("cache-control"), "public", "the policy decides");

    let gateway = Gateway::with_policy(&component("grant-headers"), STRICT_LIMITS).await;
    let mut sse = gateway.open("channel=c").await;
    assert_eq!((&*sse.header("set-cookie"), &*sse.header("x-extra")), ("a=b", "1"));
    sse.connected("c").await;

    let gateway = Gateway::with_policy(&component("tokens"), STRICT_LIMITS).await;
    let reply = gateway.request("channel=c").await;
    assert_eq!((reply.status, &*reply.body), (503, "unavailable"));

    // The only channel that this policy allows.
    let gateway = Gateway::with_policy(&component("foreign-channel"), STRICT_LIMITS).await;
    let mut sse = gateway.open("channel=c&channel=not-requested").await;
    sse.connected("not-requested").await;
    assert_eq!(gateway.store.subscribed_channels(), ["not-requested"]);
}

#[tokio::test]
async fn lookups_are_denied_unavailable_or_answered() {
    let lookup = component("lookup");
    let gateway = Gateway::with_policy(&lookup, "policy.lookup.prefixes = ['session:']").await;
    let reply = gateway.request("channel=c").await;
    assert_eq!((reply.status, &*reply.body), (403, "denied"));
    assert!(gateway.is_idle());

    let gateway = Gateway::with_policy(&lookup, STRICT_LIMITS).await;
    gateway.store.disconnect();
    let reply = gateway.request("channel=c").await;
    assert_eq!((reply.status, &*reply.body), (503, "unavailable"));
    gateway.store.reconnect();
    gateway.open("channel=c").await.connected("c").await;
}

#[tokio::test]
async fn requests_without_a_policy_are_refused() {
    let gateway = Gateway::start_with(None, &crate::harness::InitialPolicy::Missing, "").await;
    let reply = gateway.request("channel=c").await;
    assert_eq!((reply.status, &*reply.code()), (503, "unavailable"));
    assert_reveals_nothing(&reply, "no-policy");
    assert!(gateway.is_idle());
}

#[tokio::test]
async fn invalid_component_fails_to_load_with_the_cause() {
    let allow = component("allow");
    let machine_code = wasmtime::Engine::default().precompile_component(&allow).expect("it compiles");
    let mut cut_off = allow.clone();
    cut_off.truncate(allow.len() / 2);
    for (case, bytes, words) in [
        ("missing-import", component("missing-import"), &["acme:secrets/vault@1.0.0"][..]),
        ("wrong-world", component("wrong-world"), &["tidegate:policy/authorizer@0.1.0", "answer"]),
        ("core-module", component("core-module"), &["core module", "component"]),
        ("not wasm", b"#!/bin/sh\necho allow\n".to_vec(), &["not WebAssembly"]),
        ("text", b"(component)".to_vec(), &["not WebAssembly"]),
        ("an empty file", Vec::new(), &["not WebAssembly"]),
        ("four bytes", b"\0asm".to_vec(), &["not a valid component"]),
        ("machine code", machine_code, &[".cwasm"]),
        ("the first half", cut_off, &["not a valid component"]),
        ("an empty component", b"\0asm\x0d\0\x01\0".to_vec(), &["tidegate:policy/authorizer@0.1.0", "nothing"]),
    ] {
        let gateway = Gateway::with_policy(&allow, "").await;
        let before = gateway.app.authorizer.active();
        let error = gateway.activate(&bytes).await.expect_err(case).to_string();
        for word in words {
            assert!(error.contains(word), "{case}: {error}");
        }
        assert_eq!(gateway.app.authorizer.active(), before, "{case}: the previous policy stays active");
        gateway.open("channel=c").await.connected("c").await;
    }
    let error = Policy::load(&engine::shared().expect("engines").into(), Path::new("/nowhere/policy.wasm"))
        .err()
        .expect("the file does not exist")
        .to_string();
    assert!(error.contains("cannot be read"), "{error}");
}

#[tokio::test]
async fn replaced_policy_makes_no_more_decisions() {
    let gateway = Gateway::with_policy(&component("allow"), "").await;
    let mut sse = gateway.open("channel=c").await;
    sse.connected("c").await;
    let info = gateway.activate(&component("deny")).await.expect("it loads");
    assert!(info.digest.starts_with("sha256:") && info.generation == 2);
    assert_eq!(gateway.app.authorizer.active(), Some(info));
    assert_eq!(gateway.request("channel=c").await.status, 418);
    let id = gateway.store.emit_stock("c", "e", &json!(1)).await;
    assert_eq!(sse.ids("c", 1).await, [id], "no stream is closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_hostile_decisions_do_not_affect_other_gateways() {
    for (name, toml) in [
        // All decisions wait for CPU time, and none for a permit.
        ("spin", "policy.cpu-time = '10ms'\npolicy.timeout = '4s'\npolicy.queue-timeout = '10s'"),
        ("sleep", "policy.timeout = '1s'"),
    ] {
        let hostile = Arc::new(Gateway::with_policy(&component(name), toml).await);
        let good = Gateway::with_policy(&component("allow"), "").await;
        let mut stream = good.open("channel=c").await;
        stream.connected("c").await;
        // Each attacker repeats its request until the other clients are done.
        let done = Arc::new(AtomicBool::new(false));
        let attack = join_all((0..200).map(|_| async {
            loop {
                let reply = hostile.request("channel=c").await;
                assert_eq!((reply.status, &*reply.code()), (500, "decision_error"), "{name}");
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        }));
        let others = async {
            wait_until("the hostile decisions have begun", || hostile.app.streams.count() > 0).await;
            for _ in 0..3 {
                let mut sse = good.open("channel=c").await;
                sse.connected("c").await;
                let id = good.store.emit_stock("c", "e", &json!(1)).await;
                assert_eq!((sse.ids("c", 1).await, stream.ids("c", 1).await), (vec![id], vec![id]));
            }
            done.store(true, Ordering::Relaxed);
        };
        tokio::join!(attack, others);
        hostile.app.authorizer.activate(load(&component("deny")));
        // On a busy machine the limits above may stop a well-behaved decision, too.
        with_timeout("a well-behaved policy decides", async {
            while hostile.request("channel=c").await.status != 418 {}
        })
        .await;
    }
}

#[tokio::test]
async fn request_that_exceeds_the_queue_timeout_is_503() {
    let toml = "policy.concurrency = 1\npolicy.queue-timeout = '100ms'\npolicy.timeout = '3s'";
    let gateway = Gateway::with_policy(&component("sleep"), toml).await;
    let first_finished = AtomicBool::new(false);
    let first = async {
        let reply = gateway.request("channel=c").await;
        first_finished.store(true, Ordering::Relaxed);
        reply
    };
    let second = async {
        wait_until("the first decision has begun", || gateway.app.streams.count() == 1).await;
        let reply = gateway.request("channel=c").await;
        (reply, first_finished.load(Ordering::Relaxed))
    };
    let (first, (second, waited_for_first)) = tokio::join!(first, second);
    assert_eq!((second.status, &*second.code()), (503, "unavailable"));
    assert!(!waited_for_first, "the second request is answered while the first is being decided");
    assert_eq!(first.status, 500);
}

#[tokio::test]
async fn request_that_waits_for_a_permit_is_decided() {
    let toml = "policy.concurrency = 1\npolicy.queue-timeout = '5s'";
    let gateway = Gateway::with_policy(&component("slow"), toml).await;
    let (mut first, mut second): (Sse, Sse) = tokio::join!(gateway.open("channel=c"), gateway.open("channel=c"));
    tokio::join!(first.connected("c"), second.connected("c"));
}

#[tokio::test]
async fn component_that_imports_all_of_wasi_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests");
    let Ok(files) = std::fs::read_dir(folder) else { return };
    for file in files {
        let path = file.expect("a folder is read").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("unstubbed-") && name.ends_with(".wasm") {
            let loaded = Policy::load(&engine::shared().expect("an engine").into(), &path);
            assert!(loaded.is_ok(), "{name}: {:?}", loaded.err());
        }
    }
}
