//! Missing and invalid policies: the gateway does not start, or refuses all requests.

use std::path::PathBuf;

use crate::client::Wire;
use crate::guests;
use crate::processes::{Gateway, ProcessOutput, path, run_tidegate, with_timeout};

const PORTS: [&str; 6] = ["serve", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--store=memory:"];

fn assert_never_listened(ended: &ProcessOutput, code: i32) {
    assert_eq!(ended.code(), Some(code), "{ended:?}");
    assert!(ended.stdout.is_empty(), "{ended:?}");
}

#[tokio::test]
async fn start_without_a_policy_fails() {
    let ended = run_tidegate(&PORTS).await;
    assert_never_listened(&ended, 2);
    for remedy in ["--policy policy.wasm", "--allow-all"] {
        assert!(ended.stderr.contains(remedy), "{}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[tokio::test]
async fn invalid_policy_fails_the_start_with_its_name_and_cause() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = PathBuf::from(path(dir.path(), "missing.wasm"));
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("the policy is written");
        path
    };
    let allow = guests::component("allow");
    let cases = [
        (missing, "No such file"),
        (file("empty.wasm", b""), "is not WebAssembly"),
        (file("text.wasm", b"#!/bin/sh\nexit 0\n"), "is not WebAssembly"),
        (file("cut.wasm", &allow[..allow.len() / 2]), "unexpected end"),
        (file("core-module.wasm", &guests::component("core-module")), "core module"),
        (file("wrong-world.wasm", &guests::component("wrong-world")), "tidegate:policy/authorizer"),
        (file("missing-import.wasm", &guests::component("missing-import")), "acme:secrets/vault"),
    ];
    for (file, cause) in cases {
        let name = file.to_str().expect("a path");
        for command in [&PORTS[..], &["check", "--store=memory:"]] {
            let ended = run_tidegate(&[command, &["--policy", name]].concat()).await;
            assert_never_listened(&ended, 1);
            assert!(ended.stderr.contains(name) && ended.stderr.contains(cause), "{cause}: {}", ended.stderr);
            assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        }
    }
}

#[tokio::test]
async fn policy_that_traps_fails_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = path(dir.path(), "trap.wasm");
    std::fs::write(&file, guests::component("trap")).expect("the policy is written");
    let gateway = Gateway::start(&format!("store = \"memory:\"\npolicy.file = \"{file}\"")).await;
    for query in ["", "?channel=a", "?channel=a&channel=b&last_ack_a=0", "?channel="] {
        let target = format!("/api/realtime{query}");
        let wire = with_timeout("an answer", Wire::get(gateway.data, &target, None, None)).await.expect("an answer");
        assert_eq!(wire.status, 500, "{}", wire.head);
        assert!(wire.head.contains("content-type: application/json"), "{}", wire.head);
        assert!(wire.body().contains(r#""code":"decision_error""#), "{}", wire.body());
        assert!(!wire.body().contains("trap") && !wire.body().contains("connected"), "{}", wire.body());
    }
    // The log has the cause.
    let traps_logged = gateway.process.stderr.wait_for(|log| log.matches("trap").count() >= 4);
    assert!(with_timeout("four traps in the log", traps_logged).await);
}
